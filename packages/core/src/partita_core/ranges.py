"""Ranges of numbers: declared in the type of a field, checked when a Config is built."""

import math
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import PartitaError, short_repr, shorten


@dataclass(frozen=True)
class Range:
    """Range of finite numbers, an annotation of a field's type: `Annotated[int, Range(1, 64)]`.

    Attributes:
        low: smallest number.
        high: largest number; infinite by default.
        open_low: exclude `low` itself.
        open_high: exclude `high` itself.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        if not (self.low <= value <= self.high and -math.inf < value < math.inf):
            return False
        return not (self.open_low and value == self.low) and not (self.open_high and value == self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {_number(self.low)}"
        high = f"{'below' if self.open_high else 'at most'} {_number(self.high)}"
        parts = [text for text, end in ((low, self.low), (high, self.high)) if math.isfinite(end)]
        return " and ".join(parts) or "finite"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


# Maximum sizes are far above any published model, and far below what would exhaust memory by one number alone.
Width = Annotated[int, Range(1, 1 << 16)]
"""Numbers of channels, units, bands or codes."""

Heads = Annotated[int, Range(1, 1024)]
"""Numbers of attention heads."""

Layers = Annotated[int, Range(1, 1024)]
"""Numbers of layers, levels or other parts in series."""

Extras = Annotated[int, Range(0, 1024)]
"""Numbers of optional layers, registers or frames."""

Frames = Annotated[int, Range(1, 1 << 12)]
"""Frames of a window, a chunk or a history; the memory of attention grows with the square."""

Samples = Annotated[int, Range(1, 1 << 20)]
"""Samples of a window, hop, stride or kernel."""

Count = Annotated[int, Range(1, (1 << 31) - 1)]
"""Counts of steps or items, which take no memory."""

Steps = Annotated[int, Range(0, (1 << 31) - 1)]
"""Steps of a part of a schedule, 0 to skip it."""

Seed = Annotated[int, Range(-(1 << 63), (1 << 63) - 1)]
"""Random seeds."""

Proportion = Annotated[float, Range(0, 1)]
"""Probabilities, fractions and decay rates."""

Positive = Annotated[float, Range(0, open_low=True)]
"""Scales."""

NonNegative = Annotated[float, Range(0)]
"""Weights and amplitudes."""

Finite = Annotated[float, Range(-math.inf)]
"""Levels and means of either sign."""

Level = Annotated[float, Range(-math.inf, 0)]
"""Levels in dB of full scale."""


# Normal float32 numbers. Smaller ones may be flushed to zero, and their inverse overflows.
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


class Ranged:
    """Base class of dataclasses whose fields are checked against their declared ranges when an instance is built.

    Put checks that involve several fields into `__post_init__` of the subclass, after `super().__post_init__()`.
    """

    def __post_init__(self) -> None:
        """Check every field against its declared type.

        Raises:
            PartitaError: a number lies outside its range, or a choice is not one of those listed.
        """
        for name, kind in _kinds(type(self)):
            _check(kind, getattr(self, name), name)


@cache
def _kinds(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Names and types of the fields that declare a range or a choice."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(cls) if _limited(hints[field.name]))


def _limited(kind: Any) -> bool:
    return get_origin(kind) in (Annotated, Literal) or any(map(_limited, get_args(kind)))


def _check(kind: Any, value: Any, name: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for mark in kind.__metadata__:
            if isinstance(mark, Range):
                _check_number(arguments[0], mark, value, name)
    elif origin is Literal:
        if value not in arguments:
            raise PartitaError(f"{name} is {short_repr(value)}; it must be one of {', '.join(map(repr, arguments))}")
    elif origin in (Union, UnionType):
        if value is not None or NoneType not in arguments:
            _check_options([option for option in arguments if option is not NoneType], value, name)
    elif origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise PartitaError(f"{name} is {short_repr(value)}; a list is expected")
        inner = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
        if len(inner) != len(value):
            raise PartitaError(f"{name} has {len(value)} values; {len(inner)} are expected")
        for index, (one, item) in enumerate(zip(inner, value)):
            _check(one, item, f"{name}[{index}]")
    elif origin is dict:
        for key, item in value.items():
            _check(arguments[1], item, f"{name}.{key}")


def _check_options(options: list[Any], value: Any, name: str) -> None:
    errors = []
    for option in options:
        try:
            return _check(option, value, name)
        except PartitaError as error:
            errors.append(error)
    raise errors[0]


def _check_number(kind: type, span: Range, value: Any, name: str) -> None:
    integer = isinstance(value, int) and not isinstance(value, bool)
    if not (integer or (kind is float and isinstance(value, float))):
        raise PartitaError(
            f"{name} is {short_repr(value)}; {'a number' if kind is float else 'an integer'} is expected"
        )
    if value not in span:
        raise PartitaError(f"{name} is {shorten(str(value), 40)}; it must be {span}")
    if kind is float and value and not _SMALLEST <= abs(value) <= _LARGEST:
        ends = f"{_SMALLEST:.2g} to {_LARGEST:.2g}"
        raise PartitaError(f"{name} is {value}; float32, the precision of models, holds magnitudes from {ends}")
