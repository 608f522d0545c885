"""Config classes derived from the constructors of components, so that settings and defaults are written once.

The keyword-only parameters of a component's constructor are its settings; the positional ones are derived, that is,
given by the parts around it (an encoder's `out_dim` and `audio_spec`, a bottleneck's `dim`, a discriminator's
`audio_channels`). A setting whose default is a Config holds a component of that role, such as a decoder's sampler; the
constructor gets it built.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import field, fields, make_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints, overload

from torch import nn

from .decoder_roles import Decoder
from .discriminators import Discriminator
from .metric import Metric
from .registry import Config, component_field, register_config
from .representation_role import RepresentationEncoder
from .roles import Bottleneck, Encoder, Loss
from .specs import AudioSpec, LatentSpec

P = ParamSpec("P")
C = TypeVar("C", bound=type[Any])


class ConfigClass(Protocol[P]):
    """Type of a derived Config class: called with the settings of its component, it returns a frozen Config."""

    tag: str

    def __call__(self, *args: P.args, **settings: P.kwargs) -> Config:
        """Build a Config; missing settings have the defaults of the constructor."""
        ...

    def example(self) -> Config:
        """Return a tiny instance, for conformance suites and listing."""
        ...


def register(tag: str, *, example: Mapping[str, Any] | None = None) -> Callable[[C], C]:
    """Register the decorated class as the component `role/name`.

    A module class is registered by its constructor: `config_of(cls)` is its Config class, which holds its settings. A
    module that was built by hand carries them as the attribute `config`, like one that was built from a Config, so that
    whatever is assembled from modules can be saved. A component that takes components without a default as settings,
    or consists of nothing but settings, is registered by a Config class of its own.

    Args:
        tag: role and name, such as "bottleneck/vae".
        example: settings of a tiny instance, for conformance suites and listing; defaults for the rest.
    """

    def decorate(cls: C) -> C:
        if issubclass(cls, Config):
            register_config(tag, cls)
            return cls
        config = _derive(cls, dict(example or {}))
        register_config(tag, config)
        _record_settings(cls, config)
        return cls

    return decorate


@overload
def config_of(cls: Callable[Concatenate[LatentSpec, AudioSpec, P], Decoder]) -> ConfigClass[P]: ...
@overload
def config_of(cls: Callable[Concatenate[int, AudioSpec, P], Encoder]) -> ConfigClass[P]: ...
@overload
def config_of(cls: Callable[Concatenate[int, P], Bottleneck | Discriminator | Metric]) -> ConfigClass[P]: ...
@overload
def config_of(cls: Callable[Concatenate[Mapping[str, float], P], nn.Module]) -> ConfigClass[P]: ...  # a balancer
@overload
def config_of(cls: Callable[Concatenate[int, int, P], Loss]) -> ConfigClass[P]: ...
@overload
def config_of(cls: Callable[Concatenate[int, P], Loss]) -> ConfigClass[P]: ...
@overload
def config_of(cls: Callable[P, Loss | Metric]) -> ConfigClass[P]: ...
@overload
def config_of(cls: Callable[Concatenate[LatentSpec, P], RepresentationEncoder]) -> ConfigClass[P]: ...
@overload  # an adapter between two widths
def config_of(cls: Callable[Concatenate[int, int, P], nn.Module]) -> ConfigClass[P]: ...
@overload  # a supervision of a representation encoder
def config_of(cls: Callable[Concatenate[LatentSpec, RepresentationEncoder, P], nn.Module]) -> ConfigClass[P]: ...
@overload  # a supervision through an adapter and a language model
def config_of(cls: Callable[Concatenate[nn.Module | None, Any, P], nn.Module]) -> ConfigClass[P]: ...
def config_of(cls: Any) -> Any:
    """Return the Config class of a component, typed by the keyword-only parameters of its constructor."""
    return cls.Config


def _derive(cls: Any, example: dict[str, Any]) -> type[Config]:
    hints = get_type_hints(cls.__init__, include_extras=True)
    settings: list[tuple[str, Any, Any]] = []
    derived: list[str] = []
    for name, parameter in list(signature(cls.__init__).parameters.items())[1:]:
        if parameter.kind is Parameter.KEYWORD_ONLY:
            if parameter.default is Parameter.empty:
                raise TypeError(f"{cls.__name__}: the setting {name!r} has no default")
            kind = Config if isinstance(parameter.default, Config) else hints[name]
            settings.append((name, kind, _field(parameter.default)))
        else:
            derived.append(name)

    def build(self: Config, **around: Any) -> Any:
        if isinstance(spec := around.get("audio_spec"), AudioSpec):
            of_audio = {"sample_rate": spec.sample_rate, "channels": spec.channels, "audio_channels": spec.channels}
            around = of_audio | around
        given = {name: around[name] for name in derived if name in around}
        values = ((name, getattr(self, name)) for name, _, _ in settings)
        return cls(**given, **{name: value.build() if isinstance(value, Config) else value for name, value in values})

    body = {
        "build": build,
        "component": cls,
        "example": classmethod(lambda own: own(**example)),
        "__reduce__": lambda self: (_restore, (cls, {name: getattr(self, name) for name, _, _ in settings})),
        "__doc__": cls.__doc__,
    }
    made = make_dataclass(f"{cls.__name__}Config", settings, bases=(Config,), namespace=body, frozen=True)
    made.__module__ = cls.__module__
    return made


def _field(default: Any) -> Any:
    if isinstance(default, Config):
        return component_field(default.tag.partition("/")[0], default=default)
    mutable = isinstance(default, (dict, list))
    return field(default_factory=lambda: copy(default)) if mutable else field(default=default)


def _record_settings(cls: Any, config: type[Config]) -> None:
    """Make the constructor check its settings and store them as the attribute `config`."""
    plain, names = cls.__init__, tuple(one.name for one in fields(config))  # pyright: ignore[reportArgumentType]

    @wraps(plain)
    def __init__(self: Any, *args: Any, **arguments: Any) -> None:
        settings = config(**{name: arguments[name] for name in names if name in arguments})
        plain(self, *args, **arguments)
        if type(self) is cls:
            self.config = settings

    cls.__init__, cls.Config = __init__, config


def _restore(cls: Any, settings: dict[str, Any]) -> Config:
    return cls.Config(**settings)
