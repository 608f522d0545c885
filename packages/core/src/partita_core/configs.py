"""Conversion of Configs to tagged dicts and back; values are decoded by the declared type of their field."""

import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import PartitaError, short_repr, shorten, suggest
from .registry import Config, lookup

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """Convert a Config, or any dataclass of plain values, to JSON types; each Config is tagged with its `type`."""
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
    """Decode the result of `to_dict`.

    Args:
        kind: expected type: a dataclass, `Config` for the class that the tag names, or a plain type.
        data: JSON value.
        roles: roles to accept if `kind` is `Config`; any by default.
        where: path of the value in messages.

    Raises:
        PartitaError: a type, name or key is unknown or missing, or a value does not fit; the path and the nearest
            valid names are given.
    """
    try:
        return _decode(kind, data, roles, where)
    except RecursionError:
        raise PartitaError(f"{where} is nested too deeply") from None


def build(config: "Config | dict[str, Any]", **derived: Any) -> Any:
    """Build a component from its Config, or from a tagged dict; `derived` are the values that other parts determine."""
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
            raise PartitaError(f"{where}: {short_repr(data)} is not one of {', '.join(map(repr, arguments))}")
        return data
    if origin in (tuple, list):
        if not isinstance(data, (list, tuple)):
            raise PartitaError(f"{where}: expected a list, got {short_repr(data)}")
        inner = arguments[:-1] if arguments[-1:] == (Ellipsis,) else arguments
        if origin is list or arguments[-1:] == (Ellipsis,):
            inner = inner * len(data)
        if len(inner) != len(data):
            raise PartitaError(f"{where}: expected {len(inner)} values, got {len(data)}")
        items = (_decode(one, item, roles, f"{where}[{i}]") for i, (one, item) in enumerate(zip(inner, data)))
        return origin(items)
    if origin is dict:
        if not isinstance(data, dict):
            raise PartitaError(f"{where}: expected a mapping, got {short_repr(data)}")
        return {str(key): _decode(arguments[1], item, roles, f"{where}.{key}") for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, Config):
        return _decode_component(kind, data, roles, where)
    if is_dataclass(kind):
        return construct(kind, decode_values(kind, data, where), where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        members = {name.lower(): member for name, member in kind.__members__.items()}
        name = str(data).lower()
        if name not in members:
            raise PartitaError(f"{where}: unknown {kind.__name__} {short_repr(data)}; {suggest(name, members)}")
        return members[name]
    return _decode_plain(kind, data, where)


def _decode_plain(kind: Any, data: Any, where: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, kind) and not (isinstance(data, bool) and kind is not bool):
        return data
    raise PartitaError(f"{where}: expected {kind.__name__}, got {short_repr(data)}")


def _first_that_fits(options: list[Any], data: Any, roles: tuple[str, ...], where: str) -> Any:
    errors = []
    for option in options:
        try:
            return _decode(option, data, roles, where)
        except PartitaError as error:
            errors.append(error)
    raise errors[0]


def _decode_component(kind: type[Config], data: Any, roles: tuple[str, ...], where: str) -> Config:
    cls, values = decode_component(kind, data, roles, where)
    return construct(cls, values, where)


def decode_component(
    kind: type[Config], data: Any, roles: tuple[str, ...], where: str
) -> tuple[type[Config], dict[str, Any]]:
    """Decode a tagged dict to its class and field values, without building it; arguments and errors as `from_dict`."""
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise PartitaError(f"{where}: expected a component with its type, got {short_repr(data)}")
    try:
        cls = lookup(data["type"], roles)
    except PartitaError as error:
        raise PartitaError(f"{where}: {error}") from None
    if not issubclass(cls, kind):
        raise PartitaError(f"{where}: {shorten(data['type'])} is not a {kind.__name__}")
    return cls, decode_values(cls, {key: item for key, item in data.items() if key != "type"}, where)


def decode_values(cls: Any, data: Any, where: str) -> dict[str, Any]:
    """Decode the given field values of a dataclass; errors as `from_dict`."""
    if not isinstance(data, dict):
        raise PartitaError(f"{where}: expected a mapping, got {short_repr(data)}")
    hints, known = get_type_hints(cls), {field.name: field for field in fields(cls)}
    for key in data:
        if key not in known:
            raise PartitaError(f"{where}: unknown key {short_repr(key)}; {suggest(str(key), known)}")
    values = {}
    for name, item in data.items():
        values[name] = _decode(hints[name], item, known[name].metadata.get("roles", ()), f"{where}.{name}")
    return values


def construct(cls: Any, values: dict[str, Any], where: str) -> Any:
    """Build a dataclass from decoded values; missing fields take their defaults.

    Raises:
        PartitaError: a field without a default is missing, or a value is invalid; the path `where` is given.
    """
    for field in fields(cls):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise PartitaError(f"{where}: key {field.name!r} is missing")
    try:
        return cls(**values)
    except PartitaError as error:
        raise PartitaError(f"{where}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a check that does not handle such a value
        raise PartitaError(f"{where}: invalid values for {cls.__name__} ({error})") from error
