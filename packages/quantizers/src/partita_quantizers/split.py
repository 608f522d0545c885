"""Quantizer composed of two others, each for its own channels."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from partita_core import (
    BottleneckOutput,
    Config,
    PartitaError,
    Quantizer,
    component_field,
    register,
    resolve_num_quantizers,
    widest_context,
)
from partita_core.ranges import Width
from torch import Tensor

from ._common import receive, relative_error
from .fsq import FSQConfig
from .residual import ResidualVQConfig


@register("quantizer/split")
@dataclass(frozen=True)
class SplitConfig(Config):
    """Config of `Split`. By default the first channel has 7 bits, and the others have residual VQ.

    Attributes:
        first: quantizer of the first channels.
        rest: quantizer of the other channels; another `Split` makes three groups.
        first_dim: number of channels of `first`.
    """

    first: Config = component_field("quantizer", default=FSQConfig(levels=(128,), bound="clamp"))
    rest: Config = component_field("quantizer", default=ResidualVQConfig())
    first_dim: Width = 1

    def build(self, *, dim: int) -> "Split":
        """Build the quantizers of both groups for latents of width `dim`."""
        if dim <= self.first_dim:
            raise PartitaError(f"first_dim is {self.first_dim}, but the latents have {dim} channels; give both a share")
        return Split(self.first.build(dim=self.first_dim), self.rest.build(dim=dim - self.first_dim))

    @classmethod
    def example(cls) -> Self:
        """Return a tiny instance."""
        return cls(FSQConfig(levels=(8,), bound="clamp"), ResidualVQConfig.example())


class Split(Quantizer):
    """Quantizer of the first channels and another one of the rest, for latents whose channels differ in kind.

    An example is a fundamental frequency next to a spectral envelope. The levels of `first` come before those of
    `rest`, so that fewer levels drop those of `rest`.

    Args:
        first: quantizer of the first channels.
        rest: quantizer of the other channels.
    """

    def __init__(self, first: Quantizer, rest: Quantizer) -> None:
        super().__init__()
        self.first, self.rest = first, rest
        self.dim = self.in_dim = first.dim + rest.dim
        self.codebook_sizes = first.codebook_sizes + rest.codebook_sizes
        self.bounded = first.bounded and rest.bounded
        self.context = widest_context(first.context, rest.context)
        self.loss_weights = _named(first.loss_weights, rest.loss_weights)

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Quantize both groups of channels.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: passed on to both quantizers; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; codes, those of `first` before those of `rest`; the losses and metrics of
            both, with the prefixes `first_` and `rest_`; and the metric `relative_error` of all channels.
        """
        hidden = receive(self, hidden)
        stochastic = self.is_stochastic(stochastic)
        first, rest = (
            part(x, stochastic=stochastic, lengths=lengths) for part, x in zip(self._parts, self._groups(hidden))
        )
        values = torch.cat([first.values, rest.values], dim=1)
        metrics = _named(first.metrics, rest.metrics)
        metrics["relative_error"] = relative_error(values, hidden, lengths)
        assert first.codes is not None and rest.codes is not None
        codes = torch.cat([first.codes, rest.codes], dim=1)
        return BottleneckOutput(values, codes, _named(first.losses, rest.losses), metrics)

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes `(batch, num_quantizers, tokens)`, as in `forward` in eval; levels from `num_quantizers` on are -1."""
        count = resolve_num_quantizers(num_quantizers, self.num_quantizers, "this Split")
        first, rest = self._groups(receive(self, hidden))
        codes = self.first.encode_codes(first, min(count, self.first.num_quantizers))
        if count > self.first.num_quantizers:
            return torch.cat([codes, self.rest.encode_codes(rest, count - self.first.num_quantizers)], dim=1)
        dropped = codes.new_full((len(codes), self.rest.num_quantizers, codes.shape[2]), -1)
        return torch.cat([codes, dropped], dim=1)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes; a level that is -1 contributes zero to the values of its group."""
        first, rest = self.check_codes(codes).split((self.first.num_quantizers, self.rest.num_quantizers), dim=1)
        return torch.cat([self.first.codes_to_values(first), self.rest.codes_to_values(rest)], dim=1)

    def expand(self, values: Tensor) -> Tensor:
        """Expand the values of both groups; see `Bottleneck.expand`."""
        return torch.cat([part.expand(x) for part, x in zip(self._parts, self._groups(values))], dim=1)

    def project(self, values: Tensor) -> Tensor:
        """Project the values of both groups; see `Bottleneck.project`."""
        return torch.cat([part.project(x) for part, x in zip(self._parts, self._groups(values))], dim=1)

    def initialize(self, values: Tensor) -> None:
        """Initialize those of the quantizers that start from latents `(batch, dim, tokens)`."""
        for part, x in zip(self._parts, self._groups(receive(self, values))):
            start = getattr(part, "initialize", None)
            if start is not None:
                start(x)

    @property
    def _parts(self) -> tuple[Quantizer, Quantizer]:
        return self.first, self.rest

    def _groups(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, : self.first.dim], x[:, self.first.dim :]


def _named(first: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Join two dictionaries, with the group in the names."""
    return {f"first_{name}": x for name, x in first.items()} | {f"rest_{name}": x for name, x in rest.items()}
