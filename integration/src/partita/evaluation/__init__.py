"""Evaluation: metrics, references and intervals, for any codec."""

from .bootstrap import Bootstrap, Interval
from .chunks import by_chunk, chunk_samples, with_sampler
from .evaluate import DEFAULT_METRICS, evaluate
from .latent_effects import Spread, latent_effects, mean_tokens, spread
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
    "Spread",
    "System",
    "bit_rate",
    "by_chunk",
    "chunk_samples",
    "evaluate",
    "latent_effects",
    "low_passed",
    "matched_noise",
    "mean_tokens",
    "numbers_per_second",
    "silence",
    "spread",
    "with_sampler",
]
