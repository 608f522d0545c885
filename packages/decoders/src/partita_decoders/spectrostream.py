"""SpectroStream decoder: causal 2-D convolutions up to a complex short-time spectrum, with some look-ahead."""

from typing import Any

import torch
from partita_blocks import STFT, CausalConv2d, CausalLayer, UpUnit2d, coarsest_bins, elu, init_truncated_normal
from partita_core import (
    AudioSpec,
    FeedForwardDecoder,
    LatentSpec,
    PartitaError,
    Precision,
    StatefulStream,
    Stream,
    config_of,
    register,
    reject_sampler,
    upcast,
)
from partita_core.ranges import Extras, NonNegative, Samples, Width
from torch import Tensor, nn
from torch.nn import functional as F

from ._common import check_latents


@register(
    "decoder/spectrostream",
    example={"stft_hop": 6, "width": 4, "multiples": (3, 2, 2, 1), "strides": ((2, 1), (2, 1), (1, 3))},
)
class SpectroStreamDecoder(FeedForwardDecoder):
    """Causal 2-D transposed convolutions up to a complex spectrum, with left and right split early (SpectroStream).

    Layers and sizes are those of arXiv 2508.05207 and the released model: 35.7 M parameters for 48 kHz stereo and 256
    channels. The decoder mirrors `SpectroStreamEncoder` and streams with a state. All layers are causal; the output is
    taken as the audio of `lookahead` frames earlier, so that each frame depends on as many later frames of latents.

    Args:
        latent_spec: format of the latents, one token per frame.
        audio_spec: format of the output audio; the network does not depend on the channel layout.
        stft_hop: hop and number of bins of the spectrum; the window is twice as long.
        width: number of channels before the last layer.
        multiples: number of channels before the first unit and after each unit, in multiples of `width`.
        strides: (time, frequency) strides of each unit, from the latents on.
        split: number of units before left and right are split; the features at that point have as many channels for
            each of the two.
        lookahead: frames of look-ahead, which include the overlap of windows.
        init_std: standard deviation of the initial weights; see `SpectroStreamEncoder`.

    Attributes:
        latency: samples held back by a stream, those of the look-ahead.

    Raises:
        PartitaError: the strides do not fit the latents or the bins, `multiples` does not have one entry more than
            `strides`, or `split` exceeds the number of units.
    """

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        stft_hop: Samples = 480,
        width: Width = 64,
        multiples: tuple[Width, ...] = (8, 8, 4, 4, 4, 2, 2, 1),
        strides: tuple[tuple[Samples, Samples], ...] = ((2, 1), (2, 2), (1, 2), (1, 2), (1, 3), (1, 2), (1, 2)),
        split: Extras = 1,
        lookahead: Extras = 1,
        init_std: NonNegative | None = None,
    ) -> None:
        super().__init__()
        if len(multiples) != len(strides) + 1:
            raise PartitaError(
                f"{len(strides)} strides need {len(strides) + 1} multiples, before the first unit and after each, "
                f"not {len(multiples)}"
            )
        if split > len(strides):
            raise PartitaError(f"split is {split}; the decoder has {len(strides)} units")
        self.bins = coarsest_bins(stft_hop, strides)
        check_latents("SpectroStream", (stft_hop, *(time for time, _ in strides)), latent_spec)
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.split, self.lookahead, self.latency = split, lookahead, lookahead * latent_spec.hop
        widths = [width * multiple for multiple in multiples]
        outputs = widths.copy()
        outputs[split] *= audio_spec.channels
        first, features = outputs[0], outputs[0] * self.bins
        self.stft = STFT(n_fft=2 * stft_hop, win_length=2 * stft_hop, hop=stft_hop, padding="none", nyquist=False)
        self.linear = nn.Linear(latent_spec.dim, features)
        self.nonlinear = nn.Sequential(nn.Linear(latent_spec.dim, features), nn.ELU(), nn.Linear(features, features))
        units = [
            UpUnit2d(channels_in, channels_out, stride=stride)
            for channels_in, channels_out, stride in zip(widths, outputs[1:], strides)
        ]
        self.units = nn.ModuleList([UpUnit2d(first, first, stride=(1, 1)), *units])
        self.head = CausalConv2d(widths[-1], 2, kernel=(7, 7), stride=(1, 1))
        init_truncated_normal(self, init_std)
        # The first samples of a frame also depend on the spectrum before it.
        first, last = -1, latent_spec.hop // stft_hop - 1
        for layer in reversed(self._layers):
            first, last = layer.reach(first, last)
        self.context = (max(0, -first - lookahead), lookahead)

    @property
    def _layers(self) -> list[CausalLayer]:
        return [*self.units, self.head]  # pyright: ignore

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` to `(batch, channels, hop * frames)`; layouts `(batch,)` are not used."""
        state = self.init_state(hidden.shape[0], device=hidden.device, dtype=hidden.dtype)
        return self.step(hidden, state, last=True)[0]

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Any:
        """Return the state of silence: states of the layers, the last spectrum, and the frames still to drop."""
        channels, bins, states = self.audio_spec.channels, self.bins, []
        for index, layer in enumerate(self._layers):
            rows = batch_size * channels if index > self.split else batch_size
            states.append(layer.init_state(rows, bins, device=device, dtype=dtype))
            bins *= layer.stride[1]
        spectrum = torch.zeros(batch_size * channels, 2, 1, bins, device=device, dtype=dtype)
        # The number of frames is stored as a shape, so that nothing has to be read back from a device.
        dropped = torch.zeros(batch_size, self.lookahead, device=device, dtype=dtype)
        return tuple(states), spectrum, dropped

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        """Decode some frames of latents to the audio that is final, and return the next state; see `Streamable`."""
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
        # The first hop of samples depends only on the spectrum before, and was returned by the previous step.
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
        """Return a stream, as `FeedForwardDecoder.stream` does; with its state, no frame is computed twice."""
        reject_sampler(self, sampler)
        device = next(self.parameters()).device
        return StatefulStream(self, len(layout), layout=layout, device=device, dtype=dtype, width=width)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare for inference, as `Role.optimize` does; with "bf16" the head stays in float32."""
        # Otherwise convolutions convert their weights to this format in each call, which dominates for few frames.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if precision == "bf16":
            for part in (self.linear, self.nonlinear, self.units):
                part.to(torch.bfloat16)
        if compile:
            # All layers at once: torch would compile only the first eight single layers.
            compiled = torch.compile(self._convolve, dynamic=False, options={"freezing": True})
            self._convolve = compiled  # pyright: ignore[reportAttributeAccessIssue]

    def _convolve(self, hidden: Tensor, states: Any) -> tuple[Tensor, Any]:
        """Apply all layers; from `split` on, the audio channels are items of the batch."""
        new = []
        for index, layer in enumerate(self._layers):
            if index == self.split + 1:
                hidden = hidden.unflatten(1, (self.audio_spec.channels, -1)).flatten(0, 1)
                hidden = hidden.contiguous(memory_format=torch.channels_last)
            if layer is self.head:
                hidden = elu(hidden).to(self._head_dtype())
            hidden, state = layer(hidden, states[index])
            new.append(state)
        return hidden, tuple(new)

    def _head_dtype(self) -> torch.dtype:
        """Dtype of the head, which `optimize` does not change."""
        return next(self.head.parameters()).dtype


SpectroStreamDecoderConfig = config_of(SpectroStreamDecoder)
