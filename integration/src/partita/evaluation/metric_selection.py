"""Metrics of an evaluation by name, with settings that depend on the models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from partita_core import Codec, Config, Metric, PartitaError, components, lookup, parse_config

from .chunk_grid import chunk_grid

DEFAULT_METRICS = ("log_mel_l1", "multi_resolution_stft", "si_sdr", "frame_buzz")


def named_metrics(names: Sequence[str]) -> list[Config]:
    """Configs of metrics by name, each once, optionally with settings, as `seam_excess:chunk=26880,edge=0`.

    `all` stands for every metric that can measure any clip.

    Raises:
        PartitaError: a metric or a setting is unknown, or a value is invalid.
    """
    general = [tag for tag, config in components("metric/*").items() if _measures_any_clip(config)]
    wanted = [part for name in names for part in (general if name == "all" else [name])]
    return list({(config := parse_config(part, "metric")).tag: config for part in wanted}.values())


def _measures_any_clip(config: type[Config]) -> bool:
    metric: Any = getattr(config, "component", config)  # a Config class that was written by hand declares it itself
    return getattr(metric, "any_clip", True)


def build_metrics(metrics: Sequence[str | Config], codecs: Mapping[str, Codec], rate: int) -> list[Metric]:
    """Build metrics for clips at `rate` Hz; those of chunks get the chunks of the models unless their Config sets them.

    Raises:
        PartitaError: there are no metrics, one is given twice or unknown, or the models' chunks are not the same.
    """
    configs = [lookup(each, ("metric",))() if isinstance(each, str) else each for each in metrics]
    configs = [
        replace(each, chunk=chunk_grid(codecs, rate)) if getattr(each, "chunk", 0) is None else each  # pyright: ignore
        for each in configs
    ]
    built = [config.build(sample_rate=rate) for config in configs]
    names = [metric.name for metric in built]
    if not names or len(set(names)) != len(names):
        raise PartitaError(f"metrics are {', '.join(names) or 'none'}; give at least one, and each only once")
    return built


def with_hop(metric: Metric, codec: Codec, rate: int) -> Metric:
    """The metric at the hop of a model's latent frames, if it has a hop and its Config leaves it open."""
    if getattr(metric.config, "hop", 0) is not None:
        return metric
    hop = codec.latent_spec.hop * rate / codec.audio_spec.sample_rate
    return replace(metric.config, hop=hop).build(sample_rate=rate)  # pyright: ignore
