"""Bottlenecks: hidden frames to continuous latents."""

from .adaptive import Adaptive, AdaptiveConfig
from .identity import Identity, IdentityConfig
from .noise_regularized import NoiseRegularized, NoiseRegularizedConfig
from .sigma_vae import SigmaVAE, SigmaVAEConfig
from .soft_norm import SoftNorm, SoftNormConfig
from .tanh import Tanh, TanhConfig
from .vae import VAE, VAEConfig

__all__ = [
    "Adaptive",
    "AdaptiveConfig",
    "Identity",
    "IdentityConfig",
    "NoiseRegularized",
    "NoiseRegularizedConfig",
    "SigmaVAE",
    "SigmaVAEConfig",
    "SoftNorm",
    "SoftNormConfig",
    "Tanh",
    "TanhConfig",
    "VAE",
    "VAEConfig",
]
