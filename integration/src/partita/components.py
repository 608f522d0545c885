"""Entry point that registers the package's components: codecs, generators, objectives and metrics."""

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

__all__ = [
    "AdversarialReconstructionConfig",
    "ConsistencyTrainingConfig",
    "FlowHeadConfig",
    "FlowSupervisionConfig",
    "GeneratorConfig",
    "LatentGenerationConfig",
    "LatentQuantizationConfig",
    "LlamaBackboneConfig",
    "OobleckCodecConfig",
    "PretrainedBackboneConfig",
    "QuantizedCodecConfig",
    "RepresentationModelConfig",
    "RepresentationSupervisionConfig",
    "TokenHeadConfig",
    "TransformersCodecConfig",
    "metrics",
]
