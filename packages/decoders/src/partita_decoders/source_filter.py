"""Source-filter decoder of voices: pulses and noise through spectral envelopes."""

import math
from typing import Any, NamedTuple

import torch
from partita_blocks import (
    STFT,
    EnvelopeNodes,
    FrameStack,
    PitchScale,
    PulseTrain,
    from_mid_side,
    power,
    sub_frame_hop,
    to_mid_side,
    typical_log_amplitude,
    white_noise,
)
from partita_core import (
    AudioSpec,
    Chain,
    Constant,
    FeedForwardDecoder,
    LatentSpec,
    PartitaError,
    Precision,
    Stream,
    TiledStream,
    compile_frozen,
    config_of,
    length_mask,
    register,
    reject_sampler,
    upcast,
)
from partita_core.ranges import Layers, NonNegative, Positive, Samples, Width
from torch import Tensor
from torch.nn import functional as F

from ._common import check_one_token

# Log amplitude of noise relative to that of pulses at the start.
_NOISE_LEVEL = -0.3
# Log amplitudes are limited to this range, and change by this much per unit of the network's output.
_QUIETEST, _LOUDEST, _RANGE = -14.0, 4.0, 1.5
# Sinusoids of the pitch as features: cycles per unit of its position.
_PITCH_CYCLES = (0.5, 5.5, 8)
# Level in RMS below which powers do not count in the likelihood, and the distance from which it grows slower.
_FLOOR, _DISTANCE = 8e-4, 20.0
# Positions in the noise at which training starts, in frames.
_STARTS = 1 << 20


class _Parts(NamedTuple):
    """Spectra of the sources, and the envelopes that filter them, for mid and side.

    Attributes:
        pulses: complex spectra of the pulses, `(batch, spectra, 1, bins)`.
        noise: complex spectra of the noise, `(batch, spectra, channels, bins)`.
        nodes: log amplitudes at the nodes of the envelope of the pulses, `(batch, spectra, channels, nodes)`.
        logs: log amplitudes of the envelopes of pulses and noise, `(batch, spectra, 2, channels, bins)`.
    """

    pulses: Tensor
    noise: Tensor
    nodes: Tensor
    logs: Tensor


class _State(NamedTuple):
    """Position and phase of the pulses at the center of the last frame, and index of the next frame, `(batch, 1)`."""

    position: Tensor
    phase: Tensor
    frame: Tensor


@register(
    "decoder/source_filter",
    example={"width": 8, "inner": 12, "blocks": 1, "steps": 2, "window": 0.004, "nodes": 6},
)
class SourceFilterDecoder(FeedForwardDecoder):
    """Decoder of voices: pulses of a fundamental frequency and noise, each through an envelope made by a network.

    The first channel of the latents is the fundamental frequency, on the scale of `partita_blocks.PitchScale`: it is
    what `encoder/frames` makes with `pitch=true`. From all channels, a network over frames makes the log amplitudes of
    pulses and noise at `nodes` frequencies, `steps` times per frame. Pulses are band-limited, with all harmonics in
    phase, and are shaped by a filter of minimum phase; noise is shaped without a phase. Two channels have envelopes for
    mid and side, and share the pulses. The structure is that of classical vocoders, as in the neural source-filter
    models of Wang et al. (arXiv 1904.12088) and in DDSP (Engel et al., arXiv 2001.04643); layers, envelopes and the
    likelihood are ours.

    The own loss `likelihood` needs no phase: in each bin of a spectrum the power of the target is compared to the
    expected one, that of the filtered pulses plus that of the filtered noise, by the Itakura-Saito distance. It is the
    negative log-likelihood of a complex Gaussian up to a constant.

    A stream carries the phase of the pulses; noise is a fixed function of the position in the recording. In training
    each item starts at a random phase and position. The pulses have no gradient with respect to the latents.

    Args:
        latent_spec: format of the latents, one token per frame.
        audio_spec: format of the output audio.
        width: channels of the network.
        inner: channels of the hidden layer of a block.
        blocks: residual blocks, each of which adds one frame of context to either side.
        steps: spectra per frame; divides the hop.
        window: length of the windows in seconds.
        nodes: values of an envelope.
        likelihood_weight: weight of the loss `likelihood`; 0 to train by the losses on samples alone.

    Raises:
        PartitaError: there are several tokens per frame, or no channel besides the pitch; the hop is not a multiple of
            `steps`; windows do not overlap by half.
    """

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        width: Width = 192,
        inner: Width = 384,
        blocks: Layers = 4,
        steps: Samples = 4,
        window: Positive = 0.024,
        nodes: Width = 64,
        likelihood_weight: NonNegative = 0.3,
    ) -> None:
        super().__init__()
        check_one_token("source-filter", latent_spec)
        dim, hop, rate = latent_spec.dim, latent_spec.hop, audio_spec.sample_rate
        if dim < 2 or nodes < 2:
            raise PartitaError(f"the latents have {dim} channels and envelopes {nodes} nodes; at least 2 are needed")
        step, n_fft = sub_frame_hop(hop, steps), 2 * round(window * rate / 2)
        if n_fft < 2 * step:
            raise PartitaError(f"the window has {n_fft} samples, less than two steps of {step}; use more steps")
        self.in_dim, self.hop, self.audio_spec, self.steps = dim, hop, audio_spec, steps
        self.loss_weights = {"likelihood": likelihood_weight} if likelihood_weight else {}
        self.stft = STFT(n_fft=n_fft, hop=step, padding="same")
        self.pulses = PulseTrain(rate, hop, PitchScale())
        self.envelope = EnvelopeNodes(rate, n_fft, nodes)
        typical = typical_log_amplitude(self.envelope.frequencies)
        self._typical = Constant(torch.stack([typical, typical + _NOISE_LEVEL])[:, None])  # of pulses and of noise
        cycles = torch.linspace(*_PITCH_CYCLES, dtype=torch.float64, device="cpu")
        self._angles = Constant(2 * math.pi * cycles)
        self.network = FrameStack(
            dim + 2 * _PITCH_CYCLES[2], 2 * audio_spec.channels * steps * nodes, width=width, inner=inner, blocks=blocks
        )
        with torch.no_grad():  # envelopes start near those of typical speech
            self.network.head.weight.mul_(0.2)
            self.network.head.bias.zero_()
        self._reach = _reach(self.stft, hop, blocks)
        self.context = (None, self._reach[1])

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` of layouts `(batch,)` to `(batch, channels, hop * frames)`."""
        return self._decode(self._timed(hidden, self._start(hidden))[0], layout).to(hidden.dtype)

    def losses(
        self, hidden: Tensor, layout: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss `likelihood`, without synthesis; see `FeedForwardDecoder.losses`."""
        return self._likelihood(self._parts(self._timed(hidden, self._start(hidden))[0]), layout, target, lengths)

    def reconstruct(
        self, hidden: Tensor, layout: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode, and compute the loss `likelihood`; see `FeedForwardDecoder.reconstruct`."""
        parts = self._parts(self._timed(hidden, self._start(hidden))[0])
        audio = from_mid_side(self._synthesize(parts), layout).to(hidden.dtype)
        return audio, self._likelihood(parts, layout, target, lengths)

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """Return a stream, as `FeedForwardDecoder.stream` does; it continues the phase of the pulses."""
        reject_sampler(self, sampler)
        filters = TiledStream(
            lambda timed: self._decode(timed, layout.to(timed.device)).to(dtype),
            units_in=1,
            units_out=self.hop,
            context=self._reach,
            hop=self.hop,
            width=width,
        )
        return Chain(_Clock(self), filters)

    def start_at_zero(self) -> None:
        """Raise a PartitaError: the amplitudes of the sources are never zero."""
        raise PartitaError(f"{type(self).__name__} cannot start at zero; it does not fit beside a linear path")

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare the network for inference, as `Role.optimize` does; the sources stay in float32."""
        if precision == "bf16":
            self.network.to(torch.bfloat16)
        if compile:
            compile_frozen(self.network)

    def _start(self, hidden: Tensor) -> _State:
        """State before the first frame: zero, or random in training."""
        batch, device = hidden.shape[0], hidden.device
        position = hidden[:, 0, :1].detach()
        if not self.training:
            zero = torch.zeros_like(position)
            return _State(position, zero.double(), zero.long())
        phase, index = torch.rand(batch, 1, dtype=torch.float64), torch.randint(_STARTS, (batch, 1))
        return _State(position, phase.to(device), index.to(device))

    def _timed(self, hidden: Tensor, state: _State) -> tuple[Tensor, _State]:
        """Append the phase of the pulses and the index of each frame, `(batch, in_dim + 2, frames)` float64."""
        position = hidden[:, 0].detach()
        phase = self.pulses.phases(position, state.position, state.phase)
        index = state.frame + torch.arange(hidden.shape[2], device=hidden.device)
        timed = torch.cat([hidden.double(), phase[:, None], index[:, None].double()], dim=1)
        return timed, _State(position[:, -1:], phase[:, -1:], index[:, -1:] + 1)

    def _decode(self, timed: Tensor, layout: Tensor) -> Tensor:
        return from_mid_side(self._synthesize(self._parts(timed)), layout)

    def _parts(self, timed: Tensor) -> _Parts:
        weights = self.network.stem.weight
        hidden, phase, index = timed[:, :-2].to(upcast(weights).dtype), timed[:, -2], timed[:, -1].long()
        with torch.no_grad():
            samples = (index[..., None] * self.hop + torch.arange(self.hop, device=index.device)).flatten(1)
            channels = torch.arange(self.audio_spec.channels, device=index.device)[:, None]
            noise = white_noise(samples[:, None] * len(channels) + channels, hidden.dtype)
            pulses = self.pulses(hidden[:, 0], phase)
            pulses, noise = (self.stft(source).permute(0, 3, 1, 2) for source in (pulses[:, None], noise))
        angles = hidden[:, :1].mT * self._angles.like(hidden)
        features = torch.cat([hidden.mT, angles.sin(), angles.cos()], dim=-1)
        output = upcast(self.network(features.to(weights.dtype)))
        output = output.unflatten(-1, (self.steps, 2, self.audio_spec.channels, -1)).flatten(1, 2)
        nodes = (_RANGE * output + self._typical.like(output)).clamp(_QUIETEST, _LOUDEST)
        with torch.autocast(hidden.device.type, enabled=False):
            return _Parts(pulses, noise, nodes[:, :, 0], self.envelope(nodes))

    def _synthesize(self, parts: _Parts) -> Tensor:
        """Audio `(batch, channels, samples)` of mid and side."""
        with torch.autocast(parts.logs.device.type, enabled=False):
            pulses, noise = parts.logs.exp().unbind(2)
            spectrum = parts.pulses * torch.polar(pulses, self.envelope.phase(parts.nodes)) + parts.noise * noise
            return self.stft.inverse(spectrum.permute(0, 2, 3, 1), spectrum.shape[1] * self.stft.hop)

    def _likelihood(self, parts: _Parts, layout: Tensor, target: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        if not self.loss_weights:
            return {}
        samples, device = target.shape[-1], target.device
        lengths = torch.full((len(target),), samples, device=device) if lengths is None else lengths.to(device)
        with torch.autocast(device.type, enabled=False):
            target = upcast(target) * length_mask(lengths, samples)[:, None]
            spectra = self.stft(to_mid_side(target, layout)).permute(0, 3, 1, 2)
            measured, source = (power(spectrum) / self.stft.energy for spectrum in (spectra, parts.pulses))
            pulses, noise = (2 * parts.logs).exp().unbind(2)
            ratio = (measured + _FLOOR**2) / (source * pulses + noise + _FLOOR**2)
            distance = _DISTANCE * torch.log1p((ratio - ratio.log() - 1) / _DISTANCE)
            counted = length_mask(-(-lengths // self.stft.hop), distance.shape[1])
            mean = (distance.mean((2, 3)) * counted).sum() / counted.sum().clamp_min(1)
        return {"likelihood": mean}


SourceFilterDecoderConfig = config_of(SourceFilterDecoder)


def _reach(stft: STFT, hop: int, blocks: int) -> tuple[int, int]:
    """Frames to the left and right that a frame of audio depends on, if the phases of the frames are given.

    A sample depends on the gains of the spectra whose windows cover it, and through them on the pulses in these
    windows, which depend on the frames with the nearest centers.
    """
    first = -((stft.n_fft - 1 - stft.left) // stft.hop)  # spectrum of the earliest window that covers sample 0
    last = (hop + stft.left - 1) // stft.hop  # spectrum of the latest window that covers sample hop - 1
    steps, begin, end = hop // stft.hop, first * stft.hop - stft.left, last * stft.hop - stft.left + stft.n_fft - 1
    left = max(blocks - first // steps, -((2 * begin + 1 - hop) // (2 * hop)))
    right = max(blocks + last // steps, (2 * end + 1 - hop) // (2 * hop) + 1)
    return left, right


class _Clock:
    """Stream from latents to latents with phases and indices; see `SourceFilterDecoder._timed`."""

    latency = 0

    def __init__(self, decoder: SourceFilterDecoder) -> None:
        self._decoder = decoder
        self._state: _State | None = None

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        if x.shape[-1] == 0:
            return F.pad(x.double(), (0, 0, 0, 2))
        state = self._state or self._decoder._start(x)
        timed, self._state = self._decoder._timed(x, state)
        return timed
