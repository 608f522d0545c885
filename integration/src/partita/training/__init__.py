"""The trainer: runs any objective on accelerate, with exact resumption."""

from .alarms import AlarmConfig
from .callbacks import Callback
from .ema import EMA
from .interruption import Interrupted
from .nonfinite_guard import NonFiniteError
from .optimizers import AdamWConfig, MuonConfig, OptimizerConfig, RAdamConfig
from .run import RunConfig, RunFolder, TrainerConfig
from .schedules import Constant, Cosine, InverseSqrt, Schedule
from .trainer import train

__all__ = [
    "EMA",
    "AdamWConfig",
    "AlarmConfig",
    "Callback",
    "Constant",
    "Cosine",
    "Interrupted",
    "InverseSqrt",
    "MuonConfig",
    "NonFiniteError",
    "OptimizerConfig",
    "RAdamConfig",
    "RunConfig",
    "RunFolder",
    "Schedule",
    "TrainerConfig",
    "train",
]
