"""What this package registers: importing it makes its objectives and metrics known by name."""

from .evaluation import metrics
from .training import AdversarialReconstructionConfig

__all__ = ["AdversarialReconstructionConfig", "metrics"]
