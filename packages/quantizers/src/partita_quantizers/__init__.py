"""Quantizers: latents to codes and back."""

from .fsq import FSQ, FSQConfig
from .residual import ResidualVQ, ResidualVQConfig

__all__ = ["FSQ", "FSQConfig", "ResidualVQ", "ResidualVQConfig"]
