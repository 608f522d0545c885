"""Minimal parts for every role, for tests of code that works on parts.

They pass the conformance suites. They are registered as components only within `registered()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from partita_core import registry
from partita_core.registry import Config

from .bottlenecks import NoisyBottleneck, NoisyConfig, RoundingConfig, RoundingQuantizer
from .codec import BlockCodec, autoencoder, blocks
from .decoders import MeanSquare, MeanSquareConfig, TransposedConfig, TransposedDecoder
from .denoising import DenoisingConfig, Lapped, OneStep, TinyDenoiser
from .discriminators import StridedDiscriminator, StridedDiscriminatorConfig
from .encoders import CumulativeConfig, CumulativeEncoder, StridedConfig, StridedEncoder
from .representations import AveragingConfig, AveragingEncoder, NeighboringConfig, NeighboringEncoder

__all__ = [
    "autoencoder",
    "AveragingConfig",
    "AveragingEncoder",
    "BlockCodec",
    "blocks",
    "CONFIGS",
    "CumulativeConfig",
    "CumulativeEncoder",
    "DenoisingConfig",
    "Lapped",
    "MeanSquare",
    "MeanSquareConfig",
    "NeighboringConfig",
    "NeighboringEncoder",
    "NoisyBottleneck",
    "NoisyConfig",
    "OneStep",
    "registered",
    "RoundingConfig",
    "RoundingQuantizer",
    "StridedConfig",
    "StridedDiscriminator",
    "StridedDiscriminatorConfig",
    "StridedEncoder",
    "TinyDenoiser",
    "TransposedConfig",
    "TransposedDecoder",
]

CONFIGS: tuple[type[Config], ...] = (
    StridedConfig,
    CumulativeConfig,
    NoisyConfig,
    RoundingConfig,
    TransposedConfig,
    DenoisingConfig,
    MeanSquareConfig,
    AveragingConfig,
    NeighboringConfig,
    StridedDiscriminator.Config,  # pyright: ignore[reportAttributeAccessIssue]
)
for _config in CONFIGS:
    del registry._registry[_config.tag]


@contextmanager
def registered() -> Iterator[None]:
    """Context in which the dummies are registered as components."""
    registry._registry.update({config.tag: config for config in CONFIGS})
    try:
        yield
    finally:
        for config in CONFIGS:
            registry._registry.pop(config.tag, None)
