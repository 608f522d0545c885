"""Every number of every configuration declares a range, and the range holds when an instance is built."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from partita.data import DataConfig
from partita.data.augment import Augmentation
from partita.generation.heads import Sampling
from partita.probing.head import ProbeSettings
from partita.training.alarms import AlarmConfig
from partita.training.run import RunConfig, TrainerConfig
from partita_core import AudioSpec, LatentSpec, NoiseSchedule, PartitaError, components
from partita_core.ranges import Range, Ranged

OURS = {tag: cls for tag, cls in components().items() if cls.__module__.startswith("partita")}

# Settings and records that are not components.
RECORDS = [AudioSpec, LatentSpec, NoiseSchedule, Augmentation, DataConfig, Sampling, ProbeSettings]
RECORDS += [TrainerConfig, AlarmConfig]


def _numbers(kind: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[type, Range | None]]:
    """Number types within the type of a field, each with its range."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (int, float):
        yield kind, None
    elif origin is Annotated:
        marks = [mark for mark in kind.__metadata__ if isinstance(mark, Range)]
        yield arguments[0], marks[0] if marks else None
    elif origin is not Literal:
        for inner in arguments:
            yield from _numbers(inner)


def _fields(cls: Any) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(cls, include_extras=True)
    yield from ((field.name, hints[field.name]) for field in fields(cls))


@pytest.mark.parametrize("cls", [*OURS.values(), *RECORDS, RunConfig], ids=lambda cls: cls.__name__)
def test_every_number_declares_a_range(cls: Any) -> None:
    undeclared = [name for name, kind in _fields(cls) for _, span in _numbers(kind) if span is None]
    assert not undeclared, f"{cls.__name__}: {undeclared} need a range, as `Annotated[int, Range(...)]`"


def _outside(kind: Any) -> Iterator[Any]:
    """Values of a type, each with one number outside its range."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        plain, span = arguments[0], next(mark for mark in kind.__metadata__ if isinstance(mark, Range))
        if math.isfinite(span.low):
            yield plain(span.low) if span.open_low else span.low - 1
        if math.isfinite(span.high):
            yield plain(span.high) if span.open_high else span.high + max(1, abs(span.high))
        yield from (math.nan, math.inf, "4", True)
        if plain is int:
            yield 1.5
    elif origin in (Union, UnionType):
        yield from _outside(next(option for option in arguments if option is not NoneType))
    elif origin is tuple:
        length = 1 if arguments[-1] is Ellipsis else len(arguments)
        yield from ((value,) * length for value in _outside(arguments[0]))
    elif origin is dict:
        yield from ({"stft": value} for value in _outside(arguments[1]))


EXAMPLES = [cls.example() for cls in OURS.values()]
EXAMPLES += [AudioSpec(8000, 1, (0,)), LatentSpec(2, 8000, 100), Sampling(1, 1, None, None)]  # pyright: ignore
EXAMPLES += [record() for record in (NoiseSchedule, Augmentation, DataConfig, ProbeSettings)]
EXAMPLES += [TrainerConfig(), AlarmConfig()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_number_outside_its_range_raises_with_its_name(example: Any) -> None:
    assert is_dataclass(example) and isinstance(example, Ranged)
    for name, kind in _fields(type(example)):
        if list(_numbers(kind)):
            for value in _outside(kind):
                with pytest.raises(PartitaError, match=rf"^{name}\b.* is .*; "):
                    replace(example, **{name: value})
