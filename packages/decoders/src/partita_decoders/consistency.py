"""Consistency decoder: one-step denoising of spectrogram chunks, conditioned on feature maps of the latents."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from partita_blocks import ChunkTransformer, CompandedSTFT, Depatchifier, Patchifier, Preconditioning, patch_grid
from partita_core import (
    AudioSpec,
    DenoisingDecoder,
    LatentSpec,
    NoiseSchedule,
    PartitaError,
    Sampler,
    config_of,
    register,
    set_to_zero,
    upcast,
)
from partita_core.ranges import Extras, Finite, Frames, Heads, Layers, NonNegative, Positive, Range, Samples, Width
from torch import Tensor, nn

from ._denoiser import Denoiser, MeanFeatures, Upsampler
from ._envelope import SpectralEnvelope, to_deviation
from .samplers import TwoStep


@register(
    "decoder/consistency",
    example={
        "n_fft": 24,
        "stft_hop": 6,
        "chunk_frames": 8,
        "channels": (4, 8, 16),
        "strides": ((2, 2), (2, 2)),
        "blocks": (1, 2, 1),
        "upsampler_layers": 1,
        "layers": 2,
        "heads": 2,
        "head_dim": 8,
        "condition_dim": 8,
        "registers": 1,
        "direct": 2,
        "latents_in_decoder": True,
        "envelope_weight": 1.0,
    },
)
class ConsistencyDecoder(DenoisingDecoder):
    """Consistency model of pairs of chunks, conditioned on feature maps of the latents (Music2Latent2).

    The architecture is that of arXiv 2501.17578, with the sizes of CoDiCodec (arXiv 2509.09836), since its own are not
    known. A chunk of `chunk_frames * stft_hop` samples is one or more frames of latents.

    A chunk is denoised together with the chunk before it and never depends on a later one: the left result is the same
    bit for bit whatever the right chunk is, and agrees with that of the chunk alone up to rounding, since kernels round
    differently for different batch sizes. At `sigma_min` the decoder returns its input bit for bit for all weights.

    Args:
        latent_spec: format of the latents.
        audio_spec: format of the output audio. The network does not depend on the channel layout: use a single layout.
        n_fft: window and FFT size of the spectrogram in samples.
        stft_hop: hop of the spectrogram in samples.
        companding: compand magnitudes ("polar"), or real and imaginary parts separately ("component").
        companding_scale: scale of the companding; see `CompandedSTFT`.
        companding_exponent: exponent of the companding; see `CompandedSTFT`.
        chunk_frames: number of spectrogram frames per chunk.
        channels: width of each level of convolutions, from full resolution on; the last is that of both transformers.
        strides: (frequency, time) downsampling factors between the levels.
        blocks: number of residual blocks of each level.
        upsampler_layers: number of transformer blocks from latents to feature maps.
        layers: number of transformer blocks of the denoiser.
        heads: number of attention heads.
        head_dim: width of each attention head.
        condition_dim: width of the embedding of the noise level.
        registers: number of additional learned tokens per chunk in both transformers.
        latents_in_decoder: add the latents as tokens to the denoiser's transformer.
        sigma_min: smallest noise level, at which the decoder returns its input.
        sigma_max: largest noise level, at which decoding starts.
        sigma_data: standard deviation of companded spectrograms.
        rho: exponent of the noise schedule.
        sampler: default sampler.

        Ours (not published):
        tilt: boost of high frequencies in the spectrogram, in dB per octave; 0 for none.
        direct: channels per position of the coarsest feature map that a linear map computes from all latents of a
            chunk, in parallel to attention; None for no such map. See `SummaryEncoder`.
        local: for latents in temporal order: compute each column of that map from the latents of its time only.
        envelope_weight: weight of the loss of a spectral envelope; None for no envelope. The envelope is the magnitude
            of each point of the spectrogram, predicted from the feature maps with its own loss. It replaces
            `sigma_data`, so that denoising starts from noise of this spectrum. Magnitudes span four orders of
            magnitude, and quiet ones have little weight in consistency training: runs of some thousand steps learn
            little of them otherwise.
        refines: add features of a mean to the finest feature map; for the network of a `LinearMeanDecoder`.
        noise_passes: with an envelope, let noise of its deviation pass at high levels, which is right for a single step
            of a consistency model. Otherwise the skip connection is that of a denoiser of least squared error.

    Raises:
        PartitaError: a chunk is not a multiple of the encoder's hop, or the strides do not divide its spectrogram.
    """

    window = 2  # the chunk that is generated, and the one before

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        n_fft: Samples = 2048,
        stft_hop: Samples = 512,
        companding: Literal["polar", "component"] = "polar",
        companding_scale: Positive = 0.34,
        companding_exponent: Annotated[float, Range(0, 1, open_low=True)] = 0.65,
        tilt: Finite = 0.0,
        chunk_frames: Frames = 64,
        channels: tuple[Width, ...] = (64, 128, 256, 512),
        strides: tuple[tuple[Samples, Samples], ...] = ((4, 2), (2, 2), (2, 2)),
        blocks: tuple[Layers, ...] = (3, 3, 3, 1),
        upsampler_layers: Layers = 12,
        layers: Layers = 12,
        heads: Heads = 4,
        head_dim: Width = 128,
        condition_dim: Width = 512,
        registers: Extras = 0,
        direct: Width | None = None,
        latents_in_decoder: bool = False,
        local: bool = False,
        envelope_weight: NonNegative | None = None,
        refines: bool = False,
        noise_passes: bool = True,
        sigma_min: Positive = 0.002,
        sigma_max: Positive = 80.0,
        sigma_data: Positive = 0.5,
        rho: Positive = 7.0,
        sampler: Sampler = TwoStep(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__()
        chunk = chunk_frames * stft_hop
        if chunk % latent_spec.hop:
            raise PartitaError(
                f"a chunk of the consistency decoder is {chunk_frames} * {stft_hop} = {chunk} samples, the "
                f"encoder's hop is {latent_spec.hop}; choose chunk_frames and stft_hop so that it divides the chunk"
            )
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.tokens_per_frame = latent_spec.tokens_per_frame
        self.chunk_frames, self.frames_per_chunk = chunk_frames, chunk // latent_spec.hop
        self.schedule = NoiseSchedule(sigma_min, sigma_max, rho)
        self.preconditioning = Preconditioning(sigma_min, sigma_data)
        self.sampler = sampler
        self.refines, self.noise_passes = refines, noise_passes
        self.loss_weights = {} if envelope_weight is None else {"envelope": envelope_weight}
        self._envelope_index = -2 if latents_in_decoder else -1  # among the features
        stft = CompandedSTFT(
            n_fft=n_fft,
            hop=stft_hop,
            companding=companding,
            scale=companding_scale,
            exponent=companding_exponent,
            tilt=tilt,
        )
        rows, columns = grid = patch_grid(stft.bins, chunk_frames, strides)
        latents, dim = self.frames_per_chunk * latent_spec.tokens_per_frame, channels[-1]
        levels: dict[str, Any] = {"channels": channels, "strides": strides, "blocks": blocks, "dropout": 0.0}
        attention: dict[str, Any] = {"heads": heads, "head_dim": head_dim, "dropout": 0.0, "zero_init": True}
        # Layers are built in this order, which decides the weights that a seed gives.
        upsampler = Upsampler(
            latent_dim=latent_spec.dim,
            dim=dim,
            grid=grid,
            latents=latents,
            registers=registers,
            direct=direct,
            local=local,
            transformer=ChunkTransformer(
                dim,
                tokens=rows * columns + latents + registers,
                chunks=1,
                layers=upsampler_layers,
                condition_dim=None,
                **attention,
            ),
            depatchifier=Depatchifier(**levels, condition_dim=None),
        )
        denoiser = Denoiser(
            channels=2 * audio_spec.channels,
            width=channels[0],
            dim=dim,
            bins=stft.bins,
            condition_dim=condition_dim,
            registers=registers,
            patchifier=Patchifier(**levels, condition_dim=condition_dim, zero_init=True),
            transformer=ChunkTransformer(
                dim,
                tokens=rows * columns + (latents if latents_in_decoder else 0) + registers,
                chunks=self.window,
                layers=layers,
                condition_dim=condition_dim,
                **attention,
            ),
            depatchifier=Depatchifier(**levels, condition_dim=condition_dim),
        )
        project = nn.Linear(latent_spec.dim, dim) if latents_in_decoder else None
        self.envelope = None
        if envelope_weight is not None:
            self.envelope = SpectralEnvelope(
                channels[0], audio_spec.channels, sample_rate=audio_spec.sample_rate, sigma_data=sigma_data
            )
        self.mean_features = MeanFeatures(audio_spec.channels, channels[0]) if refines else None
        self.representation, self.upsampler, self.project, self.denoiser = stft, upsampler, project, denoiser

    def condition(self, hidden: Tensor, layout: Tensor, mean: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute the features of n chunks: feature maps, from full resolution on, envelope, and latents as tokens.

        The envelope is included only if there is one, the latents only if the denoiser takes them.

        Args:
            hidden: latents `(batch, in_dim, n * frames_per_chunk * K)`.
            layout: channel layouts `(batch,)`, which are not used.
            mean: spectrograms of a mean `(batch, n, channels, bins, frames)`, for a decoder that refines it.

        Returns:
            Tensors `(batch, n, ...)`; each chunk's depend only on its own latents.
        """
        latents = hidden.transpose(1, 2).unflatten(1, (-1, self.frames_per_chunk * self.tokens_per_frame))
        n = latents.shape[1]
        features = self.upsampler(latents.flatten(0, 1))
        if self.mean_features is not None:
            if mean is None:
                raise PartitaError("this decoder refines a mean; build it as the network of decoder/linear_path")
            features[0] = features[0] + self.mean_features(mean.flatten(0, 1)).to(features[0].dtype)
        if self.envelope is not None:
            features.append(self.envelope(features[0]))
        if self.project is not None:
            features.append(self.project(latents.flatten(0, 1)))
        return tuple(f.unflatten(0, (-1, n)) for f in features)

    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """Denoise one or two consecutive chunks in one step.

        Args:
            x: noisy spectrograms of w chunks, `(batch, channels, bins, w * chunk_frames)`, with w = 1 or 2.
            sigma: noise level of each chunk, `(batch, w)`.
            features: features of the same chunks, from `condition`.

        Returns:
            Denoised spectrograms of the shape of `x`, at least float32. Each chunk depends on itself and on the chunk
            before.
        """
        sigma, wide = upcast(sigma), upcast(x)
        noisy = wide.unflatten(-1, (-1, self.chunk_frames)).movedim(3, 1)
        maps = [f.flatten(0, 1) for f in features]
        latents = maps.pop() if self.project is not None else None
        level, scales = sigma[..., None, None, None], self.preconditioning
        skip = scales.skip
        if self.envelope is not None:
            scales = replace(scales, sigma_data=to_deviation(maps.pop().unflatten(0, sigma.shape)))
            skip = scales.scaling if self.noise_passes else scales.skip
        scaled = (scales.input(level) * noisy).flatten(0, 1).to(x.dtype)
        made = self.denoiser(scaled, sigma, maps, latents).unflatten(0, sigma.shape)
        return (skip(level) * noisy + scales.output(level) * made).movedim(1, 3).flatten(3)

    def start_at_zero(self) -> None:
        """Set the output of the denoising network to zero, so that the skip connection is left; see `Role`."""
        set_to_zero(self.denoiser.head)

    def deviation(self, features: tuple[Tensor, ...]) -> Tensor | None:
        """Standard deviation of each point by the envelope, or None without one; see `DenoisingDecoder`."""
        if self.envelope is None:
            return None
        return to_deviation(features[self._envelope_index]).movedim(1, 3).flatten(3)

    def losses(self, features: tuple[Tensor, ...], clean: Tensor) -> dict[str, Tensor]:
        """Loss of the envelope, if there is one; see `DenoisingDecoder` and `SpectralEnvelope.loss`."""
        if self.envelope is None:
            return {}
        return {"envelope": self.envelope.loss(features[self._envelope_index], clean)}


ConsistencyDecoderConfig = config_of(ConsistencyDecoder)
