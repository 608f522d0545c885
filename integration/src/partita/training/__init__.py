"""Objectives and the trainer."""

from .adversarial import AdversarialReconstruction, AdversarialReconstructionConfig
from .latent_quantization import LatentQuantization, LatentQuantizationConfig
from .objective import Objective, TrainState
from .optimization import EMA, OptimizerConfig
from .run import RunConfig, RunFolder, TrainerConfig
from .trainer import train

__all__ = [
    "EMA",
    "AdversarialReconstruction",
    "AdversarialReconstructionConfig",
    "LatentQuantization",
    "LatentQuantizationConfig",
    "Objective",
    "OptimizerConfig",
    "RunConfig",
    "RunFolder",
    "TrainState",
    "TrainerConfig",
    "train",
]
