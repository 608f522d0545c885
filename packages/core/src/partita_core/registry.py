"""Components by name: each is registered with the Config that builds it.

Packages, ours and anybody's, name the module that registers their components as an entry point of the group
`partita.components`; nothing here is edited to add one.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import MISSING, field, is_dataclass
from fnmatch import fnmatch
from functools import cache, wraps
from importlib.metadata import entry_points
from typing import Any, ClassVar, Self

from .errors import PartitaError, nearest, shown
from .ranges import Ranged

GROUP = "partita.components"

_registry: dict[str, type["Config"]] = {}


class Config(Ranged, ABC):
    """The configuration of a component: a frozen dataclass, each field with its default.

    Each number declares its range in its type (`layers: Layers = 4`, see `partita_core.ranges`), which is checked when
    an instance is built. Widths that follow from other parts are not in it; they come to `build`.
    """

    tag: ClassVar[str]

    needs_codec: ClassVar[bool] = False
    """True if `build` takes the trained `codec` that the component is built on."""

    @abstractmethod
    def build(self, *args: Any, **derived: Any) -> Any:
        """Builds the component; `derived` is what other parts fix (an encoder's `out_dim` and `audio_spec`, say)."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A tiny instance, for conformance and listing."""


def register_config(tag: str, cls: type[Config]) -> None:
    """Register a frozen Config class as `role/name`; see `register`.

    What it builds carries it as the attribute `config`, which is what saving writes.
    """
    if not (is_dataclass(cls) and cls.__dataclass_params__.frozen):  # pyright: ignore
        raise TypeError(f"{cls.__name__} must be a frozen dataclass")
    if tag in _registry and _registry[tag].__qualname__ != cls.__qualname__:
        raise TypeError(f"{tag} is already registered by {_registry[tag].__module__}")
    plain_build: Any = cls.build

    @wraps(plain_build)
    def build(self: Config, **derived: Any) -> Any:
        module = plain_build(self, **derived)
        if module is not self:  # settings that are used as they stand, such as a sampler's, build themselves
            module.config = self
        return module

    cls.build = build
    cls.tag = tag
    _registry[tag] = cls


@cache
def load_entry_points() -> None:
    """Imports every installed package that announces components; one that fails is named in a warning."""
    for entry_point in entry_points(group=GROUP):
        try:
            entry_point.load()
        except Exception as error:  # a broken third-party package must not take the others along
            warnings.warn(f"components of {entry_point.value} are left out: {error}", RuntimeWarning, stacklevel=2)


def components(pattern: str = "*") -> dict[str, type[Config]]:
    """The registered Configs whose tag matches the wildcard `pattern`, sorted by tag."""
    load_entry_points()
    return {tag: _registry[tag] for tag in sorted(_registry) if fnmatch(tag, pattern)}


def lookup(name: str, roles: tuple[str, ...] = ()) -> type[Config]:
    """The Config registered as `name`, a whole tag or, within `roles`, its last part.

    Args:
        name: "bottleneck/vae", or "vae".
        roles: the roles that are at home where it is asked for, the preferred one first; empty for any.

    Raises:
        PartitaError: nothing is registered so, or not in these roles; the nearest names are given.
    """
    known = components()
    candidates = [tag for tag in known if not roles or tag.split("/")[0] in roles]
    matches = [tag for tag in candidates if name in (tag, tag.split("/")[-1])]
    matches.sort(key=lambda tag: roles.index(tag.split("/")[0]) if roles else 0)
    if matches and (roles or len(matches) == 1):
        return known[matches[0]]
    if matches:
        raise PartitaError(f"{shown(name)} is ambiguous: {', '.join(matches)}")
    short = candidates if "/" in name else [tag.split("/")[-1] for tag in candidates]
    what = " or ".join(roles) or "component"
    raise PartitaError(f"unknown {what} {shown(name)}; {nearest(name, short)}")


def component(*roles: str, default: Any = MISSING) -> Any:
    """A dataclass field that holds the Config of a component of one of `roles`.

    Args:
        *roles: the roles accepted, the preferred one first.
        default: the default Config, or None; without one the field must be given.
    """
    return field(default=default, metadata={"roles": roles})
