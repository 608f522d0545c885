"""Metrics, one file each: importing this registers them."""

from .base import Metric
from .drift import Drift, DriftConfig
from .log_mel_l1 import LogMelL1, LogMelL1Config
from .loudness_error import LoudnessError, LoudnessErrorConfig
from .lsd import LogSpectralDistance, LogSpectralDistanceConfig
from .mcd import MelCepstralDistortion, MelCepstralDistortionConfig
from .multi_resolution_stft import MultiResolutionSTFT, MultiResolutionSTFTConfig
from .multi_scale_mel import MultiScaleMelDistance, MultiScaleMelDistanceConfig
from .pesq import PESQ, PESQConfig
from .phase_error import PhaseError, PhaseErrorConfig
from .seam_excess import SeamExcess, SeamExcessConfig
from .si_sdr import SISDR, SISDRConfig
from .stereo_image_error import StereoImageError, StereoImageErrorConfig
from .stoi import STOI, STOIConfig
from .visqol import ViSQOL, ViSQOLConfig

__all__ = [
    "PESQ",
    "SISDR",
    "STOI",
    "Drift",
    "DriftConfig",
    "LogMelL1",
    "LogMelL1Config",
    "LogSpectralDistance",
    "LogSpectralDistanceConfig",
    "LoudnessError",
    "LoudnessErrorConfig",
    "MelCepstralDistortion",
    "MelCepstralDistortionConfig",
    "Metric",
    "MultiResolutionSTFT",
    "MultiResolutionSTFTConfig",
    "MultiScaleMelDistance",
    "MultiScaleMelDistanceConfig",
    "PESQConfig",
    "PhaseError",
    "PhaseErrorConfig",
    "SISDRConfig",
    "STOIConfig",
    "SeamExcess",
    "SeamExcessConfig",
    "StereoImageError",
    "StereoImageErrorConfig",
    "ViSQOL",
    "ViSQOLConfig",
]
