"""Metrics, one file each: importing this registers them."""

from .base import Metric
from .log_mel_l1 import LogMelL1, LogMelL1Config
from .multi_resolution_stft import MultiResolutionSTFT, MultiResolutionSTFTConfig
from .si_sdr import SISDR, SISDRConfig

__all__ = [
    "SISDR",
    "LogMelL1",
    "LogMelL1Config",
    "Metric",
    "MultiResolutionSTFT",
    "MultiResolutionSTFTConfig",
    "SISDRConfig",
]
