"""What this package registers: importing it makes its objectives and metrics known by name."""

from .evaluation import metrics
from .interop.oobleck import OobleckCodecConfig
from .quantized import QuantizedCodecConfig
from .training import AdversarialReconstructionConfig, ConsistencyTrainingConfig, LatentQuantizationConfig

__all__ = [
    "AdversarialReconstructionConfig",
    "ConsistencyTrainingConfig",
    "LatentQuantizationConfig",
    "OobleckCodecConfig",
    "QuantizedCodecConfig",
    "metrics",
]
