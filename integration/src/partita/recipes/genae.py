"""Recipes for GenAE (arXiv 2602.15749).

The downsampling of 3360, the kinds of layers and losses, and one model for three channel formats are published. Widths,
depths, weights and training are ours, based on the public configuration of Stable Audio Open; docs/provenance.md lists
both.
"""

from dataclasses import replace
from typing import Any

from partita_bottlenecks import VAEConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig
from partita_losses import (
    MultiResolutionSTFTConfig,
    MultiScaleMelConfig,
)

from partita.data import DataConfig
from partita.objectives import AdversarialReconstructionConfig
from partita.training import AdamWConfig, Cosine, InverseSqrt, OptimizerConfig, RunConfig, TrainerConfig

_AUDIO = AudioSpec(44_100, 2, (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE))

# The first steps of Adam move every weight by the learning rate, whatever the gradient: at the peak rate, a single one
# multiplies the scale of the latents.
_SCHEDULE = InverseSqrt(warmup_steps=1000)
_OPTIMIZERS: dict[str, OptimizerConfig] = {
    "generator": AdamWConfig(schedule=_SCHEDULE),
    "discriminator": AdamWConfig(lr=3e-4, schedule=_SCHEDULE),
}


def genae_base() -> RunConfig:
    """GenAE at full size: 44.1 kHz, three formats, 3360x, 13.125 Hz, 64 channels, 35.4 M + 35.1 M parameters.

    Latent width, parameter count and training are not published. Batches are eight items for each of eight GPUs.
    """
    return RunConfig(
        model=AutoencoderConfig(_AUDIO, 64, GenAEEncoderConfig(), VAEConfig(), GenAEDecoderConfig()),
        objective=AdversarialReconstructionConfig(),
        data=DataConfig(crop_seconds=134_400 / 44_100, batch_size=64, num_workers=8),
        trainer=_trainer(steps=1_000_000),
    )


def genae_36hz() -> RunConfig:
    """GenAE at the second reported rate: 1200x, 36.75 Hz, 34.7 M + 34.4 M parameters.

    Otherwise as `genae_base`. The mel side input enters after the first three stages, so its hop is 120.
    """
    encoder, decoder = GenAEEncoderConfig(strides=(4, 5, 6, 10)), GenAEDecoderConfig(strides=(10, 6, 5, 4))
    base = genae_base()
    return replace(base, model=AutoencoderConfig(_AUDIO, 64, encoder, VAEConfig(), decoder))


def genae_small() -> RunConfig:
    """GenAE with 15 M parameters for a single GPU, to compare variants and for smaller data sets.

    Hop, latents, formats and objective are those of `genae_base`, so that results transfer; widths are halved,
    attention has two layers per side instead of four, and crops are 26 frames.
    """
    widths: dict[str, Any] = {"attention_dim": 256, "attention_layers": 2, "heads": 4}
    encoder = GenAEEncoderConfig(channels=(64, 64, 128, 256, 512), **widths)
    decoder = GenAEDecoderConfig(channels=(512, 256, 128, 64, 64), **widths)
    return RunConfig(
        model=AutoencoderConfig(_AUDIO, 64, encoder, VAEConfig(), decoder),
        objective=AdversarialReconstructionConfig(),
        data=DataConfig(crop_seconds=26 * 3360 / 44_100, batch_size=16, num_workers=8),
        trainer=_trainer(steps=400_000),
    )


def genae_tiny() -> RunConfig:
    """GenAE with 2.9 M parameters that trains on two CPU cores in minutes, without discriminators.

    Hop, latents and formats are those of `genae_base`; widths, depth and crops are small, and the learning rate is
    higher and decays to a twentieth.
    """
    widths: dict[str, Any] = {
        "attention_dim": 128,
        "attention_layers": 1,
        "heads": 4,
        "head_dim": 32,
        "window": 16,
        "mlp_ratio": 2,
    }
    encoder = GenAEEncoderConfig(channels=(16, 32, 64, 128, 192), dilations=(1, 3), mels=96, **widths)
    decoder = GenAEDecoderConfig(channels=(192, 160, 96, 32, 12), dilations=(1, 3), **widths)
    # Every other scale of the full losses, which would otherwise take half of the time of a step.
    stft = MultiResolutionSTFTConfig(n_ffts=(2048, 512, 128), win_lengths=(2039, 509, 127), hops=(509, 127, 31))
    mel = MultiScaleMelConfig(num_mels=(20, 80, 320), win_lengths=(128, 512, 2048))
    adamw = AdamWConfig(lr=2e-3, schedule=Cosine(warmup_steps=50), betas=(0.9, 0.99))
    return RunConfig(
        model=AutoencoderConfig(_AUDIO, 64, encoder, VAEConfig(), decoder),
        objective=AdversarialReconstructionConfig(
            losses={"stft": stft, "mel": mel},
            weights={"stft": 1.0, "mel": 1.5},
            discriminator=None,
        ),
        data=DataConfig(crop_seconds=0.91, batch_size=6, num_workers=1),
        trainer=TrainerConfig(
            steps=3000,
            optimizers={"generator": adamw, "discriminator": AdamWConfig(lr=3e-4)},
            precision="no",  # narrow convolutions at the sample rate, for which bf16 is slower on every CPU
            ema_decay=0.995,
        ),
    )


def _trainer(*, steps: int) -> TrainerConfig:
    return TrainerConfig(
        steps=steps,
        optimizers=_OPTIMIZERS,
        precision="bf16",
        log_every=100,
        evaluate_every=10_000,
        statistics_seconds=1800.0,
    )
