"""Metrics of this package: spectral, waveform, perceptual, periodicity, chunks. Importing it registers them."""

from .chunks import Drift, DriftConfig, SeamExcess, SeamExcessConfig
from .perceptual import ESTOI, PESQ, STOI, ESTOIConfig, PESQConfig, STOIConfig, ViSQOL, ViSQOLConfig
from .periodicity import FrameBuzz, FrameBuzzConfig
from .spectral import (
    LogMelL1,
    LogMelL1Config,
    LogSpectralDistance,
    LogSpectralDistanceConfig,
    MelCepstralDistortion,
    MelCepstralDistortionConfig,
    MultiScaleMelDistance,
    MultiScaleMelDistanceConfig,
    STFTDistance,
    STFTDistanceConfig,
)
from .waveform import (
    SISDR,
    LoudnessError,
    LoudnessErrorConfig,
    PhaseError,
    PhaseErrorConfig,
    SISDRConfig,
    StereoImageError,
    StereoImageErrorConfig,
)

__all__ = [
    "ESTOI",
    "PESQ",
    "SISDR",
    "STOI",
    "Drift",
    "DriftConfig",
    "ESTOIConfig",
    "FrameBuzz",
    "FrameBuzzConfig",
    "LogMelL1",
    "LogMelL1Config",
    "LogSpectralDistance",
    "LogSpectralDistanceConfig",
    "LoudnessError",
    "LoudnessErrorConfig",
    "MelCepstralDistortion",
    "MelCepstralDistortionConfig",
    "MultiScaleMelDistance",
    "MultiScaleMelDistanceConfig",
    "PESQConfig",
    "PhaseError",
    "PhaseErrorConfig",
    "SISDRConfig",
    "STFTDistance",
    "STFTDistanceConfig",
    "STOIConfig",
    "SeamExcess",
    "SeamExcessConfig",
    "StereoImageError",
    "StereoImageErrorConfig",
    "ViSQOL",
    "ViSQOLConfig",
]
