"""Models and references over the same clips, by the same metrics."""

import time
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
    Latents,
    PartitaError,
    Sampler,
    components,
    lookup,
    parse_config,
    to_dict,
)
from torch import Tensor

from partita.data.audio.resampling import resample, resample_some

from .bootstrap import Bootstrap, Interval
from .chunks import chunk_grid
from .frechet import Embed, EmbeddedClips
from .latent_statistics import LatentStatistics, latent_statistics, latent_vectors
from .metrics.base import Metric
from .references import fit, low_passed, matched_noise, silence
from .results import Clip, Difference, Evaluation, MetricInfo, Speed, System

DEFAULT_METRICS = ("log_mel_l1", "multi_resolution_stft", "si_sdr")

OnClip = Callable[[str, Tensor, dict[str, Tensor]], None]
Scores = dict[str, dict[str, list[float | None]]]


def evaluate(
    codecs: Mapping[str, Codec],
    clips: Iterable[tuple[str, Tensor, ChannelLayout | str]],
    metrics: Sequence[str | Config] = DEFAULT_METRICS,
    *,
    sample_rate: int | None = None,
    num_quantizers: int | None = None,
    sampler: Sampler | None = None,
    references: bool = True,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
    embedders: Mapping[str, Embed] | None = None,
    on_clip: OnClip | None = None,
) -> Evaluation:
    """Encodes and decodes every clip with every model, and measures what comes back.

    Everything but the measured speeds is the same for the same seed. The models are evaluated in eval mode and left in
    the mode they were in.

    Args:
        codecs: models by the names they get in the tables.
        clips: (name, audio `(channels, samples)` in [-1, 1], its layout); each is held in memory only while it is
            measured.
        metrics: names of registered metrics, or their Configs; those of chunks are measured on the models' grid unless
            their Config has another. What a metric refuses a clip for is kept, and its means are over the others.
        sample_rate: of the clips, and what the metrics are computed at; None for the rate of the models, where they
            have one. A model of another rate gets the clips resampled, and its output is resampled back.
        num_quantizers: levels that models which make codes are decoded from; None for all of them, 0 for their values
            instead. Models without codes are decoded from their values.
        sampler: how denoising decoders are run; None for each one's default.
        references: also measure silence, spectrally matched noise, and, for each latent rate among the models, the
            input low-passed to as many numbers a second.
        seed: of the decoders, the noise and the bootstrap.
        resamples: of the bootstrap.
        confidence: of the intervals.
        embedders: what Frechet distances are taken with, by the names they get in the tables.
        on_clip: called after each clip with its name, its audio and the estimate of every system.

    Raises:
        PartitaError: there are no clips or no systems, models differ in sample rate and none is named, a name is
            taken twice, a clip or an estimate is not finite, a metric refuses every clip, there is one clip alone to
            embed, models decode in other chunks where a metric needs them, or a model does not take a clip's layout or
            the sampler, or has not so many levels of codes.
    """
    if num_quantizers and codecs and not any(codec.latent_spec.codebook_sizes for codec in codecs.values()):
        raise PartitaError(f"num_quantizers is {num_quantizers}, and no model makes codes")
    rate = _common_rate(codecs) if sample_rate is None else sample_rate
    measures = _build_metrics(metrics, codecs, rate)
    rivals = _references(codecs, rate, seed) if references else {}
    if not codecs and not rivals:
        raise PartitaError("there is nothing to evaluate: name a model, or ask for the references")
    for name in set(codecs) & set(rivals):
        raise PartitaError(f"a model is called {name!r}, as one of the references is; call it something else")

    bootstrap = cache(partial(Bootstrap, resamples=resamples, confidence=confidence, seed=seed))
    settings = {"sample_rate": rate, "num_quantizers": num_quantizers, "seed": seed, **bootstrap(1).settings()}
    settings["sampler"] = None if sampler is None else to_dict(sampler)
    clocks = {name: _Clock(codec, rate, num_quantizers, sampler) for name, codec in codecs.items()}
    seen: list[Clip] = []
    scores: Scores = {system: {measure.name: [] for measure in measures} for system in (*codecs, *rivals)}
    refused: dict[str, dict[str, str]] = {measure.name: {} for measure in measures}
    embedded = [EmbeddedClips(name, embed) for name, embed in (embedders or {}).items()]
    with _eval_mode(codecs.values()):
        for name, audio, layout in clips:
            layout = ChannelLayout.parse(layout)
            _check_clip(name, audio, layout)
            seen.append(Clip(name, layout.name.lower(), audio.shape[-1] / rate))
            estimates = {system: clock.reconstruct(audio, layout, seed) for system, clock in clocks.items()}
            estimates |= {system: make(audio, name) for system, (make, _) in rivals.items()}
            for system, estimate in estimates.items():
                if not torch.isfinite(estimate).all():
                    raise PartitaError(f"{system} returned samples that are not finite for {name}")
            for measure in measures:
                try:
                    found = {system: measure(estimate, audio) for system, estimate in estimates.items()}
                except PartitaError as error:  # all or none: what is compared is compared over the same clips
                    refused[measure.name][name] = str(error)
                    found = dict.fromkeys(estimates)
                for system, figure in found.items():
                    scores[system][measure.name].append(figure)
            for each in embedded:
                each.add(name, audio, estimates, sample_rate=rate, layout=layout)
            if on_clip is not None:
                on_clip(name, audio, estimates)
    if not seen:
        raise PartitaError("there are no clips to evaluate")
    for measure, reasons in refused.items():
        if len(reasons) == len(seen):
            raise PartitaError(f"{measure} takes none of the clips; of {seen[0].name}: {reasons[seen[0].name]}")

    systems = [clock.system(name) for name, clock in clocks.items()]
    systems += [System(name, reference=True, floats_per_second=numbers) for name, (_, numbers) in rivals.items()]
    return Evaluation(
        systems=tuple(systems),
        metrics=tuple(MetricInfo(m.name, m.label, m.unit, m.better) for m in measures),
        clips=tuple(seen),
        scores={system: {key: tuple(row) for key, row in table.items()} for system, table in scores.items()},
        means={system: {key: _mean(row, bootstrap) for key, row in table.items()} for system, table in scores.items()},
        refused={name: reasons for name, reasons in refused.items() if reasons},
        differences=tuple(_differences(systems, measures, scores, bootstrap)),
        settings=settings | {"metrics": [to_dict(measure.config) for measure in measures]},
        frechet=tuple(each.distances() for each in embedded),
        latents={name: found for name, clock in clocks.items() if (found := clock.latents()) is not None},
    )


class _Clock:
    """Takes clips through one model and keeps the time; resampling is not on the model's account."""

    def __init__(self, codec: Codec, rate: int, levels: int | None, sampler: Sampler | None) -> None:
        self.codec, self.rate, self.sampler = codec, rate, sampler
        self.sizes = codec.latent_spec.codebook_sizes[:levels]  # what is decoded are codes of these, if there are any
        self.levels = levels if self.sizes else None
        self._encode = self._decode = self._audio = 0.0
        self._warm = False
        self._vectors: list[Tensor] = []

    def reconstruct(self, audio: Tensor, layout: ChannelLayout, seed: int) -> Tensor:
        own = self.codec.audio_spec.sample_rate
        heard = resample_some(audio.detach().cpu(), self.rate, own)[None]
        if not self._warm:  # the first run pays for allocations and kernels that no other does
            first = self._encode_audio(heard[..., :own], layout)
            self.codec.decode(first, sampler=self.sampler, seed=seed)
            self._warm = True
        start = self._now()
        latents = self._encode_audio(heard, layout)
        middle = self._now()
        decoded = self.codec.decode(latents, sampler=self.sampler, seed=seed)[0]
        end = self._now()
        self._encode += middle - start
        self._decode += end - middle
        self._audio += heard.shape[-1] / own
        if latents.values is None:
            assert latents.codes is not None
            latents = replace(latents, values=self.codec.codes_to_values(latents.codes))
        self._vectors.append(latent_vectors(latents).float())
        return fit(resample(decoded.cpu(), own, self.rate), audio.shape[-1]).to(audio)

    def _encode_audio(self, audio: Tensor, layout: ChannelLayout) -> Latents:
        latents = self.codec.encode(audio, layout=layout, num_quantizers=self.levels)
        return latents.only_codes() if self.sizes else latents

    def system(self, name: str) -> System:
        spec = replace(self.codec.latent_spec, codebook_sizes=self.sizes)
        speed = Speed(self._audio / max(self._encode, 1e-9), self._audio / max(self._decode, 1e-9))
        return System(name, False, spec.floats_per_second, spec.bit_rate, speed)

    def latents(self) -> LatentStatistics | None:
        """Of all clips; None where they tell nothing, as of silence alone."""
        vectors = torch.cat(self._vectors)
        return latent_statistics(vectors) if (vectors != vectors[:1]).any() else None

    def _now(self) -> float:
        parameter = next(self.codec.parameters(), None)
        if parameter is not None and parameter.is_cuda:
            torch.cuda.synchronize(parameter.device)
        return time.perf_counter()


def _references(codecs: Mapping[str, Codec], rate: int, seed: int) -> dict[str, tuple[Any, float | None]]:
    """The references by name: what makes each of (audio, clip's name), and its numbers a second."""
    found: dict[str, tuple[Any, float | None]] = {
        "silence": (lambda audio, name: silence(audio), None),
        "matched noise": (lambda audio, name: matched_noise(audio, seed=seed, key=name), None),
    }
    for numbers in sorted({codec.latent_spec.floats_per_second for codec in codecs.values()}):

        def narrow(audio: Tensor, name: str, numbers: float = numbers) -> Tensor:
            return low_passed(audio, sample_rate=rate, floats_per_second=numbers)

        found[f"low-pass, {numbers:,.0f} numbers/s"] = (narrow, numbers)
    return found


def _differences(
    systems: list[System], measures: list[Metric], scores: Scores, bootstrap: Callable[[int], Bootstrap]
) -> Iterator[Difference]:
    for first, second in combinations(systems, 2):
        if first.reference:  # references come last, and among themselves they say nothing
            continue
        for measure in measures:
            ours, theirs = scores[first.name][measure.name], scores[second.name][measure.name]
            apart = [None if a is None or b is None else a - b for a, b in zip(ours, theirs, strict=True)]
            yield Difference(first.name, second.name, measure.name, _mean(apart, bootstrap))


def _mean(row: Sequence[float | None], bootstrap: Callable[[int], Bootstrap]) -> Interval:
    """Over the clips that there is a figure of."""
    kept = [figure for figure in row if figure is not None]
    return bootstrap(len(kept)).interval(kept)


def named_metrics(names: Sequence[str]) -> list[Config]:
    """Metrics by name, each once, with settings behind a colon if need be, as `seam_excess:chunk=26880,edge=0`.

    In place of `all` is every metric that takes any clip.

    Raises:
        PartitaError: no metric or setting is called so, or a value does not fit.
    """
    general = [tag for tag, cls in components("metric/*").items() if getattr(cls, "any_clip", True)]
    wanted = [part for name in names for part in (general if name == "all" else [name])]
    return list({(config := parse_config(part, "metric")).tag: config for part in wanted}.values())


def _build_metrics(metrics: Sequence[str | Config], codecs: Mapping[str, Codec], rate: int) -> list[Metric]:
    configs = [lookup(each, ("metric",))() if isinstance(each, str) else each for each in metrics]
    configs = [
        replace(each, chunk=chunk_grid(codecs, rate)) if getattr(each, "chunk", 0) is None else each  # pyright: ignore
        for each in configs
    ]
    built = [config.build(sample_rate=rate) for config in configs]
    names = [metric.name for metric in built]
    if not names or len(set(names)) != len(names):
        raise PartitaError(f"metrics are {', '.join(names) or 'none'}; name at least one, and each once")
    return built


def _common_rate(codecs: Mapping[str, Codec]) -> int:
    rates = {name: codec.audio_spec.sample_rate for name, codec in codecs.items()}
    if len(set(rates.values())) != 1:
        listed = ", ".join(f"{name} at {rate} Hz" for name, rate in rates.items()) or "there are no models"
        raise PartitaError(f"the clips' sample rate is not clear ({listed}); name it with sample_rate")
    return next(iter(rates.values()))


def _check_clip(name: str, audio: Tensor, layout: ChannelLayout) -> None:
    if audio.dim() != 2 or audio.shape[0] != layout.width or audio.shape[1] == 0:
        expected = f"({layout.width}, samples) for {layout.name.lower()}, not empty, is expected"
        raise PartitaError(f"clip {name} is {tuple(audio.shape)}; {expected}")
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
