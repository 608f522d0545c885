import math

import pytest
import torch
from partita.evaluation.metrics import LogMelL1Config, MultiResolutionSTFTConfig, SISDRConfig
from partita_core import PartitaError, components, lookup

CONFIGS = [LogMelL1Config(), MultiResolutionSTFTConfig(), SISDRConfig()]
RATE = 44100


@pytest.fixture(scope="module")
def music():
    """Half a second of two decaying chords over a noise floor, different in each channel."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(RATE // 2) / RATE
    chords = [(220, 554, 1318, 5000), (330, 415, 2637, 9000)]
    tones = [sum(torch.sin(2 * math.pi * f * time) for f in chord) * torch.exp(-3 * time) for chord in chords]
    return 0.1 * torch.stack(tones) + 0.003 * torch.randn(2, RATE // 2, generator=generator)


def with_noise(audio, snr_db):
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(1))
    return audio + noise * audio.square().mean().sqrt() * 10 ** (-snr_db / 20)


def better(metric, first, second):
    return first < second if metric.better == "lower" else first > second


def test_every_metric_is_registered_under_its_name():
    tags = {f"metric/{config.build(sample_rate=RATE).name}" for config in CONFIGS}
    assert tags <= set(components("metric/*"))
    assert lookup("si_sdr", ("metric",)) is SISDRConfig


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_equal_signals_get_the_best_score(config, rate, music):
    metric = config.build(sample_rate=rate)
    best = 100.0 if metric.name == "si_sdr" else 0.0
    assert metric(music, music) == best
    assert metric.config is config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
def test_more_noise_is_worse(config, music):
    metric = config.build(sample_rate=RATE)
    scores = [metric(with_noise(music, snr), music) for snr in (20, 10, 0)]
    assert better(metric, scores[0], scores[1]) and better(metric, scores[1], scores[2])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
def test_a_narrower_low_pass_is_worse(config, music):
    metric = config.build(sample_rate=RATE)

    def low_pass(hertz):
        spectrum = torch.fft.rfft(music)
        frequencies = torch.fft.rfftfreq(music.shape[-1], 1 / RATE)
        return torch.fft.irfft(spectrum * (frequencies < hertz), n=music.shape[-1])

    scores = [metric(low_pass(hertz), music) for hertz in (12000, 4000, 1000)]
    assert better(metric, scores[0], scores[1]) and better(metric, scores[1], scores[2])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
def test_polarity_gain_and_shift_move_it_as_documented(config, music):
    metric = config.build(sample_rate=RATE)
    best = metric(music, music)
    flipped, halved, shifted = metric(-music, music), metric(0.5 * music, music), metric(music.roll(1, -1), music)
    assert flipped == pytest.approx(best, abs=1e-6)
    if metric.name == "si_sdr":
        assert halved == pytest.approx(best)
        assert shifted < 30
    else:
        assert halved > 0.2
        assert shifted < 0.25 * metric(with_noise(music, 0), music)


def test_si_sdr_is_the_ratio_of_orthogonal_noise():
    reference = torch.tensor([[1.0, 1.0, 0.0, 0.0], [2.0, -2.0, 0.0, 0.0]])
    error = torch.tensor([[0.0, 0.0, 0.1, 0.1], [0.0, 0.0, 0.02, 0.02]])
    metric = SISDRConfig().build(sample_rate=RATE)
    assert metric(3 * (reference + error), reference) == pytest.approx((20 + 40) / 2, abs=1e-4)


def test_si_sdr_where_the_formula_has_no_value(music):
    metric = SISDRConfig(limit_db=80).build(sample_rate=RATE)
    silent = torch.zeros_like(music)
    assert metric(silent, music) == -80
    assert metric(music, silent) == -80
    assert metric(silent, silent) == 80
    one_sided = music * torch.tensor([[1.0], [0.0]])
    assert metric(with_noise(one_sided, 20), one_sided) == pytest.approx(
        metric(with_noise(one_sided, 20)[:1], one_sided[:1])
    )


def test_log_mel_of_a_gain_is_its_logarithm():
    loud = torch.randn(1, RATE, generator=torch.Generator().manual_seed(2)) * 0.3
    metric = LogMelL1Config().build(sample_rate=RATE)
    assert metric(loud / 10, loud) == pytest.approx(1.0, abs=1e-4)


def test_log_mel_does_not_look_under_its_floor():
    quiet = torch.randn(1, RATE, generator=torch.Generator().manual_seed(2)) * 1e-6
    metric = LogMelL1Config().build(sample_rate=RATE)
    assert metric(quiet, torch.zeros_like(quiet)) == 0
    assert LogMelL1Config(floor=1e-9).build(sample_rate=RATE)(quiet, torch.zeros_like(quiet)) > 1


def test_multi_resolution_stft_of_a_gain():
    loud = torch.randn(1, RATE, generator=torch.Generator().manual_seed(3)) * 0.3
    metric = MultiResolutionSTFTConfig().build(sample_rate=RATE)
    assert metric(loud / 2, loud) == pytest.approx(math.log(2) + 0.5, abs=1e-3)


def test_multi_resolution_stft_of_silence(music):
    metric = MultiResolutionSTFTConfig().build(sample_rate=RATE)
    silent = torch.zeros_like(music)
    logarithmic = metric(silent, music) - 1  # all convergence is missing
    assert metric(music, silent) == pytest.approx(logarithmic + 1, abs=1e-5)
    assert metric(silent, silent) == 0


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
@pytest.mark.parametrize("samples", [1, 2, 100])
@pytest.mark.parametrize("channels", [1, 2])
def test_short_and_silent_clips_give_numbers(config, samples, channels):
    metric = config.build(sample_rate=RATE)
    sound = torch.randn(channels, samples, generator=torch.Generator().manual_seed(4)).clamp(-1, 1)
    for estimate in (sound, -sound, torch.zeros_like(sound), torch.ones_like(sound)):
        for reference in (sound, torch.zeros_like(sound), torch.ones_like(sound)):
            assert math.isfinite(metric(estimate, reference))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
def test_shapes_that_differ_are_refused_with_both_figures(config):
    metric = config.build(sample_rate=RATE)
    with pytest.raises(PartitaError, match=r"\(1, 10\) and \(1, 11\)"):
        metric(torch.zeros(1, 10), torch.zeros(1, 11))
    with pytest.raises(PartitaError, match="not empty"):
        metric(torch.zeros(1, 0), torch.zeros(1, 0))
