"""The SpectroStream encoder: 2-D convolutions on the short-time spectrum, causal, without look-ahead."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from partita_blocks import STFT, CausalConv2d, CausalLayer, DownUnit2d, coarsest_bins, init_truncated_normal
from partita_core import (
    AudioSpec,
    Config,
    Encoder,
    PartitaError,
    Precision,
    StatefulStream,
    Stream,
    register,
)
from partita_core.ranges import Extras, NonNegative, Samples, Width
from torch import Tensor, nn

Strides = tuple[tuple[Samples, Samples], ...]


@register("encoder/spectrostream")
@dataclass(frozen=True)
class SpectroStreamEncoderConfig(Config):
    """Causal 2-D convolutions on the short-time spectrum, left and right apart until late (SpectroStream, F3).

    From arXiv 2508.05207 and the released model: 9.3 M parameters for 48 kHz stereo and 256 channels. A frame is
    `stft_hop` samples times the strides in time; the default is 48 kHz to 25 Hz. For 24 kHz take `stft_hop=240` with
    one stride of 2 less in frequency, for 16 kHz `stft_hop=160`. Two channels pass the same layers until they are
    joined; the layout is not told: give it audio of one, or mono and stereo.

    Attributes:
        stft_hop: samples from frame to frame of the spectrum, and its bins; the window is two of them.
        width: channels of the stem.
        multiples: channels of the stem and of each unit, in `width`.
        strides: of the units, (time, frequency), from the spectrum on.
        fusion: units before left and right are joined.
        weight_norm: whether convolutions are weight-normalised.
        init_std: of the truncated normal that weights are drawn from; None for the root of 1 / inputs of each layer.
            An open reimplementation has 0.02, which suits its widths; narrow networks begin with silence then, and
            losses on spectra alone take long to leave it.
    """

    stft_hop: Samples = 480
    width: Width = 32
    multiples: tuple[Width, ...] = (1, 2, 2, 4, 4, 4, 8, 8)
    strides: Strides = ((1, 2), (1, 2), (1, 3), (1, 2), (1, 2), (2, 2), (2, 1))
    fusion: Extras = 6
    weight_norm: bool = False
    init_std: NonNegative | None = None

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "SpectroStreamEncoder":
        """Builds the encoder of audio of `audio_spec` to frames of width `out_dim`."""
        if len(self.multiples) != len(self.strides) + 1:
            raise PartitaError(
                f"{len(self.strides)} strides need {len(self.strides) + 1} multiples, of the stem and of each unit, "
                f"not {len(self.multiples)}"
            )
        if not 0 <= self.fusion <= len(self.strides):
            raise PartitaError(f"fusion is {self.fusion}; the encoder has {len(self.strides)} units")
        bins = coarsest_bins(self.stft_hop, self.strides)
        widths = [self.width * multiple for multiple in self.multiples]
        joined = widths.copy()  # of what each unit takes
        joined[self.fusion] *= audio_spec.channels
        units = [
            DownUnit2d(before, after, stride=stride, weight_norm=self.weight_norm)
            for before, after, stride in zip(joined, widths[1:], self.strides)
        ]
        last, features = joined[-1], joined[-1] * bins
        encoder = SpectroStreamEncoder(
            stft_hop=self.stft_hop,
            stem=CausalConv2d(
                2, self.width * self.multiples[0], kernel=(7, 7), stride=(1, 1), weight_norm=self.weight_norm
            ),
            units=[*units, DownUnit2d(last, last, stride=(1, 1), weight_norm=self.weight_norm)],
            fusion=self.fusion,
            linear=nn.Linear(features, out_dim),
            nonlinear=nn.Sequential(nn.ELU(), nn.Linear(features, features), nn.ELU(), nn.Linear(features, out_dim)),
            out_dim=out_dim,
            audio_spec=audio_spec,
        )
        init_truncated_normal(encoder, self.init_std)
        return encoder

    @classmethod
    def example(cls) -> "SpectroStreamEncoderConfig":
        """Hop 24, a few thousand parameters."""
        return cls(stft_hop=6, width=4, multiples=(1, 2, 2, 3), strides=((1, 3), (2, 1), (2, 1)), fusion=2)


class SpectroStreamEncoder(Encoder):
    """Audio to hidden frames; see `SpectroStreamEncoderConfig`. It carries a state, and has no look-ahead."""

    def __init__(
        self,
        *,
        stft_hop: int,
        stem: CausalConv2d,
        units: list[DownUnit2d],
        fusion: int,
        linear: nn.Module,
        nonlinear: nn.Module,
        out_dim: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles stem (kernel 7x7), units, of which the last keeps the rate, and the two paths to the output."""
        super().__init__()
        self.stft = STFT(n_fft=2 * stft_hop, win_length=2 * stft_hop, hop=stft_hop, padding="none", nyquist=False)
        self.stem, self.units, self.fusion = stem, nn.ModuleList(units), fusion
        self.linear, self.nonlinear = linear, nonlinear
        self.hop = stft_hop * prod(unit.stride[0] for unit in units)
        self.out_dim, self.audio_spec = out_dim, audio_spec
        first, last = 0, 0
        for layer in reversed(self._layers):
            first, last = layer.reach(first, last)
        # A frame of the spectrum begins one `stft_hop` before its own samples.
        self.context = (-((first - 1) * stft_hop // self.hop), 0)

    @property
    def _layers(self) -> list[CausalLayer]:
        return [self.stem, *self.units]  # pyright: ignore

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` to `(batch, out_dim, frames)`; layouts `(batch,)` change nothing."""
        state = self.init_state(audio.shape[0], device=audio.device, dtype=audio.dtype)
        return self.step(audio, state, last=True)[0]

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Any:
        """Silence: the samples that the next frame of the spectrum begins with, and the state of each layer."""
        channels, bins, states = self.audio_spec.channels, self.stft.bins, []
        for index, layer in enumerate(self._layers):
            rows = batch_size if index > self.fusion else batch_size * channels
            states.append(layer.init_state(rows, bins, device=device, dtype=dtype))
            bins //= layer.stride[1]
        return torch.zeros(batch_size, channels, self.stft.hop, device=device, dtype=dtype), tuple(states)

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        """Takes whole frames of audio, returns as many hidden frames; see `Streamable`."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_dim, 0), state
        samples, states = state
        samples = torch.cat([samples.to(x), x], dim=-1)
        spectrum = torch.view_as_real(self.stft(samples)).to(x.dtype)  # (batch, channels, bins, frames, 2)
        hidden = spectrum.flatten(0, 1).permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)
        hidden, states = self._convolve(hidden, states)
        features = hidden.permute(0, 2, 3, 1).flatten(2)
        out = self.linear(features) + self.nonlinear(features)
        return out.transpose(1, 2), (samples[..., -self.stft.hop :].clone(), states)

    def stream(self, layout: Tensor, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """As `Encoder.stream`, with its state: nothing runs twice."""
        device = next(self.parameters()).device
        return StatefulStream(self, len(layout), layout=layout, device=device, dtype=dtype, width=width * self.hop)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """As `Role.optimize`; with "bf16" the stem, which sees the spectrum, stays as it is."""
        # Convolutions of few frames need not bring their weights into this order each time, then.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if precision == "bf16":
            for part in (self.units, self.linear, self.nonlinear):
                part.to(torch.bfloat16)
        if compile:
            # All layers as one: of each by itself, torch would compile only the first eight.
            compiled = torch.compile(self._convolve, dynamic=False, options={"freezing": True})
            self._convolve = compiled  # pyright: ignore[reportAttributeAccessIssue]

    def _convolve(self, hidden: Tensor, states: Any) -> tuple[Tensor, Any]:
        """All layers, of which those before `fusion` take the channels of the audio as items."""
        new = []
        for index, layer in enumerate(self._layers):
            if index == self.fusion + 1:
                hidden = torch.cat(hidden.unflatten(0, (-1, self.audio_spec.channels)).unbind(1), dim=1)
            hidden, remembered = layer(hidden, states[index])
            if index == 0:
                hidden = hidden.to(self._dtype())
            new.append(remembered)
        return hidden, tuple(new)

    def _dtype(self) -> torch.dtype:
        """Of what is behind the stem, which `optimize` may change."""
        return next(self.units.parameters()).dtype
