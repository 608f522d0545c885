"""A quantizer between two small transformers, for the latents of an autoencoder that is trained already."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_blocks import WindowedTransformer, conv_reach
from partita_core import (
    BottleneckOutput,
    Config,
    PartitaError,
    Quantizer,
    Role,
    as_integers,
    component_field,
    register,
    sum_contexts,
    upcast,
)
from partita_core.ranges import Frames, Heads, Layers, Width
from torch import Tensor, nn

from ._codebook import equal_everywhere
from ._common import receive, relative_error
from .residual import ResidualVQConfig

_KERNEL = 3


@register("quantizer/rebottleneck")
@dataclass(frozen=True)
class ReBottleneckConfig(Config):
    """A quantizer between an inner encoder and an inner decoder (GenAE's discretisation).

    Attributes:
        quantizer: what makes the codes, in latents of `width`. The default looks up by distance; by direction alone
            (`normalize`) the error was 13 % larger with 8 levels, for lack of magnitude.
        width: of the transformers.
        layers: blocks of each.
        heads: attention heads.
        head_dim: width of a head.
        window: tokens that attention sees to either side.
        mlp_ratio: width of the MLP over `width`.
    """

    quantizer: Config = component_field("quantizer", default=ResidualVQConfig())
    width: Width = 512
    layers: Layers = 2
    heads: Heads = 8
    head_dim: Width = 64
    window: Frames = 16
    mlp_ratio: Layers = 4

    def build(self, *, dim: int) -> "ReBottleneck":
        """Builds it for latents of width `dim`."""
        width = self.width
        return ReBottleneck(
            dim,
            encoder=_Half(
                nn.Conv1d(dim, width, _KERNEL, padding=_KERNEL // 2), self._transformer(), nn.Conv1d(width, width, 1)
            ),
            quantizer=self.quantizer.build(dim=width),
            decoder=_Half(nn.Identity(), self._transformer(), nn.Conv1d(width, dim, _KERNEL, padding=_KERNEL // 2)),
        )

    def _transformer(self) -> WindowedTransformer:
        return WindowedTransformer(
            self.width,
            layers=self.layers,
            heads=self.heads,
            head_dim=self.head_dim,
            window=self.window,
            mlp_ratio=self.mlp_ratio,
            conditions=0,  # one set of codebooks serves all formats
            condition=None,
        )

    @classmethod
    def example(cls) -> Self:
        """A tiny instance."""
        quantizer = ResidualVQConfig.example()
        return cls(quantizer, width=8, layers=1, heads=2, head_dim=4, window=3, mlp_ratio=2)


class ReBottleneck(Quantizer):
    """A bottleneck inside a frozen autoencoder's: `decoder(quantizer(encoder(latents)))`.

    Latents that were trained to be continuous are ill placed for codes; two small networks around the quantizer learn a
    space that suits it. The idea is that of Re-Bottleneck (Bralios et al., arXiv 2507.07867); that GenAE quantizes its
    latents in this way is our inference. Latents are taken to zero mean and unit variance first, so that those of any
    codec will do: `initialize` measures them. Codes are decided in float32 whatever the autocast, which costs little at
    the rate of latents.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, *, encoder: Role, quantizer: Quantizer, decoder: Role) -> None:
        """Assembles it.

        Args:
            dim: width of the latents.
            encoder: `(batch, dim, tokens)` to `(batch, quantizer.dim, tokens)`.
            quantizer: what makes the codes.
            decoder: the way back.
        """
        super().__init__()
        self.dim = self.in_dim = dim
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.codebook_sizes, self.loss_weights = quantizer.codebook_sizes, quantizer.loss_weights
        self.context = sum_contexts(encoder.context, quantizer.context, decoder.context)
        self.register_buffer("mean", torch.zeros(dim, 1))
        self.register_buffer("std", torch.ones(dim, 1))

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Quantize; see the quantizer for the effect of `stochastic`.

        Args:
            hidden: `(batch, dim, tokens)`.
            stochastic: None means `self.training`.
            lengths: `(batch,)` tokens of each item that count; None for all.

        Returns:
            values `(batch, dim, tokens)`; codes, losses and metrics of the quantizer, with `relative_error` that of
            the values and `inner_relative_error` the quantizer's own.
        """
        hidden = receive(self, hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            inner = self.quantizer(self._encode(hidden), stochastic=self.is_stochastic(stochastic), lengths=lengths)
            values = self._decode(inner.values)
        metrics = dict(inner.metrics)
        if "relative_error" in metrics:
            metrics["inner_relative_error"] = metrics["relative_error"]
        metrics["relative_error"] = relative_error(values, hidden, lengths)
        return BottleneckOutput(values, inner.codes, inner.losses, metrics)

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """The codes `(batch, num_quantizers, tokens)` of `forward` in eval; levels beyond `num_quantizers` are -1."""
        hidden = receive(self, hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.quantizer.encode_codes(self._encode(hidden), num_quantizers)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """The values `(batch, dim, tokens)` of codes; to a level that is -1 the inner decoder sees a zero."""
        codes = as_integers(codes, "codes")
        with torch.autocast(codes.device.type, enabled=False):
            return self._decode(self.quantizer.codes_to_values(codes))

    @torch.no_grad()
    def initialize(self, values: Tensor) -> None:
        """Measures the latents' scale on given ones, and starts the quantizer on what the inner encoder makes of them.

        Args:
            values: `(batch, dim, tokens)`, at least as many tokens in all as the quantizer's `initialize` asks for.
        """
        values = receive(self, values)
        self.mean.copy_(values.mean((0, 2))[:, None])
        self.std.copy_(values.std((0, 2))[:, None].clamp_min(torch.finfo(self.std.dtype).eps))
        equal_everywhere(self.mean, self.std)
        start = getattr(self.quantizer, "initialize", None)
        if start is not None:
            with torch.autocast(values.device.type, enabled=False):
                start(self._encode(values))

    def _encode(self, hidden: Tensor) -> Tensor:
        _check_tokens(hidden)
        return self.encoder((hidden.to(self.std.dtype) - self.mean) / self.std)

    def _decode(self, values: Tensor) -> Tensor:
        _check_tokens(values)
        # Contiguous, because convolutions round differently for another order in memory.
        values = self.decoder(values.to(self.std.dtype).contiguous())
        return upcast(values * self.std + self.mean)


def _check_tokens(x: Tensor) -> None:
    if not x.shape[-1]:
        raise PartitaError(f"there are no tokens in {tuple(x.shape)}; a re-bottleneck takes at least one")


class _Half(Role):
    """A convolution, windowed attention, a convolution: `(batch, in, tokens)` to `(batch, out, tokens)`."""

    def __init__(self, first: nn.Module, transformer: WindowedTransformer, last: nn.Module) -> None:
        super().__init__()
        self.first, self.transformer, self.last = first, transformer, last
        begin, end = conv_reach(*transformer.reach(0, 0), _KERNEL)  # one of the two convolutions is that wide
        self.context = (-begin, end)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.transformer(self.first(x)))
