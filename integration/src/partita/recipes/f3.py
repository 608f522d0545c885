"""Recipes for the autoencoder of F3-Tokenizer (arXiv 2606.06357): SpectroStream with a noise-regularized bottleneck.

The bottleneck, which replaces a KL term, is published. Training follows an open reimplementation of SpectroStream
(arXiv 2508.05207) as far as it is known; the losses are ours (docs/provenance.md). Latents have 64 dimensions at 25 Hz
in all recipes. Another bottleneck is one override: `model.bottleneck=vae`.
"""

from dataclasses import replace

from partita_bottlenecks import NoiseRegularizedConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import SpectroStreamDecoderConfig
from partita_encoders import SpectroStreamEncoderConfig
from partita_losses import ComplexSTFTDiscriminatorsConfig, MultiResolutionSTFTConfig, MultiScaleMelConfig

from partita.data import Augmentation, DataConfig
from partita.objectives import AdversarialReconstructionConfig
from partita.training import AdamWConfig, Constant, Cosine, RunConfig, TrainerConfig

_MONO_24 = AudioSpec(24_000, 1, (ChannelLayout.MONO,))
# These networks have no layout input; mono is encoded as two equal channels, mid/side as left and right.
_STEREO_48 = AudioSpec(48_000, 2, (ChannelLayout.STEREO,))
_MONO_16 = AudioSpec(16_000, 1, (ChannelLayout.MONO,))

# 240 bins are half of the 480 at 48 kHz, so one stage does not downsample bins.
_STRIDES_24 = ((1, 2), (1, 2), (1, 3), (1, 2), (1, 2), (2, 1), (2, 1))
_STRIDES_TINY = ((1, 4), (1, 4), (1, 2), (2, 1), (2, 1))
_CROP_SECONDS = 1.28
# All crops at the same level; a mono model is trained on the mean of two channels.
_LEVELED = Augmentation(
    stereo=1.0,
    mid_side=0.0,
    mono_average=1.0,
    mono_channel=0.0,
    pseudo_stereo=0.0,
    swap=0.0,
    switch_target=0.0,
    flip=0.0,
    level_range_db=0.0,
)


def f3_base() -> RunConfig:
    """F3's autoencoder at full width: 24 kHz mono, 64 channels at 25 Hz, 5.9 M + 23.4 M parameters.

    Optimizers, batches, crops and levels are those of an open reimplementation of SpectroStream. Losses are ours: STFT
    and mel distances, and the complex-STFT discriminators of EnCodec. As there, feature matching, from which phase is
    learned, has a hundred times the weight of the adversarial loss.
    """
    encoder = SpectroStreamEncoderConfig(stft_hop=240, strides=_STRIDES_24)
    decoder = SpectroStreamDecoderConfig(stft_hop=240, strides=_STRIDES_24[::-1])
    adam = AdamWConfig(lr=1e-4, betas=(0.5, 0.9), weight_decay=0.0, schedule=Constant(warmup_steps=1000))
    return RunConfig(
        model=AutoencoderConfig(_MONO_24, 64, encoder, NoiseRegularizedConfig(), decoder),
        objective=AdversarialReconstructionConfig(
            losses={
                "stft": MultiResolutionSTFTConfig(),
                "mel": MultiScaleMelConfig(
                    num_mels=(8, 16, 32, 64, 64, 64), win_lengths=(64, 128, 256, 512, 1024, 2048)
                ),
            },
            weights={"stft": 1.0, "mel": 1.0, "adversarial": 0.1, "feature_matching": 10.0},
            discriminator=ComplexSTFTDiscriminatorsConfig(
                n_ffts=(4096, 2048, 1024, 512, 256, 128), hops=(2048, 1024, 512, 256, 128, 64), channels=32
            ),
        ),
        data=DataConfig(crop_seconds=_CROP_SECONDS, batch_size=64, num_workers=8, augmentation=_LEVELED),
        trainer=TrainerConfig(
            steps=500_000,
            optimizers={
                "generator": replace(adam, clip=1e3),
                "discriminator": replace(adam, clip=10.0),
            },
            precision="bf16",
            log_every=100,
            evaluate_every=10_000,
            statistics_seconds=1800.0,
        ),
    )


def f3_48khz() -> RunConfig:
    """F3's autoencoder for 48 kHz stereo, 8.8 M + 34.7 M parameters: SpectroStream with 64 latent channels."""
    encoder, decoder = SpectroStreamEncoderConfig(), SpectroStreamDecoderConfig()
    return replace(f3_base(), model=AutoencoderConfig(_STEREO_48, 64, encoder, NoiseRegularizedConfig(), decoder))


def f3_small() -> RunConfig:
    """F3's autoencoder at half width for a single GPU: 24 kHz mono, 1.5 M + 5.9 M parameters, batches of 16.

    Augmentation of level, polarity and channels is ours.
    """
    base = f3_base()
    encoder = SpectroStreamEncoderConfig(stft_hop=240, width=16, strides=_STRIDES_24)
    decoder = SpectroStreamDecoderConfig(stft_hop=240, width=32, strides=_STRIDES_24[::-1])
    return replace(
        base,
        model=AutoencoderConfig(_MONO_24, 64, encoder, NoiseRegularizedConfig(), decoder),
        data=replace(base.data, batch_size=16, augmentation=Augmentation()),
        trainer=replace(base.trainer, steps=50_000, ema_decay=0.999, evaluate_every=2000),
    )


def f3_tiny() -> RunConfig:
    """F3's autoencoder with 1.4 M parameters: 16 kHz mono, trains on two CPU cores in minutes, without discriminators.

    Bins are downsampled in three stages instead of five, by four in the first, which saves most of the time of a step.
    """
    encoder = SpectroStreamEncoderConfig(
        stft_hop=160, width=8, multiples=(1, 2, 4, 8, 10, 10), strides=_STRIDES_TINY, fusion=4
    )
    decoder = SpectroStreamDecoderConfig(
        stft_hop=160, width=8, multiples=(12, 12, 8, 4, 2, 1), strides=_STRIDES_TINY[::-1]
    )
    stft = MultiResolutionSTFTConfig(n_ffts=(1024, 256, 64), win_lengths=(1021, 251, 61), hops=(257, 61, 17))
    mel = MultiScaleMelConfig(num_mels=(16, 64, 64), win_lengths=(128, 512, 1024))
    adamw = AdamWConfig(lr=2e-3, schedule=Cosine(warmup_steps=50), betas=(0.9, 0.99))
    return RunConfig(
        model=AutoencoderConfig(_MONO_16, 64, encoder, NoiseRegularizedConfig(), decoder),
        objective=AdversarialReconstructionConfig(
            losses={"stft": stft, "mel": mel},
            weights={"stft": 1.0, "mel": 1.5},
            discriminator=None,
        ),
        data=DataConfig(crop_seconds=_CROP_SECONDS, batch_size=8, num_workers=1),
        trainer=TrainerConfig(
            steps=3000,
            optimizers={"generator": adamw, "discriminator": AdamWConfig(lr=3e-4)},
            ema_decay=0.995,
        ),
    )
