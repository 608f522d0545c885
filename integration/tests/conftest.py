"""A data set of noise bursts and tones, and runs of a few thousand parameters, for all tests of this package."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from partita.data import DataConfig
from partita.training import (
    AdversarialReconstructionConfig,
    OptimizerConfig,
    RunConfig,
    TrainerConfig,
    train,
)
from partita_bottlenecks import VAEConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig
from partita_losses import GradientBalancerConfig

RATE = 8000


def write_tones(folder: Path, count: int, seconds: float = 0.5, channels: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(count)
    t = torch.arange(int(seconds * RATE)) / RATE
    for i in range(count):
        tone = 0.3 * torch.sin(2 * math.pi * (200 + 150 * i) * t)
        noise = 0.1 * torch.randn(channels, len(t), generator=generator)
        soundfile.write(folder / f"tone_{i}.wav", (tone + noise).T.numpy(), RATE, subtype="FLOAT")


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder / "train", 6)
    write_tones(folder / "validation", 2)
    write_tones(folder / "test", 3)
    return folder


def tiny_config(*, adversarial: bool = False, **trainer) -> RunConfig:
    layouts = (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE)
    model = AutoencoderConfig(
        AudioSpec(RATE, 2, layouts), 4, GenAEEncoderConfig.example(), VAEConfig(), GenAEDecoderConfig.example()
    )
    objective = AdversarialReconstructionConfig.example()
    if adversarial:
        objective = replace(objective, balancer=GradientBalancerConfig())
    else:
        objective = replace(objective, discriminator=None, weights={"stft": 1.0, "mel": 1.5})
    adamw = OptimizerConfig(lr=1e-2, schedule="cosine")
    settings = {"steps": 6, "log_every": 1, "evaluate_seconds": 1.0, "ema_decay": 0.9, **trainer}
    return RunConfig(
        model=model,
        objective=objective,
        data=DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0),
        trainer=TrainerConfig(optimizers={"generator": adamw, "discriminator": adamw}, **settings),
    )


@pytest.fixture(scope="session")
def config():
    return tiny_config


@pytest.fixture(scope="session")
def run(tones, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config(), data=tones, output=folder, recipe="tiny", progress=False)
    return folder
