"""Evaluation: metrics, references and intervals, for any codec."""

from .bootstrap import Bootstrap, Interval
from .evaluate import DEFAULT_METRICS, evaluate
from .metrics import Metric
from .references import bit_rate, low_passed, matched_noise, numbers_per_second, silence
from .results import Clip, Difference, Evaluation, MetricInfo, Speed, System

__all__ = [
    "DEFAULT_METRICS",
    "Bootstrap",
    "Clip",
    "Difference",
    "Evaluation",
    "Interval",
    "Metric",
    "MetricInfo",
    "Speed",
    "System",
    "bit_rate",
    "evaluate",
    "low_passed",
    "matched_noise",
    "numbers_per_second",
    "silence",
]
