"""What known degradations do to each metric, as its docstring says."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from partita.evaluation.metrics import DriftConfig, SeamExcessConfig
from partita_core import components

RATE = 16_000
PERIOD = 4096  # samples after which the signal repeats itself; the chunk of those metrics that have one

Says = Callable[[float, float], bool]
"""Whether a cost, how much worse than the best the figure is, is as documented; beside it, that of noise at 0 dB."""


def free(cost: float, noise: float) -> bool:
    return abs(cost) < 1e-5


def little(cost: float, noise: float) -> bool:
    return -1e-5 < cost < 0.15 * noise


def much(cost: float, noise: float) -> bool:
    return cost > 0.3 * noise


def about(figure: float, tolerance: float = 0.03) -> Says:
    return lambda cost, noise: cost == pytest.approx(figure, rel=tolerance)


def within(figure: float) -> Says:
    return lambda cost, noise: abs(cost) < figure


def early(cost: float, noise: float) -> bool:
    """More at the start than at the end, as the shift is heard in the first frame, where the signal is reflected."""
    return cost < 0


@dataclass(frozen=True)
class Moves:
    """The best figure, what degradations do to it, and whether more noise and a lower low-pass are always worse."""

    best: float
    polarity: Says
    shift: Says
    gain: Says
    swap: Says
    noise: Says | None = None
    low_pass: Says | None = None


DECIBELS = 6.0
FACTOR = 10 ** (-DECIBELS / 20)

DOCUMENTED = {
    "drift": Moves(0, free, early, within(1), within(10), noise=within(20), low_pass=within(5)),
    "log_mel_l1": Moves(0, free, little, about(DECIBELS / 20), much),
    "loudness_error": Moves(0, free, little, about(DECIBELS), free),
    "lsd": Moves(0, free, little, about(DECIBELS), much),
    "mcd": Moves(0, free, little, little, much),
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
CHUNKS = {"drift": DriftConfig(PERIOD, 8), "seam_excess": SeamExcessConfig(PERIOD, edge=2048, far=1024)}
TAGS = {tag: cls for tag, cls in components("metric/*").items() if cls.__module__.startswith("partita.")}
EXTRA = {"stoi": "pystoi", "pesq": "pesq", "visqol": "visqol"}


def music() -> torch.Tensor:
    """Two seconds of decaying chords with a faint noise, in each channel another and one tone in both, in periods."""
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


@pytest.fixture(params=sorted(TAGS))
def metric(request):
    name = request.param.split("/")[1]
    if name in EXTRA and importlib.util.find_spec(EXTRA[name]) is None:
        pytest.skip(f"{EXTRA[name]} is not installed")
    return CHUNKS.get(name, TAGS[request.param]()).build(sample_rate=RATE)


def test_every_metric_has_its_line_in_the_table():
    assert {tag.split("/")[1] for tag in TAGS} == set(DOCUMENTED)


def test_degradations_move_it_as_documented(metric):
    moves = DOCUMENTED[metric.name]
    sign = 1 if metric.better == "lower" else -1

    def cost(estimate: torch.Tensor) -> float:
        return sign * (metric(estimate, MUSIC) - moves.best)

    assert cost(MUSIC) == pytest.approx(0, abs=1e-4)
    noises, low_passes = [cost(x) for x in NOISES], [cost(x) for x in LOW_PASSES]
    for costs, says in ((noises, moves.noise), (low_passes, moves.low_pass)):
        if says is None:
            assert 0 < costs[0] < costs[1] < costs[2]
        else:
            assert all(says(each, noises[-1]) for each in costs), costs
    degraded = {"polarity": -MUSIC, "shift": MUSIC.roll(1, -1), "gain": FACTOR * MUSIC, "swap": MUSIC.flip(0)}
    for name, estimate in degraded.items():
        found = cost(estimate)
        assert getattr(moves, name)(found, noises[-1]), f"{name} costs {found}, noise at 0 dB {noises[-1]}"


def test_it_is_documented_what_degradations_do(metric):
    text = " ".join((type(metric).__doc__ or "").lower().split())
    for word in ("gain", "polarity flip", "shift by a sample", "swapped channels"):
        assert word in text, word
