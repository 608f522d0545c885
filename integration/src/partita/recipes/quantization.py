"""Recipes for quantizing the latents of a trained codec, as in GenAE-VQ (arXiv 2602.15749).

The use of an RVQ for the codes of GenAE is published; that it is trained after the autoencoder, whose networks are
frozen, is from a secondary source. Levels, sizes, losses and training are ours (docs/provenance.md). Parameter counts
are for latents of 64 dimensions, without the codebooks, which are running averages.

The argument is the name of the codec, as `load_codec` takes it. If the tokens of a frame have no order in time
(Music2Latent2), the re-bottleneck, which has temporal context, is left out.
"""

from partita_core import Config
from partita_losses import LatentDiscriminatorConfig
from partita_quantizers import ReBottleneckConfig, ResidualVQConfig

from partita.data import DataConfig
from partita.model_loading import load_codec
from partita.objectives import LatentQuantizationConfig
from partita.training import AdamWConfig, Cosine, InverseSqrt, RunConfig, TrainerConfig


def vq_base(codec: str) -> RunConfig:
    """16 levels of 2048 codes between transformers of width 512, 13.2 M parameters.

    2310 bit/s at the 13.125 frames per second of GenAE.
    """
    adamw = AdamWConfig(schedule=Cosine(warmup_steps=1000))
    return RunConfig(
        codec=codec,
        model=_quantizer(codec, ReBottleneckConfig()),
        objective=LatentQuantizationConfig(),
        data=DataConfig(crop_seconds=6.0, batch_size=32, num_workers=8),
        trainer=TrainerConfig(
            steps=200_000,
            optimizers={
                "generator": adamw,
                "discriminator": AdamWConfig(lr=3e-4, schedule=InverseSqrt(warmup_steps=1000)),
            },
            precision="bf16",
            ema_decay=None,  # codebooks are running averages already
            log_every=100,
            evaluate_every=10_000,
        ),
    )


def vq_pocket(codec: str) -> RunConfig:
    """16 levels of 1024 codes without networks, 0 M parameters: running averages of the latents.

    They are initialized by k-means of all latents of a small data set. 5880 bit/s at the 36.75 frames per second of
    `music_pocket`, and 367.5 bit/s for each level that is kept.
    """
    return RunConfig(
        codec=codec,
        model=ResidualVQConfig(codebook_size=1024, codebook_dim=None, quantizer_dropout=0.0, decay=0.999),
        objective=LatentQuantizationConfig(weights={"latent": 1.0}, discriminator=None, start_tokens=100_000),
        data=DataConfig(crop_seconds=20.0, batch_size=8, num_workers=1, augmentation=None),
        trainer=TrainerConfig(
            steps=500, optimizers={"generator": AdamWConfig(schedule=Cosine(warmup_steps=50))}, ema_decay=None
        ),
    )


def vq_tiny(codec: str) -> RunConfig:
    """16 levels of 1024 codes, 0.36 M parameters, trained on two CPU cores in minutes.

    The frozen encoder takes most of the time.
    """
    quantizer = ResidualVQConfig(codebook_size=1024)
    model = ReBottleneckConfig(quantizer, width=128, layers=1, heads=4, head_dim=32, mlp_ratio=2)
    adamw = AdamWConfig(lr=1e-3, schedule=Cosine(warmup_steps=50))
    return RunConfig(
        codec=codec,
        model=_quantizer(codec, model),
        objective=LatentQuantizationConfig(discriminator=LatentDiscriminatorConfig(channels=64, layers=3)),
        data=DataConfig(crop_seconds=3.05, batch_size=16, num_workers=1),
        trainer=TrainerConfig(
            steps=1500,
            optimizers={
                "generator": adamw,
                "discriminator": AdamWConfig(lr=3e-4, schedule=InverseSqrt(warmup_steps=50)),
            },
            ema_decay=None,
        ),
    )


def _quantizer(codec: str, model: ReBottleneckConfig) -> Config:
    return model if load_codec(codec).latent_spec.ordered else model.quantizer
