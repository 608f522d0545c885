"""Losses for audio autoencoders: spectral, mel, adversarial with discriminators, consistency, flow, and a balancer."""

from .adversarial import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    feature_matching_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
)
from .balancer import GradientBalancer, GradientBalancerConfig
from .companded_stft import CompandedSTFTLoss, CompandedSTFTLossConfig
from .complex_stft import ComplexSTFTDiscriminators, ComplexSTFTDiscriminatorsConfig
from .consistency import draw_times, pseudo_huber, step_size
from .flow import euler_flow, flow_interpolation, flow_matching_loss, flow_velocity, guided
from .latent import LatentDiscriminator, LatentDiscriminatorConfig
from .loudness import Loudness, LoudnessConfig
from .multi_band_stft import MultiBandSTFTDiscriminators, MultiBandSTFTDiscriminatorsConfig
from .multi_period import MultiPeriodDiscriminators, MultiPeriodDiscriminatorsConfig
from .multi_resolution_stft import MultiResolutionSTFT, MultiResolutionSTFTConfig
from .multi_scale import MultiScaleDiscriminators, MultiScaleDiscriminatorsConfig
from .multi_scale_mel import MultiScaleMel, MultiScaleMelConfig
from .spectral import SpectralLoss, SpectralScale, spectral_distance
from .waveform import LogError, LogErrorConfig, RelativeL1, RelativeL1Config, WaveformL1, WaveformL1Config

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialLoss",
    "CompandedSTFTLoss",
    "CompandedSTFTLossConfig",
    "ComplexSTFTDiscriminators",
    "ComplexSTFTDiscriminatorsConfig",
    "GradientBalancer",
    "GradientBalancerConfig",
    "LatentDiscriminator",
    "LatentDiscriminatorConfig",
    "LogError",
    "LogErrorConfig",
    "Loudness",
    "LoudnessConfig",
    "MultiBandSTFTDiscriminators",
    "MultiBandSTFTDiscriminatorsConfig",
    "MultiPeriodDiscriminators",
    "MultiPeriodDiscriminatorsConfig",
    "MultiResolutionSTFT",
    "MultiResolutionSTFTConfig",
    "MultiScaleDiscriminators",
    "MultiScaleDiscriminatorsConfig",
    "MultiScaleMel",
    "MultiScaleMelConfig",
    "RelativeL1",
    "RelativeL1Config",
    "SpectralLoss",
    "SpectralScale",
    "WaveformL1",
    "WaveformL1Config",
    "draw_times",
    "euler_flow",
    "feature_matching_loss",
    "flow_interpolation",
    "flow_matching_loss",
    "flow_velocity",
    "guided",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "pseudo_huber",
    "spectral_distance",
    "step_size",
]
