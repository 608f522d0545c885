"""Objectives and the trainer."""

from .adversarial import AdversarialReconstruction, AdversarialReconstructionConfig
from .consistency import ConsistencyTraining, ConsistencyTrainingConfig
from .latent_quantization import LatentQuantization, LatentQuantizationConfig
from .objective import Objective, TrainState
from .optimization import EMA, OptimizerConfig
from .run import RunConfig, RunFolder, TrainerConfig
from .trainer import train

__all__ = [
    "EMA",
    "AdversarialReconstruction",
    "AdversarialReconstructionConfig",
    "ConsistencyTraining",
    "ConsistencyTrainingConfig",
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
