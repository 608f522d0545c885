"""Samplers for denoising decoders: each is a frozen dataclass of its settings."""

from .autoregressive import Autoregressive
from .independent import Independent
from .overlap import Overlap
from .parallel import Parallel
from .two_step import TwoStep

__all__ = ["Autoregressive", "Independent", "Overlap", "Parallel", "TwoStep"]
