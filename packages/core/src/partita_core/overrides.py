"""Overrides of Config fields by text: merged first, then each part is built once from its final values."""

import re
import types
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from .configs import construct, decode_component, decode_values, from_dict
from .errors import PartitaError, short_repr, suggest
from .files import parse_json
from .registry import Config, lookup

T = TypeVar("T")


def override(config: T, overrides: Iterable[str]) -> T:
    """Return `config` with fields replaced by texts `path.to.key=value`, in any order.

    A component is replaced by name (`model.bottleneck=tanh`) and then has its defaults, to which overrides of its
    fields apply. Tuples and dicts are written as JSON. Single keys of dicts can be set (`objective.weights.kl=0.1`),
    and dicts of components or numbers accept new keys. If a path is given twice, the last value applies. Values are
    checked when all are in place, so fields can change together (`audio.channels=1 audio.layouts=["mono"]`).

    Raises:
        PartitaError: a path does not exist (the nearest valid name is given), or a value does not fit.
    """
    return _overridden(config, type(config), overrides)


def parse_config(text: str, *roles: str) -> Config:
    """Parse the name of a component, with optional settings: `two_step:refine=false,sigma_context=0.5`.

    Args:
        text: name as `lookup` takes it, optionally followed by a colon and overrides separated by commas.
        *roles: roles to accept; any by default.

    Raises:
        PartitaError: the name or a setting does not exist, or a value does not fit.
    """
    name, _, settings = text.partition(":")
    chosen = _Unbuilt(lookup(name, roles), {})
    return _overridden(chosen, chosen.cls, re.split(r",(?=[\w.]+=)", settings) if settings else ())


@dataclass
class _Node:
    """The overrides of one value.

    Attributes:
        text: text of the full value; None if only fields or items of it are overridden.
        parts: overrides of its fields or items.
    """

    text: str | None = None
    parts: "dict[str, _Node]" = field(default_factory=dict)


class _Unbuilt(NamedTuple):
    """A dataclass that is not built yet, and the values given for its fields."""

    cls: Any
    values: dict[str, Any]


def _overridden(value: Any, kind: Any, overrides: Iterable[str]) -> Any:
    root = _Node()
    for text in overrides:
        path, equals, given = text.partition("=")
        if not equals or not all(path.split(".")):
            raise PartitaError(f"{text!r} is not an override; write path.to.key=value")
        node = root
        for name in path.split("."):
            node = node.parts.setdefault(name, _Node())
        node.text = given
    return _merge(value, kind, root, (), "")


def _merge(value: Any, kind: Any, node: _Node, roles: tuple[str, ...], where: str) -> Any:
    """Apply the overrides of a node: the full value first, then its fields or items."""
    if node.text is not None:
        value = _parse(kind, node.text, roles, where)
    if isinstance(value, _Unbuilt):
        return construct(value.cls, _fields(value.cls, value.values, node, where), where or value.cls.__name__)
    if not node.parts:
        return value
    if isinstance(value, dict):
        return _items(value, kind, node, roles, where)
    if isinstance(value, (tuple, list)):
        return _elements(value, kind, node, roles, where)
    if not is_dataclass(value) or isinstance(value, type):
        deeper = f"{where}.{next(iter(node.parts))}"
        raise PartitaError(f"{where!r} is {short_repr(value)}, which has no fields; cannot set {deeper!r}")
    values = {each.name: getattr(value, each.name) for each in fields(value)}
    return construct(type(value), _fields(type(value), values, node, where), where or type(value).__name__)


def _fields(cls: Any, values: dict[str, Any], node: _Node, where: str) -> dict[str, Any]:
    """Apply the overrides of a node to the field values of a dataclass."""
    known, hints, found = {each.name: each for each in fields(cls)}, get_type_hints(cls), dict(values)
    for name, part in node.parts.items():
        deeper = f"{where}.{name}" if where else name
        if name not in known:
            raise PartitaError(f"unknown key {deeper!r}; {suggest(name, known)}")
        declared = known[name]
        factory = declared.default_factory
        default = declared.default if factory is MISSING else factory()
        current = found.get(name, default)
        _check_there(current, part, deeper)
        found[name] = _merge(current, hints[name], part, declared.metadata.get("roles", ()), deeper)
    return found


def _items(value: dict, kind: Any, node: _Node, roles: tuple[str, ...], where: str) -> dict:
    """Apply the overrides of a node to a dict; new keys are allowed for components and numbers."""
    inner: Any = (_arguments(kind, dict) or (Any, Any))[1]
    grows = inner in (int, float) or (isinstance(inner, type) and issubclass(inner, Config))
    found = dict(value)
    for name, part in node.parts.items():
        deeper = f"{where}.{name}"
        if name not in value and not grows:
            raise PartitaError(f"unknown key {deeper!r}; {suggest(name, value)}")
        current = value.get(name, MISSING)
        _check_there(current, part, deeper)
        found[name] = _merge(current, inner, part, roles, deeper)
    return found


def _elements(value: tuple | list, kind: Any, node: _Node, roles: tuple[str, ...], where: str) -> tuple | list:
    """Apply the overrides of a node to a tuple or list, whose items are numbered from 0."""
    found, inner = list(value), _arguments(kind, type(value))
    for name, part in node.parts.items():
        deeper = f"{where}.{name}"
        if not name.isdecimal() or int(name) >= len(value):
            raise PartitaError(f"{where!r} has {len(value)} items, numbered from 0; cannot set {deeper!r}")
        position = int(name)
        repeated = isinstance(value, list) or inner[-1:] == (Ellipsis,)
        each = (inner[0] if repeated else inner[position]) if inner else type(value[position])
        found[position] = _merge(value[position], each, part, roles, deeper)
    return type(value)(found)


def _check_there(current: Any, part: _Node, where: str) -> None:
    """Check that a value exists before its fields are overridden."""
    if current is MISSING and part.text is None:
        raise PartitaError(f"{where!r} is not set, so its fields cannot be changed; set it first: {where}=VALUE")


def _parse(kind: Any, text: str, roles: tuple[str, ...], where: str) -> Any:
    """Parse the text of a value; components and dataclasses are returned unbuilt."""
    options = _options(kind)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    for option in options:
        if isinstance(option, type) and issubclass(option, Config):
            if text.startswith("{"):
                return _Unbuilt(*decode_component(option, _json_or_text(text), roles, where))
            return _Unbuilt(_looked_up(text, roles, where), {})
        if is_dataclass(option) and text.startswith("{"):
            return _Unbuilt(option, decode_values(option, _json_or_text(text), where))
    plain = [option for option in options if option is not type(None)]
    data = text if plain == [str] else _json_or_text(text)
    return from_dict(kind, data, roles=roles, where=where)


def _looked_up(text: str, roles: tuple[str, ...], where: str) -> type[Config]:
    try:
        return lookup(text, roles)
    except PartitaError as error:
        raise PartitaError(f"{where}: {error}") from None


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(text)
    except PartitaError:
        return {"true": True, "false": False}.get(text.lower(), text)


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _arguments(kind: Any, origin: type) -> tuple[Any, ...]:
    """The type arguments of the option of `kind` whose origin is `origin`; empty if there is none."""
    return next((get_args(option) for option in _options(kind) if get_origin(option) is origin), ())
