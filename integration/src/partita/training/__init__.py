"""The trainer: runs any objective on accelerate, with exact resumption."""

from .alarms import WatchConfig
from .interruption import Interrupted
from .nonfinite_guard import NonFiniteError
from .optimization import EMA, OptimizerConfig
from .run import RunConfig, RunFolder, TrainerConfig
from .trainer import train

__all__ = [
    "EMA",
    "Interrupted",
    "NonFiniteError",
    "OptimizerConfig",
    "RunConfig",
    "RunFolder",
    "TrainerConfig",
    "WatchConfig",
    "train",
]
