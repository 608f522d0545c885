"""The consistency decoder: latents tell a network, by way of its feature maps, what to make of noise in one step."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from partita_blocks import ChunkTransformer, CompandedSTFT, Depatchifier, Patchifier, Preconditioning, patch_grid
from partita_core import (
    AudioSpec,
    Config,
    DenoisingDecoder,
    LatentSpec,
    NoiseSchedule,
    PartitaError,
    Sampler,
    component_field,
    register,
    upcast,
)
from partita_core.ranges import (
    Extras,
    Finite,
    Frames,
    Heads,
    Layers,
    NonNegative,
    Positive,
    Proportion,
    Range,
    Samples,
    Width,
)
from torch import Tensor, nn

from ._denoiser import Denoiser, Upsampler
from .samplers import TwoStep

# The median magnitude of complex noise whose real and imaginary parts have a standard deviation of 1.
_MEDIAN = math.sqrt(2 * math.log(2))

# Companded magnitudes below this are silence to the envelope: about -100 dB of a full-scale sine.
_FLOOR = 3e-3

# Chunks that one step sees: the one that is made, and the one before.
_WINDOW = 2


@register("decoder/consistency")
@dataclass(frozen=True)
class ConsistencyDecoderConfig(Config):
    """A consistency model of pairs of chunks, conditioned on feature maps that are made of latents (Music2Latent2).

    From arXiv 2501.17578, with the sizes of CoDiCodec (arXiv 2509.09836), since its own are not known. A chunk of
    `chunk_frames * stft_hop` samples is one frame of latents or several. The layout has no input: give audio of one.

    Attributes:
        n_fft: window and FFT of the spectrogram, samples.
        stft_hop: samples from frame to frame of it.
        companding: of magnitudes ("polar"), or of real and imaginary parts each ("component").
        companding_scale: see `CompandedSTFT`.
        companding_exponent: see `CompandedSTFT`.
        tilt: dB an octave by which high frequencies are raised before; ours, off at 0.
        chunk_frames: frames of the spectrogram in a chunk.
        channels: width of each level of convolutions, from full resolution on; the last is that of both transformers.
        strides: frequencies and frames that become one between the levels.
        blocks: residual blocks of each level.
        upsampler_layers: blocks of the transformer that makes features of latents.
        layers: blocks of the transformer that denoises.
        heads: attention heads.
        head_dim: width of a head.
        condition_dim: width of the embedding of the noise level.
        registers: further learned tokens of each chunk, in both transformers, which are dropped.
        direct: channels of every place of the smallest map that one matrix makes of all latents of a chunk, beside
            attention, which is ours; None for no such matrix. See `SummaryEncoderConfig`.
        latents_in_decoder: whether the denoising transformer sees the latents as tokens, too.
        envelope_weight: of the loss of a spectral envelope, which is ours; None for none. With it the features also
            give the magnitude of every point of the spectrogram, which is learned by itself, and takes the place of
            `sigma_data`; what the network adds to is noise of this spectrum. Magnitudes range over four powers of ten,
            and what is quiet hardly weighs in consistency training: runs of some thousand steps learn little of it
            otherwise.
        dropout: of the denoising network, in training.
        sigma_min: noise level at which the decoder returns its input.
        sigma_max: noise level that decoding starts from.
        sigma_data: standard deviation of companded spectrograms.
        rho: of the noise schedule.
        sampler: how it is run unless another sampler is named.
    """

    n_fft: Samples = 2048
    stft_hop: Samples = 512
    companding: Literal["polar", "component"] = "polar"
    companding_scale: Positive = 0.34
    companding_exponent: Annotated[float, Range(0, 1, open_low=True)] = 0.65
    tilt: Finite = 0.0
    chunk_frames: Frames = 64
    channels: tuple[Width, ...] = (64, 128, 256, 512)
    strides: tuple[tuple[Samples, Samples], ...] = ((4, 2), (2, 2), (2, 2))
    blocks: tuple[Layers, ...] = (3, 3, 3, 1)
    upsampler_layers: Layers = 12
    layers: Layers = 12
    heads: Heads = 4
    head_dim: Width = 128
    condition_dim: Width = 512
    registers: Extras = 0
    direct: Width | None = None
    latents_in_decoder: bool = False
    envelope_weight: NonNegative | None = None
    dropout: Proportion = 0.0
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    sigma_data: Positive = 0.5
    rho: Positive = 7.0
    sampler: Config = component_field("sampler", default=TwoStep())

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "ConsistencyDecoder":
        """Builds the decoder for latents of `latent_spec` and audio of `audio_spec`.

        Raises:
            PartitaError: a chunk is not whole frames of latents.
        """
        chunk = self.chunk_frames * self.stft_hop
        if chunk % latent_spec.hop:
            raise PartitaError(
                f"a chunk of the consistency decoder is {self.chunk_frames} * {self.stft_hop} = {chunk} samples, the "
                f"encoder's hop is {latent_spec.hop}; choose chunk_frames and stft_hop so that it divides the chunk"
            )
        stft = CompandedSTFT(
            n_fft=self.n_fft,
            hop=self.stft_hop,
            companding=self.companding,
            scale=self.companding_scale,
            exponent=self.companding_exponent,
            tilt=self.tilt,
        )
        grid = patch_grid(stft.bins, self.chunk_frames, self.strides)
        latents = chunk // latent_spec.hop * latent_spec.tokens_per_frame
        levels = {"channels": self.channels, "strides": self.strides, "blocks": self.blocks}
        width = {"dim": self.channels[-1], "heads": self.heads, "head_dim": self.head_dim}
        upsampler = Upsampler(
            latent_dim=latent_spec.dim,
            dim=self.channels[-1],
            grid=grid,
            latents=latents,
            registers=self.registers,
            direct=self.direct,
            transformer=ChunkTransformer(
                **width,
                tokens=grid[0] * grid[1] + latents + self.registers,
                chunks=1,
                layers=self.upsampler_layers,
                condition_dim=None,
                dropout=0.0,
                zero_init=True,
            ),
            depatchifier=Depatchifier(**levels, condition_dim=None, dropout=0.0),
        )
        beside = latents if self.latents_in_decoder else 0
        denoiser = Denoiser(
            channels=2 * audio_spec.channels,
            width=self.channels[0],
            dim=self.channels[-1],
            bins=stft.bins,
            condition_dim=self.condition_dim,
            registers=self.registers,
            patchifier=Patchifier(**levels, condition_dim=self.condition_dim, dropout=self.dropout, zero_init=True),
            transformer=ChunkTransformer(
                **width,
                tokens=grid[0] * grid[1] + beside + self.registers,
                chunks=_WINDOW,
                layers=self.layers,
                condition_dim=self.condition_dim,
                dropout=self.dropout,
                zero_init=True,
            ),
            depatchifier=Depatchifier(**levels, condition_dim=self.condition_dim, dropout=self.dropout),
        )
        return ConsistencyDecoder(
            representation=stft,
            chunk_frames=self.chunk_frames,
            upsampler=upsampler,
            project=nn.Linear(latent_spec.dim, self.channels[-1]) if self.latents_in_decoder else None,
            envelope=None if self.envelope_weight is None else nn.Conv2d(self.channels[0], audio_spec.channels, 1),
            envelope_weight=self.envelope_weight,
            denoiser=denoiser,
            schedule=NoiseSchedule(self.sigma_min, self.sigma_max, self.rho),
            preconditioning=Preconditioning(self.sigma_min, self.sigma_data),
            sampler=self.sampler.build(),
            latent_spec=latent_spec,
            audio_spec=audio_spec,
        )

    @classmethod
    def example(cls) -> "ConsistencyDecoderConfig":
        """Chunks of 48 samples, a few thousand parameters."""
        return cls(
            n_fft=24,
            stft_hop=6,
            chunk_frames=8,
            channels=(4, 8, 16),
            strides=((2, 2), (2, 2)),
            blocks=(1, 2, 1),
            upsampler_layers=1,
            layers=2,
            heads=2,
            head_dim=8,
            condition_dim=8,
            registers=1,
            direct=2,
            latents_in_decoder=True,
            envelope_weight=1.0,
        )


class ConsistencyDecoder(DenoisingDecoder):
    """Latents to audio; see `ConsistencyDecoderConfig`.

    A chunk is denoised beside the one before and never sees the one behind: whatever that holds, the left result has
    the same bits, and agrees with that of the chunk alone to rounding, since kernels round by the size of the batch.
    At `sigma_min` the decoder returns its input, bit for bit, whatever its weights.
    """

    window = _WINDOW

    def __init__(
        self,
        *,
        representation: CompandedSTFT,
        chunk_frames: int,
        upsampler: Upsampler,
        project: nn.Module | None,
        envelope: nn.Conv2d | None,
        envelope_weight: float | None,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        preconditioning: Preconditioning,
        sampler: Sampler,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles the parts; `project` makes tokens of latents where the denoiser sees these.

        `envelope` makes log-magnitudes of the feature map at full resolution; at first all are that of the data.
        """
        super().__init__()
        self.envelope = envelope
        if envelope is not None and envelope.bias is not None:
            nn.init.zeros_(envelope.weight)
            nn.init.constant_(envelope.bias, math.log(_MEDIAN * float(preconditioning.sigma_data)))
        self._envelope_place = -1 if project is None else -2  # among the features
        self.loss_weights = {} if envelope_weight is None else {"envelope": envelope_weight}
        self.representation, self.chunk_frames = representation, chunk_frames
        self.upsampler, self.project, self.denoiser = upsampler, project, denoiser
        self.schedule, self.preconditioning, self.sampler = schedule, preconditioning, sampler
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.tokens_per_frame = latent_spec.tokens_per_frame
        self.frames_per_chunk = chunk_frames * representation.hop // latent_spec.hop

    def condition(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of n chunks, from full resolution on, their envelope, and the latents as tokens.

        The last two only where there is an envelope, and where the denoiser sees the latents.

        Args:
            hidden: `(batch, in_dim, n * frames_per_chunk * K)`.
            layout: `(batch,)`; changes nothing.

        Returns:
            Tensors `(batch, n, ...)`, each of its own chunk only.
        """
        latents = hidden.transpose(1, 2).unflatten(1, (-1, self.frames_per_chunk * self.tokens_per_frame))
        n = latents.shape[1]
        features = self.upsampler(latents.flatten(0, 1))
        if self.envelope is not None:
            features.append(self.envelope(features[0]))
        if self.project is not None:
            features.append(self.project(latents.flatten(0, 1)))
        return tuple(f.unflatten(0, (-1, n)) for f in features)

    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """One denoising step.

        Args:
            x: noisy spectrograms of w chunks in a row, `(batch, channels, bins, w * chunk_frames)`, w = 1 or 2.
            sigma: `(batch, w)`, the noise level of each.
            features: of the same chunks, from `condition`.

        Returns:
            The denoised spectrograms, as much as `x`, at least float32. A chunk depends on itself and on the one
            before.
        """
        sigma, wide = upcast(sigma), upcast(x)
        noisy = wide.unflatten(-1, (-1, self.chunk_frames)).movedim(3, 1)
        maps = [f.flatten(0, 1) for f in features]
        latents = maps.pop() if self.project is not None else None
        level, scales = sigma[..., None, None, None], self.preconditioning
        skip = scales.skip
        if self.envelope is not None:
            scales = replace(scales, sigma_data=_deviation(maps.pop().unflatten(0, sigma.shape)))
            skip = scales.scaling
        scaled = (scales.input(level) * noisy).flatten(0, 1).to(x.dtype)
        made = self.denoiser(scaled, sigma, maps, latents).unflatten(0, sigma.shape)
        return (skip(level) * noisy + scales.output(level) * made).movedim(1, 3).flatten(3)

    def deviation(self, features: tuple[Tensor, ...]) -> Tensor | None:
        """What the envelope says, where there is one; see `DenoisingDecoder`."""
        if self.envelope is None:
            return None
        return _deviation(features[self._envelope_place]).movedim(1, 3).flatten(3)

    def losses(self, features: tuple[Tensor, ...], clean: Tensor) -> dict[str, Tensor]:
        """The distance of the envelope to the log-magnitudes, where there is one; see `DenoisingDecoder`.

        A frequency weighs as much as there is of the mel scale around it: half of it lies below a fifth of the
        frequencies of audio at 22.05 kHz.
        """
        if self.envelope is None:
            return {}
        envelope = upcast(features[self._envelope_place])
        magnitude = upcast(clean).unflatten(1, (-1, 2)).square().sum(2).sqrt()
        target = (magnitude + _FLOOR).log().unflatten(-1, (-1, self.chunk_frames)).movedim(3, 1)
        distance = (envelope - target).abs().mean((2, 4))
        weights = _mel_density(distance.shape[-1], self.audio_spec.sample_rate).to(distance)
        return {"envelope": (distance * weights).mean(2)}


def _mel_density(bins: int, sample_rate: int) -> Tensor:
    """How much of the mel scale lies in each of `bins` even bands up to half the rate, `(bins,)`, 1 in the mean."""
    edges = torch.linspace(0, sample_rate / 2, bins + 1, dtype=torch.float64)
    return (1 + edges / 700).log().diff() / math.log1p(sample_rate / 1400) * bins


def _deviation(envelope: Tensor) -> Tensor:
    """Log-magnitudes `(batch, chunks, channels, bins, frames)` to deviations of real and imaginary parts.

    Denoising is not to shape them: they would learn to be small where it is not sure.
    """
    return (upcast(envelope).detach().exp() / _MEDIAN).repeat_interleave(2, 2)
