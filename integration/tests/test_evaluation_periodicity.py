import pytest
import torch
from partita.evaluation import evaluate
from partita.evaluation.metrics import FrameBuzz
from partita_core import AudioSpec, ChannelLayout, Codec, LatentSpec, PartitaError
from torch import nn

RATE, HOP = 16_000, 320


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def repeated(hop, samples, channels=1, seed=5):
    return noise(channels, hop, seed=seed).repeat(1, samples // hop + 1)[:, :samples]


def band_noise(hop, *, rate=RATE, samples=48_000):
    """Periodic noise below 3.4 kHz under white noise."""
    spectrum = torch.fft.rfft(repeated(hop, samples))
    spectrum[:, torch.fft.rfftfreq(samples, 1 / rate) > 3400] = 0
    return torch.fft.irfft(spectrum, n=samples) + 0.1 * noise(1, samples, seed=6)


@pytest.mark.parametrize("channels", [1, 2])
def test_values_of_noise_repeated_noise_and_equal_signals(channels):
    metric, original = FrameBuzz(RATE, hop=HOP), noise(channels, 48_000)
    assert metric(original, original) == 0.0
    assert abs(metric(noise(channels, 48_000, seed=1), original)) < 0.02
    assert metric(repeated(HOP, 48_000, channels), original) == pytest.approx(1, abs=0.02)
    mixed = repeated(HOP, 48_000, channels) + noise(channels, 48_000, seed=1)
    assert metric(mixed, original) == pytest.approx(0.5, abs=0.05)
    assert metric(original, repeated(HOP, 48_000, channels)) == pytest.approx(-1, abs=0.02)


def test_only_the_band_and_the_hop_count():
    metric, original = FrameBuzz(RATE, hop=HOP), noise(1, 48_000)
    assert abs(metric(band_noise(HOP), original)) < 0.02
    assert abs(metric(repeated(HOP + 7, 48_000), original)) < 0.05
    assert FrameBuzz(RATE, hop=HOP, low=100.0)(band_noise(HOP), original) > 0.8


def test_hops_need_not_be_integers():
    """A texture of 441 samples at 22.05 kHz is 320 samples at 16 kHz; at 12 kHz, 20.5 samples are half of 41."""
    original = noise(1, 24_000)
    assert FrameBuzz(12_000, hop=20.5)(repeated(41, 24_000), original) < 0.4  # lags of 0.5, 1 and 1.5 periods
    upsampled = torch.fft.irfft(torch.fft.rfft(repeated(320, 16_000)), n=22_050) * 22_050 / 16_000
    assert FrameBuzz(22_050, hop=441)(upsampled, noise(1, 22_050)) == pytest.approx(1, abs=0.02)
    upsampled = torch.fft.irfft(torch.fft.rfft(repeated(325, 16_250)), n=22_000) * 22_000 / 16_250
    assert FrameBuzz(22_000, hop=440)(upsampled, noise(1, 22_000)) == pytest.approx(1, abs=0.02)


def test_silent_bands_are_not_periodic():
    metric, original = FrameBuzz(RATE, hop=HOP), noise(1, 48_000)
    for estimate in (torch.zeros_like(original), 1e-7 * repeated(HOP, 48_000)):
        assert abs(metric(estimate, original)) < 0.02
    assert metric(torch.zeros_like(original), torch.zeros_like(original)) == 0.0


def test_clips_that_cannot_be_measured():
    original = noise(1, 4 * HOP)
    assert FrameBuzz(RATE, hop=HOP)(original, original) == 0.0
    with pytest.raises(PartitaError, match="1279 samples.*320"):
        FrameBuzz(RATE, hop=HOP)(original[:, :-1], original[:, :-1])
    with pytest.raises(PartitaError, match="3500 Hz.*7500 Hz"):
        FrameBuzz(7500, hop=HOP)(original, original)
    with pytest.raises(PartitaError, match="hop=320"):
        FrameBuzz(RATE)(original, original)


class Textured(Codec):
    """A codec that decodes any latents to one texture per frame."""

    encode_context = decode_context = (0, 0)

    def __init__(self, hop, rate=RATE):
        super().__init__()
        self.audio_spec = AudioSpec(rate, 1, (ChannelLayout.MONO,))
        self.latent_spec = LatentSpec(4, rate, hop)
        self.texture = nn.Parameter(repeated(hop, hop).float())

    def encode_frames(self, audio, layout, num_quantizers):
        return audio.unflatten(-1, (-1, self.latent_spec.hop))[..., :4].squeeze(1).mT, None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return self.texture.repeat(len(values), 1, values.shape[-1])


CLIPS = [("a", noise(1, 32_000).float(), "mono"), ("b", noise(1, 2000, seed=3).float(), "mono")]


def test_every_model_is_measured_at_its_own_hop():
    models = {"one": Textured(320), "other": Textured(500), "slow": Textured(163, rate=8000)}
    found = evaluate(models, CLIPS[:1], sample_rate=RATE)
    values = {name: row["frame_buzz"].mean for name, row in found.means.items()}
    assert all(values[name] > 0.9 for name in models)
    assert abs(values["matched noise"]) < 0.05
    by_name = evaluate({"one": models["one"], "other": models["other"]}, CLIPS[:1], ["frame_buzz"], sample_rate=RATE)
    assert by_name.means["other"]["frame_buzz"].mean == values["other"]
    assert by_name.settings["metrics"][0]["hop"] is None


def test_default_metrics_that_measure_no_clip_are_left_out():
    found = evaluate({"one": Textured(320)}, CLIPS[1:], sample_rate=2000)
    assert [metric.name for metric in found.metrics] == ["log_mel_l1", "multi_resolution_stft", "si_sdr"]
    assert found.skipped == {} and "frame_buzz" not in found.scores["one"]
    with pytest.raises(PartitaError, match="frame_buzz can measure none"):
        evaluate({"one": Textured(320)}, CLIPS[1:], ["frame_buzz"], sample_rate=2000)
    some = evaluate({"one": Textured(800)}, CLIPS, sample_rate=RATE)
    assert list(some.skipped["frame_buzz"]) == ["b"]
