"""The SpectroStream decoder: 2-D convolutions up to a complex short-time spectrum, causal, with some look-ahead."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from partita_blocks import STFT, CausalConv2d, CausalLayer, UpUnit2d, coarsest_bins, init_truncated_normal
from partita_core import (
    AudioSpec,
    Config,
    FeedForwardDecoder,
    LatentSpec,
    PartitaError,
    Precision,
    StatefulStream,
    Stream,
    register,
    upcast,
)
from partita_core.ranges import Extras, NonNegative, Samples, Width
from torch import Tensor, nn
from torch.nn import functional as F

from ._common import check_fit

Strides = tuple[tuple[Samples, Samples], ...]


@register("decoder/spectrostream")
@dataclass(frozen=True)
class SpectroStreamDecoderConfig(Config):
    """Causal 2-D transposed convolutions up to a complex spectrum, left and right apart from early on (SpectroStream).

    From arXiv 2508.05207 and the released model: 35.7 M parameters for 48 kHz stereo and 256 channels. It mirrors
    `SpectroStreamEncoderConfig`; strides are from the latents on. The layout is not told.

    Attributes:
        stft_hop: samples from frame to frame of the spectrum, and its bins; the window is two of them.
        width: channels before the last layer.
        multiples: channels before the first unit and after each, in `width`.
        strides: of the units, (time, frequency), from the latents on.
        split: units before left and right part; what they part from has as many channels for each.
        lookahead: frames of latents that are seen ahead, with all that the overlap of windows needs.
        weight_norm: whether convolutions are weight-normalised.
        init_std: see `SpectroStreamEncoderConfig`.
    """

    stft_hop: Samples = 480
    width: Width = 64
    multiples: tuple[Width, ...] = (8, 8, 4, 4, 4, 2, 2, 1)
    strides: Strides = ((2, 1), (2, 2), (1, 2), (1, 2), (1, 3), (1, 2), (1, 2))
    split: Extras = 1
    lookahead: Extras = 1
    weight_norm: bool = False
    init_std: NonNegative | None = None

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "SpectroStreamDecoder":
        """Builds the decoder for latents of `latent_spec` and audio of `audio_spec`."""
        if len(self.multiples) != len(self.strides) + 1:
            raise PartitaError(
                f"{len(self.strides)} strides need {len(self.strides) + 1} multiples, before the first unit and after "
                f"each, not {len(self.multiples)}"
            )
        if not 0 <= self.split <= len(self.strides):
            raise PartitaError(f"split is {self.split}; the decoder has {len(self.strides)} units")
        if self.lookahead < 0:
            raise PartitaError(f"lookahead is {self.lookahead} frames; it is at least 0")
        bins = coarsest_bins(self.stft_hop, self.strides)
        check_fit("SpectroStream", (self.stft_hop, *(time for time, _ in self.strides)), latent_spec)
        widths = [self.width * multiple for multiple in self.multiples]
        made = widths.copy()  # by what comes before each unit
        made[self.split] *= audio_spec.channels
        units = [
            UpUnit2d(before, after, stride=stride, weight_norm=self.weight_norm)
            for before, after, stride in zip(widths, made[1:], self.strides)
        ]
        first, features = made[0], made[0] * bins
        decoder = SpectroStreamDecoder(
            stft_hop=self.stft_hop,
            linear=nn.Linear(latent_spec.dim, features),
            nonlinear=nn.Sequential(nn.Linear(latent_spec.dim, features), nn.ELU(), nn.Linear(features, features)),
            units=[UpUnit2d(first, first, stride=(1, 1), weight_norm=self.weight_norm), *units],
            split=self.split,
            head=CausalConv2d(widths[-1], 2, kernel=(7, 7), stride=(1, 1), weight_norm=self.weight_norm),
            bins=bins,
            lookahead=self.lookahead,
            in_dim=latent_spec.dim,
            hop=latent_spec.hop,
            audio_spec=audio_spec,
        )
        init_truncated_normal(decoder, self.init_std)
        return decoder

    @classmethod
    def example(cls) -> "SpectroStreamDecoderConfig":
        """Hop 24, a few thousand parameters."""
        return cls(stft_hop=6, width=4, multiples=(3, 2, 2, 1), strides=((2, 1), (2, 1), (1, 3)))


class SpectroStreamDecoder(FeedForwardDecoder):
    """Latents to audio; see `SpectroStreamDecoderConfig`. It carries a state.

    The layers are causal: what they make of a frame is spectra that say how the audio goes on. That audio is taken for
    the audio of a frame `lookahead` before it, which gives them the frames in between to know.

    Attributes:
        latency: samples of audio held back when streamed, those of the look-ahead.
    """

    def __init__(
        self,
        *,
        stft_hop: int,
        linear: nn.Module,
        nonlinear: nn.Module,
        units: list[UpUnit2d],
        split: int,
        head: CausalConv2d,
        bins: int,
        lookahead: int,
        in_dim: int,
        hop: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles the two paths from the input, units, of which the first keeps the rate, and head (kernel 7x7)."""
        super().__init__()
        self.stft = STFT(n_fft=2 * stft_hop, win_length=2 * stft_hop, hop=stft_hop, padding="none", nyquist=False)
        self.linear, self.nonlinear = linear, nonlinear
        self.units, self.split, self.head = nn.ModuleList(units), split, head
        self.bins, self.lookahead, self.latency = bins, lookahead, lookahead * hop
        self.in_dim, self.hop, self.audio_spec = in_dim, hop, audio_spec
        # The first samples of a frame are also of the spectrum before.
        first, last = -1, prod(unit.stride[0] for unit in units) - 1
        for layer in reversed(self._layers):
            first, last = layer.reach(first, last)
        self.context = (max(0, -first - lookahead), lookahead)

    @property
    def _layers(self) -> list[CausalLayer]:
        return [*self.units, self.head]  # pyright: ignore

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """`(batch, in_dim, frames)` to `(batch, channels, hop * frames)`; layouts `(batch,)` change nothing."""
        state = self.init_state(hidden.shape[0], device=hidden.device, dtype=hidden.dtype)
        return self.step(hidden, state, last=True)[0]

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Any:
        """Silence: the state of each layer and the spectrum before; and the frames that the look-ahead drops."""
        channels, bins, states = self.audio_spec.channels, self.bins, []
        for index, layer in enumerate(self._layers):
            rows = batch_size * channels if index > self.split else batch_size
            states.append(layer.init_state(rows, bins, device=device, dtype=dtype))
            bins *= layer.stride[1]
        spectrum = torch.zeros(batch_size * channels, 2, 1, bins, device=device, dtype=dtype)
        # Counted by its shape, so that there is nothing to read back from a device.
        dropped = torch.zeros(batch_size, self.lookahead, device=device, dtype=dtype)
        return tuple(states), spectrum, dropped

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        """Takes whole frames of latents, returns the audio of those that are final; see `Streamable`."""
        batch, channels = x.shape[0], self.audio_spec.channels
        if last:
            x = F.pad(x, (0, self.lookahead))
        frames = x.shape[-1]
        if frames == 0:
            return x.new_zeros(batch, channels, 0), state
        states, before, dropped = state
        hidden = x.transpose(1, 2)
        hidden = self.linear(hidden) + self.nonlinear(hidden)
        hidden = hidden.unflatten(2, (self.bins, -1)).permute(0, 3, 1, 2)
        hidden, states = self._convolve(hidden, states)
        hidden = torch.cat([before.to(upcast(hidden)), upcast(hidden)], dim=2)
        spectrum = torch.complex(hidden[:, 0], hidden[:, 1]).transpose(1, 2)
        # The first hop of samples is of the spectrum before alone; the one before this had it.
        audio = self.stft.inverse(spectrum, (frames * self.hop) + self.stft.hop)[..., self.stft.hop :]
        audio = audio.unflatten(0, (batch, channels)).to(x.dtype)
        early = min(dropped.shape[1], frames)
        state = states, hidden[:, :, -1:].clone(), dropped[:, early:].clone()
        return audio[..., early * self.hop :], state

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """As `FeedForwardDecoder.stream`, with its state: nothing runs twice."""
        self._refuse(sampler)
        device = next(self.parameters()).device
        return StatefulStream(self, len(layout), layout=layout, device=device, dtype=dtype, width=width)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """As `Role.optimize`; with "bf16" the head, which makes the spectrum, stays as it is."""
        # Convolutions of few frames need not bring their weights into this order each time, then.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if precision == "bf16":
            for part in (self.linear, self.nonlinear, self.units):
                part.to(torch.bfloat16)
        if compile:
            # All layers as one: of each by itself, torch would compile only the first eight.
            compiled = torch.compile(self._convolve, dynamic=False, options={"freezing": True})
            self._convolve = compiled  # pyright: ignore[reportAttributeAccessIssue]

    def _convolve(self, hidden: Tensor, states: Any) -> tuple[Tensor, Any]:
        """All layers, of which those from `split` on take the channels of the audio as items."""
        new = []
        for index, layer in enumerate(self._layers):
            if index == self.split + 1:
                hidden = hidden.unflatten(1, (self.audio_spec.channels, -1)).flatten(0, 1)
                hidden = hidden.contiguous(memory_format=torch.channels_last)
            if layer is self.head:
                hidden = F.elu(hidden).to(self._dtype())
            hidden, remembered = layer(hidden, states[index])
            new.append(remembered)
        return hidden, tuple(new)

    def _dtype(self) -> torch.dtype:
        """Of the head, which `optimize` leaves as it is."""
        return next(self.head.parameters()).dtype
