"""Recipes for generation in the latent space of a trained codec, as in F3-Tokenizer (arXiv 2606.06357).

The generation of normalized latents is published. The language model with a flow head per patch of two frames, at
12.5 Hz, is from a secondary source; sizes and training are ours (docs/provenance.md). Parameter counts are for latents
of 64 dimensions.

The argument is the name of a codec, or of a representation model, as `load_model` takes it. A codec with codes is
modeled by its codes, any other by its continuous latents. The condition is the column `caption`; set `data.texts` for
another one.
"""

from fractions import Fraction
from typing import Any

from partita_core import LatentSpec

from partita.data import DataConfig
from partita.data.texts import TextTask
from partita.generation import (
    FlowHeadConfig,
    GenerationHeadConfig,
    GeneratorConfig,
    LlamaBackboneConfig,
    TokenHeadConfig,
    codec_and_encoder,
)
from partita.model_loading import load_model
from partita.objectives import LatentGenerationConfig
from partita.training import AdamWConfig, Cosine, RunConfig, TrainerConfig

# Target number of language model steps per second: 25 Hz in pairs.
_STEP_RATE = Fraction(25, 2)

_CAPTIONS = (TextTask(prompt="", answer="{caption}"),)


def generation_base(codec: str) -> RunConfig:
    """A language model of 24 layers of width 1024 with a flow head of 12, 559 M parameters, for several GPUs."""
    adamw = AdamWConfig(lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, schedule=Cosine(warmup_steps=5000))
    return RunConfig(
        codec=codec,
        model=GeneratorConfig(
            _head(codec, width=1024, layers=12, heads=16),
            LlamaBackboneConfig(width=1024, layers=24, heads=16, mlp_width=4096),
        ),
        objective=LatentGenerationConfig(),
        data=DataConfig(crop_seconds=20.0, batch_size=64, num_workers=8, augmentation=None, texts=_CAPTIONS),
        trainer=TrainerConfig(
            steps=500_000,
            optimizers={"generator": adamw},
            precision="bf16",
            log_every=100,
            evaluate_every=10_000,
            evaluate_seconds=600.0,
        ),
    )


def generation_small(codec: str) -> RunConfig:
    """A language model of 8 layers of width 512 with a flow head of 6, 48 M parameters, for a single GPU."""
    adamw = AdamWConfig(lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, schedule=Cosine(warmup_steps=1000))
    return RunConfig(
        codec=codec,
        model=GeneratorConfig(_head(codec, width=512, layers=6, heads=8), LlamaBackboneConfig()),
        objective=LatentGenerationConfig(),
        data=DataConfig(crop_seconds=10.0, batch_size=32, num_workers=8, augmentation=None, texts=_CAPTIONS),
        trainer=TrainerConfig(
            steps=100_000,
            optimizers={"generator": adamw},
            precision="bf16",
            log_every=100,
            evaluate_every=5000,
            evaluate_seconds=300.0,
        ),
    )


def generation_tiny(codec: str) -> RunConfig:
    """A language model of 4 layers of width 128 with a flow head of 2, 1.4 M parameters: minutes on two CPU cores.

    That is for stored latents; on audio, the frozen encoder takes most of the time.
    """
    adamw = AdamWConfig(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, schedule=Cosine(warmup_steps=100))
    return RunConfig(
        codec=codec,
        model=GeneratorConfig(
            _head(codec, width=128, layers=2, heads=2),
            LlamaBackboneConfig(width=128, layers=4, heads=4, mlp_width=384),
        ),
        objective=LatentGenerationConfig(),
        data=DataConfig(crop_seconds=4.0, batch_size=16, num_workers=0, augmentation=None, texts=_CAPTIONS),
        trainer=TrainerConfig(steps=3000, optimizers={"generator": adamw}, ema_decay=0.995, evaluate_seconds=60.0),
    )


def _head(codec: str, **sizes: Any) -> GenerationHeadConfig:
    """Head for tokens if the codec has codes and there is no representation encoder, else a flow head of `sizes`."""
    plain, encoder = codec_and_encoder(load_model(codec))
    if plain.latent_spec.codebook_sizes and encoder is None:
        return TokenHeadConfig()
    return FlowHeadConfig(patch=_patch(plain.latent_spec), **sizes)


def _patch(spec: LatentSpec) -> int:
    """Number of frames per patch for about 12.5 steps per second."""
    return max(1, round(spec.frame_rate / _STEP_RATE))
