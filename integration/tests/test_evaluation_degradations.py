"""Effect of known degradations on each metric, as documented in its docstring."""

import importlib.util
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from partita.evaluation.metrics import DriftConfig, FrameBuzzConfig, SeamExcessConfig
from partita_core import components

RATE = 16_000
PERIOD = 4096  # samples after which the signal repeats; also the chunk of metrics that have one

Check = Callable[[float, float], bool]
"""True if a cost (the value's distance from the best) is as documented; the second argument is noise's cost at 0 dB."""


def free(cost: float, noise: float) -> bool:
    return abs(cost) < 1e-5


def little(cost: float, noise: float) -> bool:
    return -1e-5 < cost < 0.15 * noise


def much(cost: float, noise: float) -> bool:
    return cost > 0.3 * noise


def about(value: float, tolerance: float = 0.03) -> Check:
    return lambda cost, noise: cost == pytest.approx(value, rel=tolerance)


def within(value: float) -> Check:
    return lambda cost, noise: abs(cost) < value


def early(cost: float, noise: float) -> bool:
    """Larger at the start: the shift changes the first frame, where the signal is reflected."""
    return cost < 0


@dataclass(frozen=True)
class Moves:
    """Best value of a metric and documented costs of degradations; noise and low-pass are monotonic where None."""

    best: float
    polarity: Check
    shift: Check
    gain: Check
    swap: Check
    noise: Check | None = None
    low_pass: Check | None = None


DECIBELS = 6.0
FACTOR = 10 ** (-DECIBELS / 20)

DOCUMENTED = {
    "drift": Moves(0, free, early, within(1), within(10), noise=within(20), low_pass=within(5)),
    "frame_buzz": Moves(0, free, within(1e-3), free, free, noise=within(0.5), low_pass=within(0.5)),
    "log_mel_l1": Moves(0, free, little, about(DECIBELS / 20), much),
    "loudness_error": Moves(0, free, little, about(DECIBELS), free),
    "lsd": Moves(0, free, little, about(DECIBELS), much),
    "mcd": Moves(0, free, little, little, much),
    "estoi": Moves(1, free, little, free, much),
    "multi_resolution_stft": Moves(0, free, little, about(-math.log(FACTOR) + 1 - FACTOR), much),
    "multi_scale_mel": Moves(0, free, little, about(7 * DECIBELS / 20), much),
    "pesq": Moves(4.643888, free, little, little, much),
    "phase_error": Moves(0, about(math.pi), much, little, much),
    "seam_excess": Moves(0, free, within(1), within(1), free, noise=within(15), low_pass=within(15)),
    "si_sdr": Moves(100, free, much, free, much),
    "stereo_image_error": Moves(0, free, little, little, much),
    "stoi": Moves(1, free, little, free, much),
    "visqol": Moves(4.7321, little, little, little, much),
}
CHUNKS = {
    "drift": DriftConfig(chunk=PERIOD, chunks=8),
    "frame_buzz": FrameBuzzConfig(hop=320),
    "seam_excess": SeamExcessConfig(chunk=PERIOD, edge=2048, far=1024),
}
TAGS = {tag: cls for tag, cls in components("metric/*").items() if tag.split("/")[1] in DOCUMENTED}
EXTRA = {"estoi": "pystoi", "stoi": "pystoi", "pesq": "pesq", "visqol": "visqol"}


def music() -> torch.Tensor:
    """Two seconds of periodic decaying chords with faint noise, different per channel except for one common tone."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(PERIOD) / PERIOD
    channels = []
    for late, chord in ((0, (38, 105, 305, 948, 1664)), (0.5, (49, 164, 438, 742, 1766))):
        tones = sum(torch.sin(2 * math.pi * cycles * time) for cycles in (*chord, 205))
        channels.append(tones * torch.exp(-4 * ((2 * time + late) % 1)))
    period = 0.1 * torch.stack(channels) + 1e-3 * torch.randn(2, PERIOD, generator=generator)
    return period.repeat(1, 8)


MUSIC = music()


def with_noise(snr_db: float) -> torch.Tensor:
    noise = torch.randn(MUSIC.shape, generator=torch.Generator().manual_seed(1))
    return MUSIC + noise * MUSIC.square().mean().sqrt() * 10 ** (-snr_db / 20)


def low_passed(hertz: float) -> torch.Tensor:
    frequencies = torch.fft.rfftfreq(MUSIC.shape[-1], 1 / RATE)
    return torch.fft.irfft(torch.fft.rfft(MUSIC) * (frequencies < hertz), n=MUSIC.shape[-1])


NOISES = [with_noise(snr) for snr in (20, 10, 0)]
LOW_PASSES = [low_passed(hertz) for hertz in (6000, 3000, 1000)]


@pytest.fixture(params=[pytest.param(tag, marks=[pytest.mark.slow] * (tag == "metric/visqol")) for tag in sorted(TAGS)])
def metric(request):
    name = request.param.split("/")[1]
    if name in EXTRA and importlib.util.find_spec(EXTRA[name]) is None:
        pytest.skip(f"{EXTRA[name]} is not installed")
    return CHUNKS.get(name, TAGS[request.param]()).build(sample_rate=RATE)


def test_documented_metrics_are_registered_and_on_the_page():
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()
    listed = re.findall(r"^\| \*?`(\w+)`", page, re.MULTILINE)
    assert {tag.split("/")[1] for tag in TAGS} == set(DOCUMENTED) <= set(listed)


def test_degradations_cost_as_documented(metric):
    moves = DOCUMENTED[metric.name]
    sign = 1 if metric.better == "lower" else -1

    def cost(estimate: torch.Tensor) -> float:
        return sign * (metric(estimate, MUSIC) - moves.best)

    assert cost(MUSIC) == pytest.approx(0, abs=1e-4)
    noises, low_passes = [cost(x) for x in NOISES], [cost(x) for x in LOW_PASSES]
    for costs, check in ((noises, moves.noise), (low_passes, moves.low_pass)):
        if check is None:
            assert 0 < costs[0] < costs[1] < costs[2]
        else:
            assert all(check(each, noises[-1]) for each in costs), costs
    degraded = {"polarity": -MUSIC, "shift": MUSIC.roll(1, -1), "gain": FACTOR * MUSIC, "swap": MUSIC.flip(0)}
    for name, estimate in degraded.items():
        found = cost(estimate)
        assert getattr(moves, name)(found, noises[-1]), f"{name} costs {found}, noise at 0 dB {noises[-1]}"


def test_docstrings_name_the_degradations(metric):
    text = " ".join((type(metric).__doc__ or "").lower().split())
    for word in ("gain", "polarity flip", "shift by a sample", "swapped channels"):
        assert word in text, word
