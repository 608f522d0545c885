"""Quantizer between two small transformers, for the latents of a trained autoencoder."""

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

from ._codebook import broadcast_from_main
from ._common import receive, relative_error
from .residual import ResidualVQConfig

_KERNEL = 3


@register("quantizer/rebottleneck")
@dataclass(frozen=True)
class ReBottleneckConfig(Config):
    """Quantizer between an inner encoder and an inner decoder (GenAE's discretization).

    Attributes:
        quantizer: inner quantizer of latents of `width`. The default looks up codes by distance; by direction only
            (`normalize`) the error was 13 % larger with 8 levels, because magnitudes are lost.
        width: width of the transformers.
        layers: blocks per transformer.
        heads: attention heads.
        head_dim: width of a head.
        window: tokens of attention to either side.
        mlp_ratio: width of the MLP, relative to `width`.
    """

    quantizer: Config = component_field("quantizer", default=ResidualVQConfig())
    width: Width = 512
    layers: Layers = 2
    heads: Heads = 8
    head_dim: Width = 64
    window: Frames = 16
    mlp_ratio: Layers = 4

    def build(self, *, dim: int) -> "ReBottleneck":
        """Build the re-bottleneck for latents of width `dim`."""
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
            conditions=0,  # one set of codebooks for all channel layouts
        )

    @classmethod
    def example(cls) -> Self:
        """Return a tiny instance."""
        quantizer = ResidualVQConfig.example()
        return cls(quantizer, width=8, layers=1, heads=2, head_dim=4, window=3, mlp_ratio=2)


class ReBottleneck(Quantizer):
    """Bottleneck inside that of a frozen autoencoder: `decoder(quantizer(encoder(latents)))`.

    Latents that were trained to be continuous are hard to quantize; two small networks around the quantizer learn a
    space that is easier. The idea is that of Re-Bottleneck (Bralios et al., arXiv 2507.07867); that GenAE quantizes its
    latents in this way is our inference. Latents of any codec are accepted: they are normalized to zero mean and unit
    variance, which `initialize` measures. Everything runs in float32 also under autocast, which costs little at the
    rate of latents.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, *, encoder: Role, quantizer: Quantizer, decoder: Role) -> None:
        """Assemble a re-bottleneck from its parts.

        Args:
            dim: width of the latents.
            encoder: module from `(batch, dim, tokens)` to `(batch, quantizer.dim, tokens)`.
            quantizer: quantizer of the encoder's output.
            decoder: module from `(batch, quantizer.dim, tokens)` to `(batch, dim, tokens)`.
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
        """Encode, quantize and decode.

        Args:
            hidden: latents `(batch, dim, tokens)`.
            stochastic: passed on to the quantizer; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; codes, losses and metrics of the quantizer, where `relative_error` is that of
            the values, and `inner_relative_error` that of the quantizer.
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
        """Codes `(batch, num_quantizers, tokens)`, as in `forward` in eval; levels from `num_quantizers` on are -1."""
        hidden = receive(self, hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.quantizer.encode_codes(self._encode(hidden), num_quantizers)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes; a level that is -1 contributes zero to the inner decoder's input."""
        codes = as_integers(codes, "codes")
        with torch.autocast(codes.device.type, enabled=False):
            return self._decode(self.quantizer.codes_to_values(codes))

    @torch.no_grad()
    def initialize(self, values: Tensor) -> None:
        """Measure mean and scale of latents, and initialize the quantizer on the inner encoder's output.

        Args:
            values: latents `(batch, dim, tokens)`, with at least the tokens that the quantizer's `initialize` requires.
        """
        values = receive(self, values)
        self.mean.copy_(values.mean((0, 2))[:, None])
        self.std.copy_(values.std((0, 2))[:, None].clamp_min(torch.finfo(self.std.dtype).eps))
        broadcast_from_main(self.mean, self.std)
        start = getattr(self.quantizer, "initialize", None)
        if start is not None:
            with torch.autocast(values.device.type, enabled=False):
                start(self._encode(values))

    def _encode(self, hidden: Tensor) -> Tensor:
        _check_tokens(hidden)
        return self.encoder((hidden.to(self.std.dtype) - self.mean) / self.std)

    def _decode(self, values: Tensor) -> Tensor:
        _check_tokens(values)
        # Contiguous, because the rounding of convolutions depends on the order in memory.
        values = self.decoder(values.to(self.std.dtype).contiguous())
        return upcast(values * self.std + self.mean)


def _check_tokens(x: Tensor) -> None:
    if not x.shape[-1]:
        raise PartitaError(f"the shape is {tuple(x.shape)}, without tokens; a re-bottleneck takes at least one")


class _Half(Role):
    """Convolution, windowed attention and convolution, `(batch, in, tokens)` to `(batch, out, tokens)`."""

    def __init__(self, first: nn.Module, transformer: WindowedTransformer, last: nn.Module) -> None:
        super().__init__()
        self.first, self.transformer, self.last = first, transformer, last
        begin, end = conv_reach(*transformer.reach(0, 0), _KERNEL)  # the other convolution has kernel 1
        self.context = (-begin, end)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.transformer(self.first(x)))
