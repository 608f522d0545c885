"""Entry point that registers codecs, generators, objectives, optimizers, schedules and metrics."""

from partita_core import QuantizedCodecConfig
from partita_representation import RepresentationModelConfig

from .evaluation import metrics
from .generation import (
    FlowHeadConfig,
    FlowSupervisionConfig,
    GeneratorConfig,
    LlamaBackboneConfig,
    PretrainedBackboneConfig,
    TokenHeadConfig,
)
from .interop.oobleck import OobleckCodecConfig
from .interop.transformers_codecs import TransformersCodecConfig
from .objectives import (
    AdversarialReconstructionConfig,
    ConsistencyTrainingConfig,
    LatentGenerationConfig,
    LatentQuantizationConfig,
    RepresentationSupervisionConfig,
)
from .training import AdamWConfig, Constant, Cosine, InverseSqrt, MuonConfig, RAdamConfig

__all__ = [
    "AdamWConfig",
    "AdversarialReconstructionConfig",
    "Constant",
    "ConsistencyTrainingConfig",
    "Cosine",
    "FlowHeadConfig",
    "FlowSupervisionConfig",
    "GeneratorConfig",
    "InverseSqrt",
    "LatentGenerationConfig",
    "LatentQuantizationConfig",
    "LlamaBackboneConfig",
    "MuonConfig",
    "OobleckCodecConfig",
    "PretrainedBackboneConfig",
    "QuantizedCodecConfig",
    "RAdamConfig",
    "RepresentationModelConfig",
    "RepresentationSupervisionConfig",
    "TokenHeadConfig",
    "TransformersCodecConfig",
    "metrics",
]
