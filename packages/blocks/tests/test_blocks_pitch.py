"""Pitch tracker: synthetic voices, octave errors, noise, silence, bounded context."""

import math

import pytest
import torch
from partita_blocks import PitchScale, PitchTracker
from partita_core import PartitaError

RATE, HOP = 16_000, 320
SCALE = PitchScale()


def voice(frequency: torch.Tensor, harmonics: int = 20) -> torch.Tensor:
    """Harmonics with amplitudes 1 / h of a frequency per sample, `(1, samples)`."""
    phase = 2 * math.pi * (frequency.double() / RATE).cumsum(0)
    return 0.1 * sum((h * phase).cos() / h for h in range(1, harmonics))[None].float()  # pyright: ignore


def centers(frequency: torch.Tensor) -> torch.Tensor:
    return frequency[HOP // 2 :: HOP]


def test_pitch_scale_is_logarithmic_from_60_to_400_hz():
    positions = torch.tensor([-1.0, 0.0, 1.0, 3.0])
    expected = torch.tensor([60.0, math.sqrt(60 * 400), 400.0, 400.0])
    torch.testing.assert_close(SCALE.frequency(positions), expected)
    torch.testing.assert_close(SCALE.position(expected)[:3], positions[:3], atol=1e-6, rtol=0)


@pytest.mark.parametrize("ends", [(100.0, 220.0), (350.0, 180.0), (70.0, 90.0)])
def test_pitch_of_glides_is_found_within_a_percent(ends):
    frequency = torch.logspace(*(math.log10(end) for end in ends), 2 * RATE)
    pitch = PitchTracker(RATE, HOP)(voice(frequency))
    error = (SCALE.frequency(pitch.position)[0] / centers(frequency) - 1).abs()
    assert error[3:-3].max() < 0.01
    assert pitch.strength[0, 3:-3].min() > 0.9


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_pitch_in_noise_has_few_octave_errors(rate):
    hop, seconds = rate // 50, 4
    time = torch.arange(seconds * rate) / rate
    frequency = 150 * 2 ** (0.5 * (2 * math.pi * 0.7 * time).sin())
    phase = 2 * math.pi * (frequency.double() / rate).cumsum(0)
    clean = sum((h * phase).cos() / h for h in range(1, 16)).float()  # pyright: ignore
    noisy = clean + clean.std() * 10 ** (-5 / 20) * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    pitch = PitchTracker(rate, hop)(0.1 * noisy[None])
    error = SCALE.frequency(pitch.position)[0].div(frequency[hop // 2 :: hop]).log2().abs()
    assert (error > 0.5).float().mean() < 0.02
    assert error.median() < 0.02


def test_pitch_follows_the_fundamental_without_energy_at_it():
    phase = 2 * math.pi * 120 * torch.arange(RATE) / RATE
    audio = sum((h * phase).cos() for h in range(3, 12))  # pyright: ignore
    pitch = PitchTracker(RATE, HOP)(0.05 * audio[None])  # pyright: ignore
    assert (SCALE.frequency(pitch.position)[0, 3:-3] / 120 - 1).abs().max() < 0.01


def test_pitch_strength_is_low_for_noise_and_zero_for_silence():
    tracker = PitchTracker(RATE, HOP)
    noise = torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(1))
    assert tracker(0.1 * noise).strength.mean() < 0.5
    silent = tracker(torch.zeros(1, RATE))
    assert (silent.strength == 0).all() and silent.position.isfinite().all()


def test_pitch_is_a_path_of_bounded_context():
    tracker = PitchTracker(RATE, HOP)
    assert (tracker.path, tracker.context) == (5, 6)
    audio = 0.1 * torch.randn(1, 40 * HOP, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = tracker(audio)
    for start, stop in ((10, 20), (25, 26)):
        begin, end = start - tracker.context, stop + tracker.context
        tile = tracker(audio[:, begin * HOP : end * HOP])
        for part, full in zip(tile, whole):
            kept = part[:, tracker.context : -tracker.context]
            torch.testing.assert_close(kept, full[:, start:stop], atol=1e-9, rtol=0)


def test_pitch_path_equals_exhaustive_search():
    """The running maxima find the best path through the frames around each frame."""
    tracker = PitchTracker(RATE, HOP, candidates=4)
    scores = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = tracker._past(scores) + tracker._past(scores.flip(1)).flip(1) - scores
    octaves = math.log2(400 / 60) / 3
    for frame in range(3):
        for candidate in range(4):
            totals = []
            for i in range(64):
                path = (i // 16, i // 4 % 4, i % 4)
                jumps = sum(abs(a - b) for a, b in zip(path, path[1:])) * 0.35 * octaves
                if path[frame] == candidate:
                    totals.append(sum(scores[0, t, c] for t, c in enumerate(path)) - jumps)
            torch.testing.assert_close(found[0, frame, candidate], torch.stack(totals).max())


def test_pitch_needs_a_sample_rate_for_its_range():
    with pytest.raises(PartitaError, match=r"1500 Hz.* 400 Hz needs 2000"):
        PitchTracker(1500, 30)
