"""SpectroStream encoder: causal 2-D convolutions on the short-time spectrum, without look-ahead."""

from math import prod
from typing import Any

import torch
from partita_blocks import STFT, CausalConv2d, CausalLayer, DownUnit2d, coarsest_bins, init_truncated_normal
from partita_core import (
    AudioSpec,
    Encoder,
    PartitaError,
    Precision,
    StatefulStream,
    Stream,
    config_of,
    register,
    set_to_zero,
)
from partita_core.ranges import Extras, NonNegative, Samples, Width
from torch import Tensor, nn


@register(
    "encoder/spectrostream",
    example={
        "stft_hop": 6,
        "width": 4,
        "multiples": (1, 2, 2, 3),
        "strides": ((1, 3), (2, 1), (2, 1)),
        "fusion": 2,
    },
)
class SpectroStreamEncoder(Encoder):
    """Causal 2-D convolutions on the short-time spectrum, with a late fusion of left and right (SpectroStream, F3).

    Layers and sizes are those of arXiv 2508.05207 and the released model: 9.3 M parameters for 48 kHz stereo and 256
    channels. A frame is `stft_hop` samples times the strides in time; the defaults give 25 Hz at 48 kHz. For 24 and
    16 kHz, set `stft_hop` to 240 or 160, with strides in frequency whose product is 48 or 32, so that 5 bins remain.
    The two channels pass through the same layers until they are joined. The encoder streams with a state.

    Args:
        out_dim: width of the hidden frames.
        audio_spec: format of the input audio. The network does not depend on the channel layout: use a single layout,
            or mono and stereo.
        stft_hop: hop and number of bins of the spectrum; the window is twice as long.
        width: number of channels of the stem.
        multiples: number of channels of the stem and of each unit, in multiples of `width`.
        strides: (time, frequency) strides of each unit, from the spectrum on.
        fusion: number of units before left and right are joined.
        init_std: standard deviation of the truncated normal distribution of the initial weights; None for
            `inputs ** -0.5` in each layer. An open reimplementation has 0.02, with which narrow networks start silent.

    Raises:
        PartitaError: `multiples` does not have one entry more than `strides`, `fusion` exceeds the number of units, or
            the strides in frequency do not divide the bins.
    """

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        stft_hop: Samples = 480,
        width: Width = 32,
        multiples: tuple[Width, ...] = (1, 2, 2, 4, 4, 4, 8, 8),
        strides: tuple[tuple[Samples, Samples], ...] = ((1, 2), (1, 2), (1, 3), (1, 2), (1, 2), (2, 2), (2, 1)),
        fusion: Extras = 6,
        init_std: NonNegative | None = None,
    ) -> None:
        super().__init__()
        if len(multiples) != len(strides) + 1:
            raise PartitaError(
                f"{len(strides)} strides need {len(strides) + 1} multiples, of the stem and of each unit, "
                f"not {len(multiples)}"
            )
        if fusion > len(strides):
            raise PartitaError(f"fusion is {fusion}; the encoder has {len(strides)} units")
        self.hop = stft_hop * prod(time for time, _ in strides)
        self.out_dim, self.audio_spec, self.fusion = out_dim, audio_spec, fusion
        widths = [width * multiple for multiple in multiples]
        inputs = widths.copy()
        inputs[fusion] *= audio_spec.channels
        joined, features = inputs[-1], inputs[-1] * coarsest_bins(stft_hop, strides)
        self.stft = STFT(n_fft=2 * stft_hop, win_length=2 * stft_hop, hop=stft_hop, padding="none", nyquist=False)
        self.stem = CausalConv2d(2, widths[0], kernel=(7, 7), stride=(1, 1))
        units = [
            DownUnit2d(channels_in, channels_out, stride=stride)
            for channels_in, channels_out, stride in zip(inputs, widths[1:], strides)
        ]
        self.units = nn.ModuleList([*units, DownUnit2d(joined, joined, stride=(1, 1))])
        self.linear = nn.Linear(features, out_dim)
        self.nonlinear = nn.Sequential(nn.ELU(), nn.Linear(features, features), nn.ELU(), nn.Linear(features, out_dim))
        init_truncated_normal(self, init_std)
        first = last = 0
        for layer in reversed(self._layers):
            first, last = layer.reach(first, last)
        # A frame of the spectrum begins one `stft_hop` before its own samples.
        self.context = (-((first - 1) * stft_hop // self.hop), 0)

    @property
    def _layers(self) -> list[CausalLayer]:
        return [self.stem, *self.units]  # pyright: ignore

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` to `(batch, out_dim, frames)`; layouts `(batch,)` are not used."""
        state = self.init_state(audio.shape[0], device=audio.device, dtype=audio.dtype)
        return self.step(audio, state, last=True)[0]

    def start_at_zero(self) -> None:
        """Set both halves of the last layer to zero; see `Role.start_at_zero`."""
        for layer in (self.linear, self.nonlinear[-1]):
            set_to_zero(layer)

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Any:
        """Return the state of silence: the first samples of the next window, and the state of each layer."""
        channels, bins, states = self.audio_spec.channels, self.stft.bins, []
        for index, layer in enumerate(self._layers):
            rows = batch_size if index > self.fusion else batch_size * channels
            states.append(layer.init_state(rows, bins, device=device, dtype=dtype))
            bins //= layer.stride[1]
        return torch.zeros(batch_size, channels, self.stft.hop, device=device, dtype=dtype), tuple(states)

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        """Encode some frames of audio to as many hidden frames, and return the next state; see `Streamable`."""
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
        """Return a stream, as `Encoder.stream` does; with its state, no frame is computed twice."""
        device = next(self.parameters()).device
        return StatefulStream(self, len(layout), layout=layout, device=device, dtype=dtype, width=width * self.hop)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare for inference, as `Role.optimize` does; with "bf16" the stem stays in float32."""
        # Otherwise convolutions convert their weights to this format in each call, which dominates for few frames.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if precision == "bf16":
            for part in (self.units, self.linear, self.nonlinear):
                part.to(torch.bfloat16)
        if compile:
            # All layers at once: torch would compile only the first eight single layers.
            compiled = torch.compile(self._convolve, dynamic=False, options={"freezing": True})
            self._convolve = compiled  # pyright: ignore[reportAttributeAccessIssue]

    def _convolve(self, hidden: Tensor, states: Any) -> tuple[Tensor, Any]:
        """Apply all layers; before `fusion`, the audio channels are items of the batch."""
        new = []
        for index, layer in enumerate(self._layers):
            if index == self.fusion + 1:
                hidden = torch.cat(hidden.unflatten(0, (-1, self.audio_spec.channels)).unbind(1), dim=1)
            hidden, state = layer(hidden, states[index])
            if index == 0:
                hidden = hidden.to(next(self.units.parameters()).dtype)  # the dtype that `optimize` chose
            new.append(state)
        return hidden, tuple(new)


SpectroStreamEncoderConfig = config_of(SpectroStreamEncoder)
