"""Evaluation of codecs: metrics, baselines, confidence intervals and Frechet distances."""

from .bootstrap import Bootstrap, Interval
from .chunk_grid import chunk_grid, chunk_samples
from .classical import ClassicalCodec
from .classical_codecs import parse_classical
from .decoded import DecodedFolder
from .evaluate import evaluate
from .frechet import Embed, frechet_distance
from .latent_statistics import ChannelBalance, LatentStatistics, latent_statistics, latent_vectors
from .linear_reference import fit_linear_reference
from .metric_selection import DEFAULT_METRICS, named_metrics
from .references import low_passed, matched_noise, silence
from .results import Clip, Difference, Evaluation, FrechetDistances, MetricInfo, Speed, System

__all__ = [
    "DEFAULT_METRICS",
    "Bootstrap",
    "ChannelBalance",
    "ClassicalCodec",
    "Clip",
    "DecodedFolder",
    "Difference",
    "Embed",
    "Evaluation",
    "FrechetDistances",
    "Interval",
    "LatentStatistics",
    "MetricInfo",
    "Speed",
    "System",
    "chunk_grid",
    "chunk_samples",
    "evaluate",
    "fit_linear_reference",
    "frechet_distance",
    "latent_statistics",
    "latent_vectors",
    "low_passed",
    "matched_noise",
    "named_metrics",
    "parse_classical",
    "silence",
]
