"""Training objectives: the losses and phases of each system, independent of the trainer that runs them."""

from .adversarial_reconstruction import AdversarialReconstruction, AdversarialReconstructionConfig
from .consistency_training import ConsistencyTraining, ConsistencyTrainingConfig
from .latent_generation import LatentGeneration, LatentGenerationConfig
from .latent_quantization import LatentQuantization, LatentQuantizationConfig
from .objective import Objective, ObjectiveConfig, TrainState
from .representation_supervision import RepresentationSupervision, RepresentationSupervisionConfig

__all__ = [
    "AdversarialReconstruction",
    "AdversarialReconstructionConfig",
    "ConsistencyTraining",
    "ConsistencyTrainingConfig",
    "LatentGeneration",
    "LatentGenerationConfig",
    "LatentQuantization",
    "LatentQuantizationConfig",
    "Objective",
    "ObjectiveConfig",
    "RepresentationSupervision",
    "RepresentationSupervisionConfig",
    "TrainState",
]
