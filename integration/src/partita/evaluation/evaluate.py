"""Evaluation of codecs and baselines on the same clips, with the same metrics."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import combinations
from typing import Any

import torch
from partita_core import (
    ChannelLayout,
    Codec,
    Config,
    Metric,
    PartitaError,
    Sampler,
    to_dict,
)
from torch import Tensor

from .bootstrap import Bootstrap, Interval
from .classical import ClassicalCodec
from .frechet import Embed, EmbeddedClips
from .metric_selection import DEFAULT_METRICS, build_metrics, with_hop
from .references import low_passed, matched_noise, silence
from .results import Clip, Difference, Evaluation, MetricInfo, System
from .timed_codec import TimedCodec

OnClip = Callable[[str, Tensor, dict[str, Tensor]], None]
Decoded = Callable[[str, Tensor, int], Tensor]
"""Estimate of a clip by a system that is not a model: a function of its name, its audio and its sample rate."""

Scores = dict[str, dict[str, list[float | None]]]


def evaluate(
    codecs: Mapping[str, Codec],
    clips: Iterable[tuple[str, Tensor, ChannelLayout | str]],
    metrics: Sequence[str | Config] | None = None,
    *,
    sample_rate: int | None = None,
    num_quantizers: int | None = None,
    sampler: Sampler | None = None,
    decoded: Mapping[str, Decoded] | None = None,
    references: bool = True,
    classical: Sequence[ClassicalCodec] = (),
    linear: Mapping[str, Codec] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
    embedders: Mapping[str, Embed] | None = None,
    on_clip: OnClip | None = None,
) -> Evaluation:
    """Reconstruct every clip with every model, and compare the results with the originals.

    Everything but the measured speeds is equal for equal seeds. The models are evaluated in eval mode and then returned
    to the mode they were in.

    Args:
        codecs: models by their names in the tables.
        clips: name, audio `(channels, samples)` in [-1, 1] and layout of each clip; only one is held in memory at a
            time.
        metrics: names or Configs of registered metrics; None for `DEFAULT_METRICS`, without those that can measure none
            of the clips. Metrics of chunks use the models' grid, and those of frames each model's hop, unless their
            Config sets another. Clips that a metric cannot measure are recorded, and its means are over the others.
        sample_rate: sample rate of the clips, at which metrics are computed; None for the models' common sample rate.
            For a model of another sample rate, the clips and its output are resampled.
        num_quantizers: number of code levels that models with codes decode; None for all of them, 0 for their
            continuous values. Models without codes decode their values.
        sampler: sampler of denoising decoders; None for each decoder's default.
        decoded: systems that are not models, by their names in the tables, such as a `DecodedFolder`; each returns an
            estimate in the shape of the clip.
        references: also measure silence, spectrally matched noise, and, per latent rate of the models, the input
            low-passed to as many numbers per second, unless one of `linear` has as many.
        classical: classical codecs that are measured as references, with the bit rate of their packets on these clips.
        linear: linear codecs that are measured as references, by their names in the tables; see `fit_linear_reference`.
        seed: random seed of the decoders, the noise and the bootstrap.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        embedders: embedders for Frechet distances by their names in the tables.
        on_clip: called after each clip with its name, its audio and the estimate of every system.

    Raises:
        PartitaError: there are no clips or no systems, models differ in sample rate and `sample_rate` is None, a name
            is taken twice, a clip or an estimate is not finite, a named metric can measure none of the clips, there is
            only one clip to embed, models decode in different chunks where a metric needs them, or a model does not
            accept a clip's layout or the sampler, or has fewer levels of codes.
    """
    if num_quantizers and codecs and not any(codec.latent_spec.codebook_sizes for codec in codecs.values()):
        raise PartitaError(f"num_quantizers is {num_quantizers}, but no model has codes; leave it out")
    rate = _common_rate(codecs) if sample_rate is None else sample_rate
    built = build_metrics(DEFAULT_METRICS if metrics is None else metrics, codecs, rate)
    by_model = {name: [with_hop(metric, codec, rate) for metric in built] for name, codec in codecs.items()}
    others = next(iter(by_model.values()), built)  # of systems without frames: at the hop of the first model
    decoded = decoded or {}
    linear = linear or {}
    baselines = _references(codecs, linear, rate, seed) if references else {}
    bits = {codec.name: 0 for codec in classical}
    everything = [*codecs, *decoded, *baselines, *linear, *(codec.name for codec in classical)]
    if not everything:
        raise PartitaError("there are no models and no references; give at least one model, or references=True")
    for name, count in Counter(everything).items():
        if count > 1:
            raise PartitaError(
                f"the name {name!r} belongs to two of the models, decoded files and references; rename one"
            )

    bootstrap = cache(partial(Bootstrap, resamples=resamples, confidence=confidence, seed=seed))
    settings = {"sample_rate": rate, "num_quantizers": num_quantizers, "seed": seed, **bootstrap(1).settings()}
    settings["sampler"] = None if sampler is None else to_dict(sampler)
    timed = {name: TimedCodec(codec, rate, num_quantizers, sampler) for name, codec in codecs.items()}
    fitted = {name: TimedCodec(codec, rate, None, None) for name, codec in linear.items()}
    seen: list[Clip] = []
    scores: Scores = {system: {metric.name: [] for metric in built} for system in everything}
    skipped: dict[str, dict[str, str]] = {metric.name: {} for metric in built}
    embedded = [EmbeddedClips(name, embed) for name, embed in (embedders or {}).items()]
    with _eval_mode([*codecs.values(), *linear.values()]):
        for name, audio, layout in clips:
            layout = ChannelLayout.parse(layout)
            _check_clip(name, audio, layout)
            seen.append(Clip(name, layout.name.lower(), audio.shape[-1] / rate))
            estimates = {system: model.reconstruct(audio, layout, seed) for system, model in timed.items()}
            estimates |= {system: load(name, audio, rate) for system, load in decoded.items()}
            estimates |= {system: make(audio, name) for system, (make, _) in baselines.items()}
            estimates |= {system: model.reconstruct(audio, layout, seed) for system, model in fitted.items()}
            for codec in classical:
                estimates[codec.name], used = codec.code(audio, rate)
                bits[codec.name] += used
            for system, estimate in estimates.items():
                if not torch.isfinite(estimate).all():
                    raise PartitaError(f"{system} returned samples that are not finite for {name}")
            for index, metric in enumerate(built):
                try:
                    found = {
                        system: by_model.get(system, others)[index](estimate, audio)
                        for system, estimate in estimates.items()
                    }
                except PartitaError as error:  # skipped for all systems, so that all are compared on the same clips
                    skipped[metric.name][name] = str(error)
                    found = dict.fromkeys(estimates)
                for system, value in found.items():
                    scores[system][metric.name].append(value)
            for each in embedded:
                each.add(name, audio, estimates, sample_rate=rate, layout=layout)
            if on_clip is not None:
                on_clip(name, audio, estimates)
    if not seen:
        raise PartitaError("there are no clips to evaluate")
    for name, reasons in skipped.items():
        if len(reasons) == len(seen) and metrics is not None:
            raise PartitaError(f"{name} can measure none of the clips; {seen[0].name}: {reasons[seen[0].name]}")
    built = [metric for metric in built if len(skipped[metric.name]) < len(seen)]
    scores = {system: {metric.name: row[metric.name] for metric in built} for system, row in scores.items()}

    systems = [model.system(name) for name, model in timed.items()]
    systems += [System(name, reference=False) for name in decoded]
    systems += [System(name, reference=True, floats_per_second=numbers) for name, (_, numbers) in baselines.items()]
    systems += [replace(model.system(name), reference=True) for name, model in fitted.items()]
    seconds = sum(clip.seconds for clip in seen)
    systems += [System(name, reference=True, bit_rate=used / seconds) for name, used in bits.items()]
    return Evaluation(
        systems=tuple(systems),
        metrics=tuple(MetricInfo(m.name, m.label, m.unit, m.better) for m in built),
        clips=tuple(seen),
        scores={system: {key: tuple(row) for key, row in table.items()} for system, table in scores.items()},
        means={system: {key: _mean(row, bootstrap) for key, row in table.items()} for system, table in scores.items()},
        skipped={metric.name: skipped[metric.name] for metric in built if skipped[metric.name]},
        differences=tuple(_differences(systems, built, scores, bootstrap)),
        settings=settings | {"metrics": [to_dict(metric.config) for metric in built]},
        frechet=tuple(each.distances() for each in embedded),
        latents={name: found for name, model in timed.items() if (found := model.latents()) is not None},
    )


def _references(
    codecs: Mapping[str, Codec], linear: Mapping[str, Codec], rate: int, seed: int
) -> dict[str, tuple[Any, float | None]]:
    """References by name: a function of audio and clip name, and its numbers per second."""
    found: dict[str, tuple[Any, float | None]] = {
        "silence": (lambda audio, name: silence(audio), None),
        "matched noise": (lambda audio, name: matched_noise(audio, seed=seed, key=name), None),
    }
    by_model, by_linear = ({c.latent_spec.floats_per_second for c in each.values()} for each in (codecs, linear))
    for numbers in sorted(by_model - by_linear):

        def low_pass(audio: Tensor, name: str, numbers: float = numbers) -> Tensor:
            return low_passed(audio, sample_rate=rate, floats_per_second=numbers)

        found[f"low-pass, {numbers:,.0f} numbers/s"] = (low_pass, numbers)
    return found


def _differences(
    systems: list[System], metrics: list[Metric], scores: Scores, bootstrap: Callable[[int], Bootstrap]
) -> Iterator[Difference]:
    for first, second in combinations(systems, 2):
        if first.reference:  # references come last and are not compared with each other
            continue
        for metric in metrics:
            pairs = zip(scores[first.name][metric.name], scores[second.name][metric.name], strict=True)
            differences = [None if a is None or b is None else a - b for a, b in pairs]
            yield Difference(first.name, second.name, metric.name, _mean(differences, bootstrap))


def _mean(row: Sequence[float | None], bootstrap: Callable[[int], Bootstrap]) -> Interval:
    """Mean over the clips that were measured."""
    kept = [value for value in row if value is not None]
    return bootstrap(len(kept)).interval(kept)


def _common_rate(codecs: Mapping[str, Codec]) -> int:
    rates = {name: codec.audio_spec.sample_rate for name, codec in codecs.items()}
    if len(set(rates.values())) != 1:
        listed = ", ".join(f"{name} at {rate} Hz" for name, rate in rates.items()) or "there are no models"
        raise PartitaError(f"the sample rate of the clips is ambiguous ({listed}); set sample_rate")
    return next(iter(rates.values()))


def _check_clip(name: str, audio: Tensor, layout: ChannelLayout) -> None:
    if audio.dim() != 2 or audio.shape[0] != layout.width or audio.shape[1] == 0:
        expected = f"({layout.width}, samples) for {layout.name.lower()}, not empty"
        raise PartitaError(f"clip {name} has shape {tuple(audio.shape)}; it must be {expected}")
    if not torch.isfinite(audio).all():
        raise PartitaError(f"clip {name} has samples that are not finite (NaN or infinite)")


@contextmanager
def _eval_mode(codecs: Iterable[Codec]) -> Iterator[None]:
    training = [codec for codec in codecs if codec.training]
    for codec in training:
        codec.eval()
    try:
        yield
    finally:
        for codec in training:
            codec.train()
