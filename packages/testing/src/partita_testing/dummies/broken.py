"""Parts with one defect each, to test that a check catches it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Self

from partita_core.discriminators import DiscriminatorOutput
from partita_core.registry import Config
from partita_core.role_outputs import BottleneckOutput

Break = Callable[[Config], "Broken"]


@dataclass(frozen=True)
class Broken(Config):
    """Config of a part with replaced methods, or changed after it is built.

    Attributes:
        base: Config of the part.
        methods: pairs of the name of a method and a function from the class of the part to its replacement.
        spoil: function that changes the part after it is built; or None.
    """

    base: Config
    methods: tuple[tuple[str, Callable[[type], Any]], ...] = ()
    spoil: Callable[[Any], None] | None = None

    def build(self, **derived: Any) -> Any:
        """Build the part and break it."""
        part = self.base.build(**derived)
        parent = type(part)
        part.__class__ = type(f"Broken{parent.__name__}", (parent,), {name: fn(parent) for name, fn in self.methods})
        if self.spoil:
            self.spoil(part)
        return part

    @classmethod
    def example(cls) -> Self:
        """Not available for broken parts."""
        raise NotImplementedError


def method(name: str, body: Callable[..., Any], spoil: Callable[[Any], None] | None = None) -> Break:
    """Replace one method by `body(parent, self, *args, **kwargs)`."""

    def make(parent: type) -> Any:
        def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
            return body(parent, self, *args, **kwargs)

        # The exporter reads the signature.
        return wraps(getattr(parent, name))(replaced) if hasattr(parent, name) else replaced

    return lambda base: Broken(base, ((name, make),), spoil)


def spoiled(spoil: Callable[[Any], None]) -> Break:
    """Change the part by `spoil(part)` after it is built."""
    return lambda base: Broken(base, (), spoil)


def forward(change: Callable[..., Any], spoil: Callable[[Any], None] | None = None) -> Break:
    """Change the result of `forward`, a bottleneck's values or a discriminator's logits: `change(self, x, values)`."""

    def body(parent: Any, self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        out = parent.forward(self, x, *args, **kwargs)
        if isinstance(out, BottleneckOutput):
            return out._replace(values=change(self, x, out.values))
        if isinstance(out, list) and all(isinstance(one, DiscriminatorOutput) for one in out):
            return [one._replace(logits=change(self, x, one.logits)) for one in out]
        return change(self, x, out)

    return method("forward", body, spoil)


def given(change: Callable[..., Any]) -> Break:
    """Change the input of `forward`: `change(self, x)`."""
    return method("forward", lambda parent, self, x, *rest, **kw: parent.forward(self, change(self, x), *rest, **kw))
