import math

import pytest
import torch
from partita.evaluation import low_passed, matched_noise, silence
from partita.evaluation.references import welch
from partita_core import LatentSpec

RATE = 16000


def colored(seconds=4.0, seed=0):
    """Noise that falls by 6 dB per octave, louder on the left."""
    samples = int(seconds * RATE)
    spectrum = torch.fft.rfft(torch.randn(2, samples, generator=torch.Generator().manual_seed(seed)).double())
    slope = 1 / torch.arange(1, spectrum.shape[-1] + 1).clamp_min(samples // 200)
    audio = torch.fft.irfft(spectrum * slope, n=samples)
    return (audio / audio.abs().amax() * torch.tensor([[0.5], [0.1]])).float()


def test_silence_has_the_same_shape():
    audio = colored(0.1)
    assert torch.equal(silence(audio), torch.zeros_like(audio))


def test_matched_noise_has_the_spectrum_and_the_level():
    audio = colored()
    noise = matched_noise(audio, seed=0)
    assert noise.shape == audio.shape and noise.dtype == audio.dtype
    torch.testing.assert_close(noise.square().mean(-1), audio.square().mean(-1))
    ratio = (welch(noise.double(), 512) / welch(audio.double(), 512)).log10() * 10
    assert ratio[:, 1:-1].abs().mean() < 0.6  # dB; what two draws of the same noise differ by
    assert ratio[:, 1:-1].abs().max() < 3


def test_matched_noise_is_independent_of_the_audio():
    audio = colored()
    noise = matched_noise(audio, seed=0)
    correlation = (noise * audio).sum(-1) / (noise.norm(dim=-1) * audio.norm(dim=-1))
    assert correlation.abs().max() < 0.1


def test_matched_noise_depends_on_seed_and_key():
    audio = colored(0.2)
    noise = matched_noise(audio, seed=1, key="a")
    assert torch.equal(noise, matched_noise(audio, seed=1, key="a"))
    assert not torch.equal(noise, matched_noise(audio, seed=2, key="a"))
    assert not torch.equal(noise, matched_noise(audio, seed=1, key="b"))


@pytest.mark.parametrize("samples", [1, 2, 3, 500])
def test_short_and_silent_clips(samples):
    audio = torch.full((2, samples), 0.25)
    audio[1] = 0
    noise = matched_noise(audio, seed=0)
    assert torch.isfinite(noise).all() and not noise[1].any()
    assert float(noise[0].square().mean()) == pytest.approx(0.0625, rel=1e-4)
    low = low_passed(audio, sample_rate=RATE, floats_per_second=100)
    assert low.shape == audio.shape and torch.isfinite(low).all()


def test_low_pass_keeps_frequencies_within_the_budget():
    time = torch.arange(2 * RATE) / RATE
    low, high = (0.3 * torch.sin(2 * math.pi * hertz * time) for hertz in (300, 1500))
    stereo = torch.stack([low + high, low])
    narrow = low_passed(stereo, sample_rate=RATE, floats_per_second=4000)  # 2000 Hz a channel: up to 1000 Hz
    inner = slice(RATE // 2, -RATE // 2)
    torch.testing.assert_close(narrow[0, inner], low[inner], atol=2e-3, rtol=0)
    mono = low_passed(stereo[:1], sample_rate=RATE, floats_per_second=4000)  # all of it for one: up to 2000 Hz
    torch.testing.assert_close(mono[0, inner], stereo[0, inner], atol=2e-3, rtol=0)


def test_low_pass_with_the_full_budget_returns_the_audio():
    audio = colored(0.1)
    assert torch.equal(low_passed(audio, sample_rate=RATE, floats_per_second=2 * RATE), audio)


def test_rates_of_latents():
    sets = LatentSpec(dim=64, sample_rate=44100, hop=4410, tokens_per_frame=8)
    assert sets.floats_per_second == 64 * 8 * 10
    assert sets.bit_rate is None
    codes = LatentSpec(dim=64, sample_rate=44100, hop=4410, tokens_per_frame=2, codebook_sizes=(1024, 256))
    assert codes.bit_rate == pytest.approx((10 + 8) * 2 * 10)
