"""Metrics of this package, by kind: spectral, waveform, perceptual, chunks. Importing it registers them."""

from .chunks import Drift, DriftConfig, SeamExcess, SeamExcessConfig
from .perceptual import PESQ, STOI, PESQConfig, STOIConfig, ViSQOL, ViSQOLConfig
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
