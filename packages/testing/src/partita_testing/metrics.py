"""Conformance checks for every `Metric`."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from partita_core.configs import from_dict, to_dict
from partita_core.errors import PartitaError
from partita_core.metric import Metric
from partita_core.registry import Config
from torch import Tensor

from ._common import Case, Suite, check, expect, noise, raises_partita_error

Degradation = Callable[[Tensor, float], Tensor]
"""Degrades `(channels, samples)`; the strength is 0.1, 0.3 or 1, larger is worse."""


def add_noise(audio: Tensor, strength: float) -> Tensor:
    """White noise whose RMS is `strength` times the signal's."""
    return audio + strength * audio.square().mean().sqrt() * noise(*audio.shape, seed=1)


@dataclass(frozen=True)
class MetricCase(Case):
    """A metric under test.

    Attributes:
        sample_rate: sample rate in Hz that it is built for.
        seconds: length of the signals.
        degrade: a degradation that the metric is to detect; white noise by default.
    """

    sample_rate: int = 16_000
    seconds: float = 2.0
    degrade: Degradation = add_noise

    def make(self) -> Metric:
        """Build the metric from its Config."""
        return self.config.build(sample_rate=self.sample_rate)

    def audio(self, channels: int) -> Tensor:
        """Decaying chords over a noise floor, different per channel, `(channels, samples)` float64."""
        samples = round(self.seconds * self.sample_rate)
        time = torch.arange(samples, dtype=torch.float64) / self.sample_rate
        chords = ((152, 420, 1220, 3792), (196, 656, 1752, 2968))[:channels]
        envelopes = (torch.exp(-4 * ((2 * time + shift) % 1)) for shift in (0, 0.5))
        tones = [
            sum((torch.sin(2 * math.pi * hertz * time) for hertz in chord), torch.zeros(samples)) * envelope
            for chord, envelope in zip(chords, envelopes)
        ]
        return 0.1 * torch.stack(tones) + 1e-3 * noise(channels, samples, seed=0)


@check(fix="set name, label and better on the class, and register it as metric/NAME")
def attributes_are_set(case: MetricCase) -> None:
    """Name, label, direction and Config are set."""
    metric = case.make()
    expect(isinstance(metric, Metric), f"{type(metric).__name__} is not a Metric")
    expect(f"metric/{metric.name}" == case.name, f"the name {metric.name} is not that of {case.name}")
    expect(bool(metric.label), "the label is empty; it is the heading in tables")
    expect(metric.better in ("lower", "higher"), f"better is {metric.better!r}; it must be 'lower' or 'higher'")
    expect(metric.config == case.config, f"config is {metric.config}, built from {case.config}")


@check(fix="return 0 for equal signals, or the largest value where higher is better")
def identical_signals_are_best(case: MetricCase) -> None:
    """Equal signals get the best value: 0 if lower is better, else at least that of a degraded signal."""
    metric = case.make()
    for channels in (1, 2):
        audio = case.audio(channels)
        value = metric(audio, audio)
        if metric.better == "lower":
            expect(abs(value) < 1e-6, f"equal signals get {value:.4g}; it must be 0, because lower is better")
        else:
            worse = metric(case.degrade(audio, 0.1), audio)
            expect(value >= worse, f"equal signals get {value:.4g}, a degraded one {worse:.4g}")


@check(
    fix="set better to 'lower' or 'higher' as the value moves, or give the case a degradation that the metric detects"
)
def degradation_is_worse(case: MetricCase) -> None:
    """The value of stereo clips gets worse, in the declared direction, with the strength of a degradation."""
    metric, audio = case.make(), case.audio(2)
    sign = 1 if metric.better == "lower" else -1
    strengths = (0.0, 0.1, 0.3, 1.0)
    values = [metric(case.degrade(audio, strength) if strength else audio, audio) for strength in strengths]
    worse = all(sign * a < sign * b for a, b in pairwise(values))
    listed = ", ".join(f"{value:.4g}" for value in values)
    expect(worse, f"degradations of strength {strengths} get {listed}, although {metric.better} is better")


@check(fix="add a floor where the metric divides by, or takes the logarithm of, what is zero for silence")
def silence_is_finite(case: MetricCase) -> None:
    """Silence in estimate, reference or both has a finite value, unless the metric declares `any_clip = False`."""
    metric = case.make()
    for channels in (1, 2):
        audio = case.audio(channels)
        silent = torch.zeros_like(audio)
        for what, estimate, reference in _pairs(audio, silent):
            _expect_finite(metric, estimate, reference, f"{what}, {channels} channels")


@check(fix="pad short clips, or set any_clip = False and raise a PartitaError")
def short_clips_are_finite(case: MetricCase) -> None:
    """Clips of 1, 2 and 100 samples have a finite value, unless the metric declares `any_clip = False`."""
    metric = case.make()
    for channels in (1, 2):
        for samples in (1, 2, 100):
            audio = case.audio(channels)[:, :samples]
            for what, estimate, reference in _pairs(audio, torch.zeros_like(audio)):
                _expect_finite(metric, estimate, reference, f"{what}, {channels} channels of {samples} samples")


@check(fix="call check_signals at the start")
def different_shapes_are_errors(case: MetricCase) -> None:
    """Signals of different shapes, without samples or with a batch dimension raise a PartitaError of one line."""
    metric, audio = case.make(), case.audio(2)
    wrong = {
        "another length": (audio[:, :-1], audio),
        "another number of channels": (audio[:1], audio),
        "no samples": (audio[:, :0], audio[:, :0]),
        "a batch dimension": (audio[None], audio[None]),
    }
    for what, (estimate, reference) in wrong.items():
        with raises_partita_error(f"an estimate {tuple(estimate.shape)} of {tuple(reference.shape)} ({what})"):
            metric(estimate, reference)


@check(fix="detach the inputs and use no in-place operation, and return a float")
def inputs_are_left_unchanged(case: MetricCase) -> None:
    """Measuring twice gives the same value, for inputs that require gradients too, and changes no input."""
    metric, audio = case.make(), case.audio(2).float()
    estimate = case.degrade(audio, 0.3).float()
    before = estimate.clone(), audio.clone()
    first = metric(estimate, audio)
    second = metric(estimate.requires_grad_(), audio)
    expect(isinstance(first, float), f"the value is a {type(first).__name__}; it must be a float")
    expect(first == second, f"the same signals get {first:.6g} and then {second:.6g}")
    expect(torch.equal(estimate, before[0]) and torch.equal(audio, before[1]), "an input has changed")


@check(fix="use settings that JSON can hold")
def config_round_trip(case: MetricCase) -> None:
    """The Config comes back from JSON equal."""
    parsed = from_dict(Config, json.loads(json.dumps(to_dict(case.config))))
    expect(parsed == case.config, f"{case.config} comes back from JSON as {parsed}")


def _pairs(audio: Tensor, silent: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    yield "a silent estimate", silent, audio
    yield "a silent reference", audio, silent
    yield "two silent signals", silent, silent


def _expect_finite(metric: Metric, estimate: Tensor, reference: Tensor, what: str) -> None:
    try:
        value = metric(estimate, reference)
    except PartitaError as error:
        expect(not metric.any_clip, f"{what} raises, so set any_clip = False: {error}")
        expect("\n" not in str(error), f"the error about {what} has more than one line")
    else:
        expect(math.isfinite(value), f"{what} gets {value}; it must be finite")


METRIC_CHECKS = Suite(
    "metric",
    MetricCase,
    (
        attributes_are_set,
        identical_signals_are_best,
        degradation_is_worse,
        silence_is_finite,
        short_clips_are_finite,
        different_shapes_are_errors,
        inputs_are_left_unchanged,
        config_round_trip,
    ),
)

check_metric = METRIC_CHECKS.check
"""Run all checks on the metric of a Config, or on a `MetricCase`; see `Suite.check`."""
