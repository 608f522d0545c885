import math
import sys

import numpy as np
import pytest
import torch
from partita.evaluation import named_metrics
from partita.evaluation.metrics import (
    ESTOIConfig,
    LogMelL1Config,
    LogSpectralDistanceConfig,
    LoudnessErrorConfig,
    MelCepstralDistortion,
    MelCepstralDistortionConfig,
    MultiScaleMelDistanceConfig,
    PESQConfig,
    PhaseErrorConfig,
    SeamExcessConfig,
    SISDRConfig,
    StereoImageErrorConfig,
    STFTDistanceConfig,
    STOIConfig,
    ViSQOLConfig,
)
from partita.evaluation.metrics.waveform import k_weighting
from partita_core import AudioSpec, ChannelLayout, PartitaError, components, lookup
from partita_losses import MultiScaleMelConfig

CONFIGS = [config for config in named_metrics(["all"]) if type(config).__module__.startswith("partita.")]
RATE = 44100
PERCEPTUAL = [
    (STOIConfig(), "pystoi"),
    (ESTOIConfig(), "pystoi"),
    (PESQConfig(), "pesq"),
    (ViSQOLConfig(), "visqol"),
]


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


def test_metrics_are_registered_under_their_names():
    tags = {f"metric/{config.build(sample_rate=RATE).name}" for config in CONFIGS}
    assert tags <= set(components("metric/*"))
    assert lookup("si_sdr", ("metric",)) is SISDRConfig


def test_all_names_the_metrics_that_measure_any_clip():
    assert len(CONFIGS) == 9
    assert not {f"metric/{name}" for name in ("drift", "seam_excess", "stoi", "estoi", "pesq", "visqol")} & {
        each.tag for each in CONFIGS
    }
    found = named_metrics(["stoi", "all", "lsd"])
    assert found[0] == STOIConfig() and len(found) == len(set(found)) and set(CONFIGS) < set(found)
    (seams,) = named_metrics(["seam_excess:chunk=26880,edge=0"])
    assert seams == SeamExcessConfig(chunk=26_880, edge=0)
    with pytest.raises(PartitaError, match="lds.*lsd"):
        named_metrics(["all", "lds"])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_equal_signals_get_the_best_score(config, rate, music):
    metric = config.build(sample_rate=rate)
    best = 100.0 if metric.name == "si_sdr" else 0.0
    assert metric(music, music) == best
    assert metric.config == config


def test_si_sdr_is_the_ratio_of_orthogonal_noise():
    reference = torch.tensor([[1.0, 1.0, 0.0, 0.0], [2.0, -2.0, 0.0, 0.0]])
    error = torch.tensor([[0.0, 0.0, 0.1, 0.1], [0.0, 0.0, 0.02, 0.02]])
    metric = SISDRConfig().build(sample_rate=RATE)
    assert metric(3 * (reference + error), reference) == pytest.approx((20 + 40) / 2, abs=1e-4)


def test_si_sdr_of_silent_channels(music):
    metric = SISDRConfig(limit_db=80).build(sample_rate=RATE)
    silent = torch.zeros_like(music)
    assert metric(silent, music) == -80
    assert metric(music, silent) == -80
    assert metric(silent, silent) == 80
    one_sided = music * torch.tensor([[1.0], [0.0]])
    assert metric(with_noise(one_sided, 20), one_sided) == pytest.approx(
        metric(with_noise(one_sided, 20)[:1], one_sided[:1])
    )


def test_log_mel_l1_of_a_gain_is_its_logarithm():
    loud = torch.randn(1, RATE, generator=torch.Generator().manual_seed(2)) * 0.3
    metric = LogMelL1Config().build(sample_rate=RATE)
    assert metric(loud / 10, loud) == pytest.approx(1.0, abs=1e-4)


def test_log_mel_l1_ignores_magnitudes_below_its_floor():
    quiet = torch.randn(1, RATE, generator=torch.Generator().manual_seed(2)) * 1e-6
    metric = LogMelL1Config().build(sample_rate=RATE)
    assert metric(quiet, torch.zeros_like(quiet)) == 0
    assert LogMelL1Config(floor=1e-9).build(sample_rate=RATE)(quiet, torch.zeros_like(quiet)) > 1


def test_stft_distance_of_a_gain():
    loud = torch.randn(1, RATE, generator=torch.Generator().manual_seed(3)) * 0.3
    metric = STFTDistanceConfig().build(sample_rate=RATE)
    assert metric(loud / 2, loud) == pytest.approx(math.log(2) + 0.5, abs=1e-3)


def test_stft_distance_of_silence(music):
    metric = STFTDistanceConfig().build(sample_rate=RATE)
    silent = torch.zeros_like(music)
    logarithmic = metric(silent, music) - 1  # convergence is 1
    assert metric(music, silent) == pytest.approx(logarithmic + 1, abs=1e-5)
    assert metric(silent, silent) == 0


def noise(seconds, channels=1, rate=RATE):
    generator = torch.Generator().manual_seed(5)
    return 0.1 * torch.randn(channels, int(seconds * rate), generator=generator, dtype=torch.float64)


def sine(dbfs, seconds, hertz=997, rate=48_000):
    return 10 ** (dbfs / 20) * torch.sin(2 * math.pi * hertz / rate * torch.arange(int(seconds * rate)).double())


# ------------------------------------------------------------------ spectral distances


def test_multi_scale_mel_equals_the_loss(music):
    loss = MultiScaleMelConfig().build(audio_spec=AudioSpec(RATE, 2, (ChannelLayout.STEREO,)))
    estimate = with_noise(music, 10)
    metric = MultiScaleMelDistanceConfig().build(sample_rate=RATE)
    assert metric(estimate, music) == float(loss(estimate[None], music[None]))


def test_lsd_is_the_rms_of_level_differences():
    metric = LogSpectralDistanceConfig().build(sample_rate=RATE)
    assert metric(noise(1) / 10, noise(1)) == pytest.approx(20, abs=0.01)
    # Half of the frequencies are attenuated by 40 dB, so the mean of the squares is half of 40^2.
    spectrum = torch.fft.rfft(noise(1))
    spectrum[:, : spectrum.shape[1] // 2] /= 100
    assert metric(torch.fft.irfft(spectrum, n=RATE), noise(1)) == pytest.approx(40 / math.sqrt(2), rel=0.03)


def test_mcd_of_all_coefficients_is_the_deviation_of_mel_level_differences(music):
    reference, estimate = music, with_noise(music, 10).flip(0)
    config = MelCepstralDistortionConfig(coefficients=79)
    levels = LogMelL1Config().build(sample_rate=RATE)
    differences = 20 * (levels.log_mel(estimate) - levels.log_mel(reference))
    expected = differences.std(1, correction=0).mean()  # over the bands of a frame; coefficient 0 is their mean
    assert config.build(sample_rate=RATE)(estimate, reference) == pytest.approx(float(expected), rel=1e-4)


def test_mcd_needs_more_bands_than_coefficients():
    with pytest.raises(PartitaError, match="coefficients is 80 and num_mels 80"):
        MelCepstralDistortion(RATE, coefficients=80)


# ------------------------------------------------------------------ phase and image


def test_phase_error_of_unrelated_or_silent_estimates_is_half_pi():
    metric = PhaseErrorConfig().build(sample_rate=RATE)
    assert metric(noise(2, 2)[:1], noise(2, 2)[1:]) == pytest.approx(math.pi / 2, abs=0.02)
    assert metric(torch.zeros(1, RATE), noise(1)) == pytest.approx(math.pi / 2)
    assert metric(noise(1), torch.zeros(1, RATE)) == math.pi / 2


def test_phase_error_of_a_shift_is_its_share_of_the_period():
    metric = PhaseErrorConfig().build(sample_rate=RATE)
    tone = sine(0, 1, hertz=RATE / 16, rate=RATE)[None]
    assert metric(tone.roll(1, -1), tone) == pytest.approx(2 * math.pi / 16, rel=0.05)


def test_stereo_image_error_of_known_images():
    metric = StereoImageErrorConfig().build(sample_rate=RATE)
    sound, other = noise(1, 2)
    silent = torch.zeros_like(sound)
    left, right, center = torch.stack([sound, silent]), torch.stack([silent, sound]), torch.stack([sound, sound])
    outside, wide = torch.stack([sound, -sound]), torch.stack([sound, other])
    panned = torch.stack([sound, 0.5 * sound])
    assert metric(right, left) == pytest.approx(1) and metric(outside, center) == pytest.approx(1)
    assert metric(left, center) == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert metric(panned.flip(0), panned) == pytest.approx((1 - 0.25) / (1 + 0.25), rel=1e-6)
    assert metric(wide, center) == pytest.approx(0.5, abs=0.06)  # bands of few bins are coherent by chance
    assert metric(0.3 * panned, panned) < 1e-9
    assert metric(silent.expand(2, -1), center) == 1


def test_stereo_image_error_is_invariant_to_mid_side_and_zero_for_mono(music):
    metric = StereoImageErrorConfig().build(sample_rate=RATE)
    estimate = with_noise(music, 10)
    rotation = torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    assert metric(rotation @ estimate, rotation @ music) == pytest.approx(metric(estimate, music), rel=1e-4)
    assert metric(-estimate[:1], music[:1]) == 0
    with pytest.raises(PartitaError, match="3 channels"):
        metric(torch.zeros(3, 9), torch.zeros(3, 9))


# ------------------------------------------------------------------ loudness


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000, 96_000])
def test_loudness_of_a_full_scale_sine_in_one_channel(rate):
    """ITU-R BS.1770-5, annex 1: 997 Hz at 0 dBFS in the left channel is -3.01 LKFS, at every rate."""
    metric = LoudnessErrorConfig().build(sample_rate=rate)
    left = torch.stack([sine(0, 2, rate=rate), torch.zeros(2 * rate)])
    assert metric.loudness(left) == pytest.approx(-3.01, abs=0.005)


# EBU Tech 3341, table 1, cases 1 to 5: seconds and dBFS of 1 kHz in both channels.
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(20, -23)], -23),
        ([(20, -33)], -33),
        ([(10, -36), (60, -23), (10, -36)], -23),
        ([(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)], -23),
        ([(20, -26), (20.1, -20), (20, -26)], -23),
    ],
)
def test_gated_loudness_meets_the_minimum_requirements(parts, expected):
    rate = 8000
    signal = torch.cat([sine(level, seconds, hertz=1000, rate=rate) for seconds, level in parts])
    found = LoudnessErrorConfig().build(sample_rate=rate).loudness(signal.expand(2, -1))
    assert found == pytest.approx(expected, abs=0.1)


def test_k_weighting_equals_the_published_recursive_filters():
    shelf = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (-1.69065929318241, 0.73248077421585))
    high_pass = ((1.0, -2.0, 1.0), (-1.99004745483398, 0.99007225036621))
    response = [1.0] + [0.0] * 11_999
    for (b0, b1, b2), (a1, a2) in (shelf, high_pass):
        x, response = [0.0, 0.0, *response], [0.0, 0.0]
        for n in range(2, len(x)):
            feedback = a1 * response[n - 1] + a2 * response[n - 2]
            response.append(b0 * x[n] + b1 * x[n - 1] + b2 * x[n - 2] - feedback)
        response = response[2:]
    found = torch.fft.irfft(k_weighting(torch.fft.rfftfreq(12_000, 1 / 48_000, dtype=torch.float64)))
    torch.testing.assert_close(found, torch.tensor(response, dtype=torch.float64), atol=1e-10, rtol=0)


def test_loudness_of_silence_is_the_absolute_gate():
    metric = LoudnessErrorConfig().build(sample_rate=48_000)
    tone = sine(-20, 1)[None]
    assert metric(torch.zeros_like(tone), tone) == pytest.approx(70 - 23.01, abs=0.01)
    assert metric(1e-4 * tone, 1e-5 * tone) == 0


# ------------------------------------------------------------------ perceptual metrics


@pytest.mark.parametrize(("config", "package"), PERCEPTUAL)
def test_perceptual_metrics_name_the_extra_and_reject_short_clips(config, package, music, monkeypatch):
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, package, None)
        with pytest.raises(PartitaError, match=r"pip install 'partita\[perceptual\]'"):
            config.build(sample_rate=RATE)
    pytest.importorskip(package)
    metric = config.build(sample_rate=RATE)
    for sound in (music[:, :4000], torch.zeros(2, RATE)):
        with pytest.raises(PartitaError, match=config.tag.split("/")[1]):
            metric(sound, sound)


@pytest.mark.parametrize(("config", "package"), PERCEPTUAL)
def test_perceptual_metrics_skip_silent_channels(config, package, music):
    pytest.importorskip(package)
    metric = config.build(sample_rate=RATE)
    one_sided = music.repeat(1, 2) * torch.tensor([[1.0], [0.0]])
    estimate = with_noise(one_sided, 20)
    assert metric(estimate, one_sided) == metric(estimate[:1], one_sided[:1])
    assert metric(torch.zeros_like(one_sided), one_sided) == (0 if package == "pystoi" else 1)


def test_estoi_is_deterministic_and_below_stoi_for_modulated_noise(music):
    pytest.importorskip("pystoi")
    stoi, estoi = (config.build(sample_rate=RATE) for config in (STOIConfig(), ESTOIConfig()))
    clip = music.repeat(1, 3)
    low_passed = torch.fft.irfft(torch.fft.rfft(clip)[:, :1500], n=clip.shape[-1])  # leaves bands empty
    state = np.random.get_state()[1].copy()
    first = estoi(low_passed, clip)
    assert first == estoi(low_passed, clip) and (np.random.get_state()[1] == state).all()
    beats = with_noise(clip, 0) * (1 + torch.sin(torch.arange(clip.shape[-1]) * 2 * math.pi * 8 / RATE))
    assert estoi(beats, clip) < stoi(beats, clip) - 0.05


# ------------------------------------------------------------------ all metrics


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
@pytest.mark.parametrize("samples", [1, 2, 100])
@pytest.mark.parametrize("channels", [1, 2])
def test_metrics_are_finite_on_short_and_silent_clips(config, samples, channels):
    metric = config.build(sample_rate=RATE)
    sound = torch.randn(channels, samples, generator=torch.Generator().manual_seed(4)).clamp(-1, 1)
    for estimate in (sound, -sound, torch.zeros_like(sound), torch.ones_like(sound)):
        for reference in (sound, torch.zeros_like(sound), torch.ones_like(sound)):
            assert math.isfinite(metric(estimate, reference))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.tag)
def test_metrics_reject_different_shapes_with_both_shapes(config):
    metric = config.build(sample_rate=RATE)
    with pytest.raises(PartitaError, match=r"\(1, 10\) and \(1, 11\)"):
        metric(torch.zeros(1, 10), torch.zeros(1, 11))
    with pytest.raises(PartitaError, match="not empty"):
        metric(torch.zeros(1, 0), torch.zeros(1, 0))
