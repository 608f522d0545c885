"""Configs as tagged dicts and back, and overrides of single fields: by a field's type, never by a value's look."""

import types
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import PartitaError, nearest, shorten, shown
from .files import parse_json
from .registry import Config, lookup

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """A Config, or any dataclass of plain values, as what JSON can hold; a Config is tagged with its type."""
    if is_dataclass(value) and not isinstance(value, type):
        tagged = {"type": value.tag} if isinstance(value, Config) else {}
        return tagged | {field.name: to_dict(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, (tuple, list)):
        return [to_dict(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    return value


def from_dict(kind: type[T], data: Any, *, roles: tuple[str, ...] = (), where: str = "config") -> T:
    """Decodes what `to_dict` made.

    Args:
        kind: the type wanted: a dataclass, `Config` for whatever the tag names, or a plain type.
        data: the value as JSON holds it.
        roles: the roles accepted where `kind` is `Config`.
        where: the path of the value, for messages.

    Raises:
        PartitaError: a type, name or key is not known, one is missing, or a value does not fit; `where` it is and
            the nearest valid names are given.
    """
    try:
        return _decode(kind, data, roles, where)
    except RecursionError:
        raise PartitaError(f"{where}: nested too deeply") from None


def override(config: T, overrides: Iterable[str]) -> T:
    """`config` with fields replaced by `path.to.key=value` texts, in their order.

    A component is replaced by the name of another (`model.bottleneck=tanh`, with that one's defaults), tuples and
    dicts are written as JSON, and a dict's single keys may be set (`objective.weights.kl=0.1`).

    Raises:
        PartitaError: a path leads nowhere (the nearest valid name is given) or a value does not fit.
    """
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            raise PartitaError(f"{text!r} is not an override; write path.to.key=value")
        config = _replace(config, tuple(path.split(".")), value, type(config), (), "")
    return config


def named(text: str, *roles: str) -> Config:
    """The Config of a name, with settings behind a colon if need be: `two_step:refine=false,sigma_context=0.5`.

    Args:
        text: a name as `lookup` takes it, or one with overrides.
        *roles: the roles that it may have; none for any.

    Raises:
        PartitaError: nothing or no setting is called so, or a value does not fit.
    """
    name, _, settings = text.partition(":")
    return override(lookup(name, roles)(), settings.split(",") if settings else ())


def build(config: "Config | dict[str, Any]", **derived: Any) -> Any:
    """Builds a component from its Config, or from the tagged dict of one."""
    if isinstance(config, dict):
        config = from_dict(Config, config)
    return config.build(**derived)


def _decode(kind: Any, data: Any, roles: tuple[str, ...], where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        return _first_that_fits(options, data, roles, where)
    if origin is Literal:
        if data not in arguments:
            raise PartitaError(f"{where}: {shown(data)} is none of {', '.join(map(repr, arguments))}")
        return data
    if origin in (tuple, list):
        if not isinstance(data, (list, tuple)):
            raise PartitaError(f"{where}: expected a list, got {shown(data)}")
        inner = arguments[:-1] if arguments[-1:] == (Ellipsis,) else arguments
        if origin is list or arguments[-1:] == (Ellipsis,):
            inner = inner * len(data)
        if len(inner) != len(data):
            raise PartitaError(f"{where}: expected {len(inner)} values, got {len(data)}")
        items = (_decode(one, item, roles, f"{where}[{i}]") for i, (one, item) in enumerate(zip(inner, data)))
        return origin(items)
    if origin is dict:
        if not isinstance(data, dict):
            raise PartitaError(f"{where}: expected a mapping, got {shown(data)}")
        return {str(key): _decode(arguments[1], item, roles, f"{where}.{key}") for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, Config):
        return _decode_component(kind, data, roles, where)
    if is_dataclass(kind):
        return _decode_fields(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        members = {name.lower(): member for name, member in kind.__members__.items()}
        name = str(data).lower()
        if name not in members:
            raise PartitaError(f"{where}: unknown {kind.__name__} {shown(data)}; {nearest(name, members)}")
        return members[name]
    return _decode_plain(kind, data, where)


def _decode_plain(kind: Any, data: Any, where: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, kind) and not (isinstance(data, bool) and kind is not bool):
        return data
    raise PartitaError(f"{where}: expected {kind.__name__}, got {shown(data)}")


def _first_that_fits(options: list[Any], data: Any, roles: tuple[str, ...], where: str) -> Any:
    errors = []
    for option in options:
        try:
            return _decode(option, data, roles, where)
        except PartitaError as error:
            errors.append(error)
    raise errors[0]


def _decode_component(kind: type[Config], data: Any, roles: tuple[str, ...], where: str) -> Config:
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise PartitaError(f"{where}: expected a component with its type, got {shown(data)}")
    try:
        cls = lookup(data["type"], roles)
    except PartitaError as error:
        raise PartitaError(f"{where}: {error}") from None
    if not issubclass(cls, kind):
        raise PartitaError(f"{where}: {shorten(data['type'])} is no {kind.__name__}")
    return _decode_fields(cls, {key: item for key, item in data.items() if key != "type"}, where)


def _decode_fields(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise PartitaError(f"{where}: expected a mapping, got {shown(data)}")
    hints, known = get_type_hints(cls), {field.name: field for field in fields(cls)}
    for key in data:
        if key not in known:
            raise PartitaError(f"{where}: unknown key {shown(key)}; {nearest(str(key), known)}")
    values = {}
    for name, field in known.items():
        if name in data:
            roles = field.metadata.get("roles", ())
            values[name] = _decode(hints[name], data[name], roles, f"{where}.{name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise PartitaError(f"{where}: key {name!r} is missing")
    try:
        return cls(**values)
    except PartitaError as error:
        raise PartitaError(f"{where}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a check that did not expect such a value
        raise PartitaError(f"{where}: {cls.__name__} takes no such values ({error})") from error


def _replace(value: Any, path: tuple[str, ...], text: str, kind: Any, roles: tuple[str, ...], where: str) -> Any:
    if not path:
        return _parse(kind, text, roles, where)
    name, deeper = path[0], f"{where}.{path[0]}" if where else path[0]
    if isinstance(value, dict):
        if name not in value:
            raise PartitaError(f"unknown key {deeper!r}; {nearest(name, value)}")
        inner = (get_args(kind) or (Any, Any))[1]
        return value | {name: _replace(value[name], path[1:], text, inner, roles, deeper)}
    if isinstance(value, tuple) and name.isdigit() and int(name) < len(value):
        item = _replace(value[int(name)], path[1:], text, type(value[int(name)]), roles, deeper)
        return (*value[: int(name)], item, *value[int(name) + 1 :])
    if not is_dataclass(value) or isinstance(value, type):
        raise PartitaError(f"{where!r} has no parts; {deeper!r} leads nowhere")
    known = {field.name: field for field in fields(value)}
    if name not in known:
        raise PartitaError(f"unknown key {deeper!r}; {nearest(name, known)}")
    inner_roles = known[name].metadata.get("roles", ())
    part = _replace(getattr(value, name), path[1:], text, get_type_hints(type(value))[name], inner_roles, deeper)
    return replace(value, **{name: part})


def _parse(kind: Any, text: str, roles: tuple[str, ...], where: str) -> Any:
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    for option in options:
        if isinstance(option, type) and issubclass(option, Config) and not text.startswith("{"):
            return lookup(text, roles)()
    plain = [option for option in options if option is not type(None)]
    data = text if plain == [str] else _json_or_text(text)
    return from_dict(kind, data, roles=roles, where=where)


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(text)
    except PartitaError:
        return {"true": True, "false": False}.get(text.lower(), text)
