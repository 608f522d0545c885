"""Modules whose calls are typed: `module(x)` has the signature of `module.forward`, where torch has `Any`."""

from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from torch import nn

P = ParamSpec("P")
T = TypeVar("T", covariant=True)


class _HasForward(Protocol[P, T]):
    def forward(self, *args: P.args, **kwargs: P.kwargs) -> T: ...


if TYPE_CHECKING:

    class TypedModule(nn.Module):
        """`torch.nn.Module`, called with the arguments of `forward` and returning its result, for type checkers.

        At run time it is `torch.nn.Module` itself.

        Example:
            >>> class Gain(TypedModule):
            ...     def forward(self, x: Tensor, *, decibels: float) -> Tensor:
            ...         return x * 10 ** (decibels / 20)
            >>> Gain()(torch.ones(1), decibels="3")  # an error for type checkers, and the result is a Tensor
        """

        def __call__(self: _HasForward[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
            """Call the module, with its hooks; see `forward`."""
            ...

else:
    TypedModule = nn.Module
