"""Objectives and the trainer."""

from .adversarial import AdversarialReconstruction, AdversarialReconstructionConfig
from .consistency import ConsistencyTraining, ConsistencyTrainingConfig
from .generation import LatentGeneration, LatentGenerationConfig
from .interruption import Interrupted
from .latent_quantization import LatentQuantization, LatentQuantizationConfig
from .nonfinite import NonFiniteError
from .objective import Objective, TrainState
from .optimization import EMA, OptimizerConfig
from .representation import RepresentationSupervision, RepresentationSupervisionConfig
from .run import RunConfig, RunFolder, TrainerConfig
from .trainer import train
from .watch import WatchConfig

__all__ = [
    "EMA",
    "AdversarialReconstruction",
    "AdversarialReconstructionConfig",
    "ConsistencyTraining",
    "ConsistencyTrainingConfig",
    "Interrupted",
    "LatentGeneration",
    "LatentGenerationConfig",
    "LatentQuantization",
    "LatentQuantizationConfig",
    "NonFiniteError",
    "Objective",
    "OptimizerConfig",
    "RepresentationSupervision",
    "RepresentationSupervisionConfig",
    "RunConfig",
    "RunFolder",
    "TrainState",
    "TrainerConfig",
    "WatchConfig",
    "train",
]
