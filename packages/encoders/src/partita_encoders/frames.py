"""Frame encoder: matrix products over log spectra, with an optional fundamental frequency."""

import torch
from partita_blocks import (
    LOG_SCALE,
    STFT,
    Bands,
    FrameStack,
    PitchTracker,
    power,
    sub_frame_hop,
    to_mid_side,
    typical_log_amplitude,
)
from partita_core import AudioSpec, Constant, Encoder, PartitaError, config_of, register, upcast
from partita_core.ranges import Layers, Positive, Samples, Width
from torch import Tensor

# Level in RMS below which log spectra are flat.
_FLOOR = 1e-4


@register("encoder/frames", example={"hop": 24, "width": 8, "inner": 12, "blocks": 1, "window": 0.006})
class FrameEncoder(Encoder):
    """Network of matrix products over frames, applied to log power spectra, fast on processors without a GPU.

    A frame has the spectra of `steps` windows, of mid and side for two channels. With `pitch`, the first channel of the
    output is the fundamental frequency of the mid channel, from an analysis without parameters (see
    `partita_blocks.PitchTracker`): -1 to 1 on a logarithmic scale from 60 to 400 Hz. It is what `decoder/source_filter`
    takes as its first channel, and is also an input of the network, together with the strength of the periodicity.

    Args:
        out_dim: width of the hidden frames.
        audio_spec: format of the input audio.
        hop: samples per frame, a multiple of `steps`.
        width: channels of the network.
        inner: channels of the hidden layer of a block.
        blocks: residual blocks, each of which adds one frame of context to either side.
        steps: spectra per frame.
        window: length of the windows in seconds.
        bands: number of bands that the powers of each spectrum are averaged in; None for all bins.
        pitch: make the first channel the fundamental frequency.

    Raises:
        PartitaError: the hop is not a multiple of `steps`, the window is shorter than a step, or `out_dim` is 1 with
            `pitch`.
    """

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        hop: Samples = 320,
        width: Width = 192,
        inner: Width = 384,
        blocks: Layers = 3,
        steps: Samples = 2,
        window: Positive = 0.024,
        bands: Width | None = None,
        pitch: bool = False,
    ) -> None:
        super().__init__()
        step = sub_frame_hop(hop, steps)
        if pitch and out_dim < 2:
            raise PartitaError(
                f"the latents have {out_dim} channel; a pitch needs one, and the network at least another"
            )
        self.out_dim, self.hop, self.audio_spec, self.steps = out_dim, hop, audio_spec, steps
        n_fft = 2 * round(window * audio_spec.sample_rate / 2)
        if n_fft < step:
            raise PartitaError(f"the window has {n_fft} samples, and a step {step}; use more steps or a longer window")
        self.stft = STFT(n_fft=n_fft, hop=step, padding="none")
        self.margin = (n_fft - step) // 2
        frequencies = torch.arange(self.stft.bins, dtype=torch.float64, device="cpu") * audio_spec.sample_rate / n_fft
        self.bands = None
        if bands is not None:
            self.bands = Bands(bands, self.stft.bins, audio_spec.sample_rate)
            frequencies = self.bands.mean(frequencies)
        self._level = Constant(typical_log_amplitude(frequencies))
        self.pitch = PitchTracker(audio_spec.sample_rate, hop) if pitch else None
        before = -(-self.margin // hop) if self.pitch is None else max(-(-self.margin // hop), self.pitch.context)
        self.context = (before + blocks, before + blocks)
        self.network = FrameStack(
            audio_spec.channels * steps * (bands or self.stft.bins) + 2 * pitch,
            out_dim - pitch,
            width=width,
            inner=inner,
            blocks=blocks,
        )

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        mid_side = to_mid_side(upcast(audio), layout)
        features = self._spectra(mid_side)
        if self.pitch is None:
            return self.network(features.to(audio.dtype)).mT
        position, strength = self.pitch(mid_side[:, 0])
        features = torch.cat([features, position[..., None], strength[..., None]], dim=-1)
        hidden = self.network(features.to(audio.dtype)).mT
        return torch.cat([position[:, None].to(hidden.dtype), hidden], dim=1)

    def start_at_zero(self) -> None:
        """Set the last layer to zero; see `Role.start_at_zero`.

        Raises:
            PartitaError: the first channel is the pitch.
        """
        if self.pitch is not None:
            raise PartitaError(f"{type(self).__name__} with a pitch cannot start at zero; set pitch=false")
        super().start_at_zero()

    def _spectra(self, audio: Tensor) -> Tensor:
        """Log amplitudes `(batch, frames, channels * steps * bins)`, relative to typical speech, scaled."""
        with torch.autocast(audio.device.type, enabled=False):
            # Audio beyond the ends is zero; the windows of a step are centered on it.
            margin = self.stft.n_fft - self.stft.hop
            padded = torch.nn.functional.pad(audio, (self.margin, margin - self.margin))
            powers = power(self.stft(padded)).mT / self.stft.energy
            powers = powers if self.bands is None else self.bands.mean(powers)
            logs = (powers + _FLOOR**2).log() / 2 - self._level.like(powers)
            return (LOG_SCALE * logs).unflatten(2, (-1, self.steps)).transpose(1, 2).flatten(2)


FrameEncoderConfig = config_of(FrameEncoder)
