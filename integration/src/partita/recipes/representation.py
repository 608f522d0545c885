"""Recipes for representation encoders on the latents of a codec, as in F3-Tokenizer (arXiv 2606.06357).

The frozen latents, RQ-MTP and supervision through a frozen language model are published. Sizes, weights and training
are ours; docs/provenance.md lists both. Parameter counts are for latents of 64 dimensions, without a language model.

The arguments are the name of the codec and that of a frozen language model, a folder or a repository on the hub;
without one there is no supervision by text. `partita llm` trains a small one on the texts of a data set.
"""

from dataclasses import replace
from typing import Any

from partita_core import Config
from partita_representation import (
    CausalRepresentationConfig,
    FrozenLLMConfig,
    RepresentationModelConfig,
    RQMTPConfig,
    SwiGLUAdapterConfig,
)

from partita.data import DataConfig
from partita.data.texts import SPEECH_AND_SOUND_TEXTS
from partita.generation import FlowSupervisionConfig
from partita.objectives import RepresentationSupervisionConfig
from partita.training import AdamWConfig, Cosine, RunConfig, TrainerConfig


def representation_base(codec: str, llm: str | None = None) -> RunConfig:
    """24 layers of width 1024, 8192 codes, 403 M parameters: the size of dots.tts, as that of F3 is not published.

    In addition, a flow head of 6 layers is trained to generate the next patch of latents from the features.
    """
    return _run(
        codec,
        llm,
        encoder=CausalRepresentationConfig(width=1024, layers=24, heads=16),
        rq=RQMTPConfig(codes=8192),
        flow=FlowSupervisionConfig(),
        data=DataConfig(crop_seconds=10.0, batch_size=64, num_workers=8, augmentation=None),
        trainer=TrainerConfig(
            steps=200_000,
            optimizers={"generator": _adamw(lr=3e-4, warmup_steps=5000)},
            precision="bf16",
            log_every=100,
            evaluate_every=10_000,
            evaluate_seconds=600.0,
        ),
    )


def representation_small(codec: str, llm: str | None = None) -> RunConfig:
    """8 layers of width 512 for a single GPU, 34 M parameters."""
    return _run(
        codec,
        llm,
        encoder=CausalRepresentationConfig(),
        rq=RQMTPConfig(),
        data=DataConfig(crop_seconds=10.0, batch_size=32, num_workers=8, augmentation=None),
        trainer=TrainerConfig(
            steps=50_000,
            optimizers={"generator": _adamw(lr=5e-4, warmup_steps=1000)},
            precision="bf16",
            ema_decay=0.999,
            log_every=100,
            evaluate_every=2000,
            evaluate_seconds=300.0,
        ),
    )


def representation_tiny(codec: str, llm: str | None = None) -> RunConfig:
    """4 layers of width 192, 2.4 M parameters: trains on two CPU cores in minutes."""
    return _run(
        codec,
        llm,
        encoder=CausalRepresentationConfig(width=192, layers=4, heads=4),
        rq=RQMTPConfig(codes=512),
        data=DataConfig(crop_seconds=5.0, batch_size=16, num_workers=1, augmentation=None),
        trainer=TrainerConfig(
            steps=1500,
            optimizers={"generator": _adamw(lr=1e-3, warmup_steps=50)},
            ema_decay=0.99,
            evaluate_seconds=320.0,
        ),
    )


def _run(
    codec: str,
    llm: str | None,
    *,
    encoder: Any,  # CausalRepresentationConfig
    rq: Config,
    flow: Config | None = None,
    data: DataConfig,
    trainer: TrainerConfig,
) -> RunConfig:
    supervisions: dict[str, Config] = {"rq": rq} if flow is None else {"rq": rq, "flow": flow}
    adapter = None
    if llm is not None:
        supervisions["llm"], adapter = FrozenLLMConfig(), SwiGLUAdapterConfig(hidden=4 * encoder.width)
        data = replace(data, texts=SPEECH_AND_SOUND_TEXTS)
    return RunConfig(
        codec=codec,
        model=RepresentationModelConfig(encoder, adapter, llm),
        objective=RepresentationSupervisionConfig(supervisions, dict.fromkeys(supervisions, 1.0)),
        data=data,
        trainer=trainer,
    )


def _adamw(*, lr: float, warmup_steps: int) -> AdamWConfig:
    return AdamWConfig(lr=lr, betas=(0.9, 0.98), weight_decay=0.01, schedule=Cosine(warmup_steps))
