"""Evaluation: metrics, references and intervals, for any codec."""

from .bootstrap import Bootstrap, Interval
from .chunks import by_chunk, chunk_grid, chunk_samples, with_sampler
from .evaluate import DEFAULT_METRICS, evaluate, named_metrics
from .frechet import Embed, frechet_distance
from .latent_effects import Spread, latent_effects, mean_tokens, spread
from .latent_statistics import (
    ChannelBalance,
    LatentStatistics,
    channel_balance,
    frame_rms,
    latent_statistics,
    latent_vectors,
    with_noise,
)
from .metrics import Metric
from .references import low_passed, matched_noise, silence
from .results import Clip, Difference, Evaluation, FrechetDistances, MetricInfo, Speed, System

__all__ = [
    "DEFAULT_METRICS",
    "Bootstrap",
    "ChannelBalance",
    "Clip",
    "Difference",
    "Embed",
    "Evaluation",
    "FrechetDistances",
    "Interval",
    "LatentStatistics",
    "Metric",
    "MetricInfo",
    "Speed",
    "Spread",
    "System",
    "by_chunk",
    "channel_balance",
    "chunk_grid",
    "chunk_samples",
    "evaluate",
    "frame_rms",
    "frechet_distance",
    "latent_effects",
    "latent_statistics",
    "latent_vectors",
    "low_passed",
    "matched_noise",
    "mean_tokens",
    "named_metrics",
    "silence",
    "spread",
    "with_noise",
    "with_sampler",
]
