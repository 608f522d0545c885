"""Losses for audio autoencoders: spectral, mel, adversarial with discriminators, consistency, flow, and a balancer."""

from .adversarial import feature_matching_loss, hinge_discriminator_loss, hinge_generator_loss
from .balancer import GradientBalancer, GradientBalancerConfig
from .complex_stft import ComplexSTFTDiscriminators, ComplexSTFTDiscriminatorsConfig, DiscriminatorOutput
from .consistency import draw_times, pseudo_huber, step_size
from .flow import euler_flow, flow_interpolation, flow_matching_loss, flow_velocity, guided
from .latent import LatentDiscriminator, LatentDiscriminatorConfig
from .multi_resolution_stft import MultiResolutionSTFT, MultiResolutionSTFTConfig
from .multi_scale_mel import MultiScaleMel, MultiScaleMelConfig
from .spectral import SpectralScale, spectral_distance
from .waveform_l1 import WaveformL1, WaveformL1Config

__all__ = [
    "ComplexSTFTDiscriminators",
    "ComplexSTFTDiscriminatorsConfig",
    "DiscriminatorOutput",
    "GradientBalancer",
    "GradientBalancerConfig",
    "LatentDiscriminator",
    "LatentDiscriminatorConfig",
    "MultiResolutionSTFT",
    "MultiResolutionSTFTConfig",
    "MultiScaleMel",
    "MultiScaleMelConfig",
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
    "pseudo_huber",
    "spectral_distance",
    "step_size",
]
