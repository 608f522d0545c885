"""Registry of components: each is registered by name, with the Config that builds it.

A package announces the module that registers its components by an entry point of the group `partita.components`.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import MISSING, field, is_dataclass
from fnmatch import fnmatch
from functools import cache, wraps
from importlib.metadata import entry_points
from typing import Any, ClassVar, Self

from .errors import PartitaError, short_repr, suggest
from .ranges import Ranged

GROUP = "partita.components"

_registry: dict[str, type["Config"]] = {}


class Config(Ranged, ABC):
    """Configuration of a component: a frozen dataclass whose fields have defaults.

    Numbers declare their range in their type (`layers: Layers = 4`, see `partita_core.ranges`), which is checked when
    an instance is built. Widths that other parts determine are not fields but arguments of `build`. `register` wraps
    `build` so that the component it returns has its Config as the attribute `config`.
    """

    tag: ClassVar[str]

    needs_codec: ClassVar[bool] = False
    """True if `build` takes the trained `codec` that the component is built on."""

    @abstractmethod
    def build(self, *args: Any, **derived: Any) -> Any:
        """Build the component; `derived` are values that other parts determine, such as an encoder's `out_dim`."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """Return a tiny instance, for conformance suites and listing."""


def register_config(tag: str, cls: type[Config]) -> None:
    """Register a frozen Config class as `role/name`; see `register`.

    Components that it builds get it as the attribute `config`, which saving writes to `config.json`.
    """
    if not (is_dataclass(cls) and cls.__dataclass_params__.frozen):  # pyright: ignore
        raise TypeError(f"{cls.__name__} must be a frozen dataclass")
    if tag in _registry and _registry[tag].__qualname__ != cls.__qualname__:
        raise TypeError(f"{tag} is already registered by {_registry[tag].__module__}")
    plain_build: Any = cls.build

    @wraps(plain_build)
    def build(self: Config, **derived: Any) -> Any:
        module = plain_build(self, **derived)
        if module is not self:  # a Config that is itself the component, such as a sampler's
            module.config = self
        return module

    cls.build = build
    cls.tag = tag
    _registry[tag] = cls


@cache
def load_entry_points() -> None:
    """Import all installed packages that announce components; a package that fails is reported by a warning."""
    for entry_point in entry_points(group=GROUP):
        try:
            entry_point.load()
        except Exception as error:  # a broken package must not break the others
            warnings.warn(f"cannot import the components of {entry_point.value}: {error}", RuntimeWarning, stacklevel=2)


def components(pattern: str = "*") -> dict[str, type[Config]]:
    """List the registered Configs whose tag matches the wildcard `pattern`, sorted by tag."""
    load_entry_points()
    return {tag: _registry[tag] for tag in sorted(_registry) if fnmatch(tag, pattern)}


def lookup(name: str, roles: tuple[str, ...] = ()) -> type[Config]:
    """Find the Config registered as `name`.

    Args:
        name: full tag ("bottleneck/vae"), or only its last part ("vae").
        roles: roles to search, the preferred one first; empty for any.

    Raises:
        PartitaError: no component of these roles has that name, or several do; the nearest names are given.
    """
    known = components()
    candidates = [tag for tag in known if not roles or tag.split("/")[0] in roles]
    matches = [tag for tag in candidates if name in (tag, tag.split("/")[-1])]
    matches.sort(key=lambda tag: roles.index(tag.split("/")[0]) if roles else 0)
    if matches and (roles or len(matches) == 1):
        return known[matches[0]]
    if matches:
        raise PartitaError(f"{short_repr(name)} is ambiguous; use one of {', '.join(matches)}")
    short = candidates if "/" in name else [tag.split("/")[-1] for tag in candidates]
    what = " or ".join(roles) or "component"
    # Configs of models and runs have full tags, which are right where they were written.
    remedy = "; or install the package, or run the file, that registers it" if "/" in name else ""
    raise PartitaError(f"unknown {what} {short_repr(name)}; {suggest(name, short)}{remedy}")


def component_field(*roles: str, default: Any = MISSING) -> Any:
    """Declare a dataclass field that holds the Config of a component.

    Args:
        *roles: roles to accept, the preferred one first.
        default: default Config, or None; the field is required if this is not given.
    """
    return field(default=default, metadata={"roles": roles})
