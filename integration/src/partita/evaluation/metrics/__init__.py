"""Metrics, one file each: importing this registers them."""

from .base import Metric
from .drift import Drift, DriftConfig
from .log_mel_l1 import LogMelL1, LogMelL1Config
from .multi_resolution_stft import MultiResolutionSTFT, MultiResolutionSTFTConfig
from .seam_excess import SeamExcess, SeamExcessConfig
from .si_sdr import SISDR, SISDRConfig

__all__ = [
    "SISDR",
    "Drift",
    "DriftConfig",
    "LogMelL1",
    "LogMelL1Config",
    "Metric",
    "MultiResolutionSTFT",
    "MultiResolutionSTFTConfig",
    "SISDRConfig",
    "SeamExcess",
    "SeamExcessConfig",
]
