import math
from copy import deepcopy

import pytest
import torch
from partita.evaluation import chunk_grid, chunk_samples, evaluate
from partita.evaluation.metrics import Drift, DriftConfig, LogMelL1, SeamExcess, SeamExcessConfig
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, PartitaError, lookup
from partita_decoders import ConsistencyDecoderConfig, GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig, SummaryEncoderConfig

RATE, CHUNK = 44_100, 32_768
AUDIO = AudioSpec(8000, 1, (ChannelLayout.MONO,))


def clicks(*, chunks=6, spacing=1024, at_seams=1.0):
    """Impulses of 1 every `spacing` samples, those at seams of height `at_seams`."""
    audio = torch.zeros(1, chunks * CHUNK)
    audio[:, ::spacing] = 1.0
    audio[:, ::CHUNK] = at_seams
    return audio


def noise(seconds, seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(channels, int(seconds * RATE), generator=generator)


def faded(audio, width=256):
    """The audio with a gap of `width` samples to either side of every seam."""
    audio = audio.clone()
    for seam in range(CHUNK, audio.shape[-1], CHUNK):
        audio[:, seam - width : seam + width] = 0
    return audio


@pytest.fixture(scope="module")
def chunked():
    torch.manual_seed(0)
    config = AutoencoderConfig(
        AUDIO, 4, SummaryEncoderConfig.example(), TanhConfig(), ConsistencyDecoderConfig.example()
    )
    return config.build().eval()


def test_seam_excess_of_clicks_is_a_formula():
    # The flux of a click of height a sums to twice log10((a + floor) / floor), over the frames that it passes through.
    metric = SeamExcess(chunk=CHUNK)
    expected = 100 * (math.log10(2 / 1e-4 + 1) / math.log10(1 / 1e-4 + 1) - 1)
    assert expected == pytest.approx(7.525, abs=1e-3)
    assert metric(clicks(at_seams=2.0), clicks()) == pytest.approx(expected, abs=1e-9)
    assert metric(clicks(), clicks(at_seams=2.0)) == pytest.approx(100 / (1 + expected / 100) - 100, abs=1e-9)


def test_seam_excess_ignores_clicks_that_are_neither_near_nor_far():
    metric = SeamExcess(chunk=CHUNK)
    inside, between = clicks(), clicks()
    inside[:, CHUNK // 2 :: CHUNK] = 2.0
    between[:, 2048::CHUNK] = 2.0
    assert metric(inside, clicks()) < -0.1
    assert metric(between, clicks()) == 0


def test_seam_excess_of_gaps_in_noise_depends_on_the_grid():
    metric = SeamExcess(chunk=CHUNK)
    source = noise(8, channels=2)
    assert metric(source, source) == 0
    assert abs(metric(noise(8, seed=1, channels=2), source)) < 2  # equally loud and independent
    assert metric(faded(source), source) > 50
    elsewhere = SeamExcess(chunk=CHUNK - 5120)
    assert elsewhere(faded(source), source) < 0  # there, the gaps are within chunks


def test_seam_excess_leaves_out_the_edges():
    source = noise(8)
    broken = source.clone()
    broken[:, CHUNK - 256 : CHUNK + 256] = 0  # the first seam
    assert SeamExcess(chunk=CHUNK)(broken, source) == 0
    assert SeamExcess(chunk=CHUNK, edge=4096)(broken, source) > 5


def test_seam_excess_of_silence_is_zero():
    metric = SeamExcess(chunk=CHUNK)
    silent = torch.zeros(2, 6 * CHUNK)
    assert metric(silent, silent) == 0
    assert math.isfinite(metric(silent, noise(6 * CHUNK / RATE, channels=2)))
    assert math.isfinite(metric(noise(6 * CHUNK / RATE, channels=2), silent))


@pytest.mark.parametrize("samples", [1, 100, CHUNK, CHUNK + 40_000])
def test_seam_excess_rejects_a_clip_without_a_seam(samples):
    metric = SeamExcess(chunk=CHUNK)
    audio = torch.ones(1, samples)
    with pytest.raises(PartitaError, match=f"{samples} samples.* 32768"):
        metric(audio, audio)


def test_seam_excess_of_the_shortest_clip():
    metric = SeamExcess(chunk=CHUNK, edge=0)
    audio = noise((CHUNK + 256) / RATE)
    assert metric(audio, audio) == 0


@pytest.mark.parametrize(
    "settings", [{"near": 5000}, {"far": CHUNK // 2}, {"near": 1}, {"chunk": 4096}], ids=lambda s: next(iter(s))
)
def test_seam_excess_rejects_invalid_grids(settings):
    with pytest.raises(PartitaError, match="seam_excess.*near.*far"):
        SeamExcess(**{"chunk": CHUNK} | settings)


def gained(audio, errors):
    """The audio, chunk k with a log10 gain of `errors[k]`."""
    gains = torch.tensor([10.0**error for error in errors]).repeat_interleave(CHUNK)
    return audio * gains[: audio.shape[-1]]


def test_drift_of_a_linear_rise_is_its_slope():
    metric = Drift(RATE, chunk=CHUNK)
    source = noise(12 * CHUNK / RATE)
    errors = [0.2 + 0.01 * k for k in range(12)]
    expected = 100 * 60 * 0.01 / (sum(errors) / 12)
    assert metric(gained(source, errors), source) == pytest.approx(expected, rel=0.01)
    assert metric(gained(source, errors[::-1]), source) == pytest.approx(-expected, rel=0.01)
    half = Drift(RATE, chunk=CHUNK, chunks=30)
    assert half(gained(source, errors), source) == pytest.approx(expected / 2, rel=0.01)


def test_drift_of_a_constant_error_is_zero():
    metric = Drift(RATE, chunk=CHUNK)
    source = noise(12 * CHUNK / RATE)
    assert metric(source, source) == 0
    assert abs(metric(gained(source, [0.2] * 12), source)) < 0.1


def test_drift_errors_are_of_complete_chunks_and_average_to_log_mel_l1():
    metric = Drift(RATE, chunk=CHUNK)
    source, other = noise(3.5 * CHUNK / RATE, channels=2), noise(3.5 * CHUNK / RATE, seed=1, channels=2)
    errors = metric.errors(other, source)
    assert errors.shape == (3,)
    whole = LogMelL1(RATE)(other, source)
    assert float(errors.mean()) == pytest.approx(whole, rel=0.01)


def test_drift_rejects_a_clip_of_one_chunk():
    metric = Drift(RATE, chunk=CHUNK)
    audio = torch.ones(1, 2 * CHUNK - 1)
    with pytest.raises(PartitaError, match="has 1 .* 32768"):
        metric(audio, audio)


def test_chunk_metrics_are_registered():
    assert lookup("seam_excess", ("metric",)) is SeamExcessConfig
    assert lookup("drift", ("metric",)) is DriftConfig


def test_chunk_samples_of_codecs(chunked):
    assert chunk_samples(chunked) == 48
    plain = AutoencoderConfig(AUDIO, 4, GenAEEncoderConfig.example(), TanhConfig(), GenAEDecoderConfig.example())
    assert chunk_samples(plain.build()) is None


def test_chunk_metrics_use_the_models_grid(chunked):
    """Also at another sample rate; different grids, or none, are errors."""
    plain = AutoencoderConfig(
        AUDIO, 4, GenAEEncoderConfig.example(), TanhConfig(), GenAEDecoderConfig.example()
    ).build()
    assert chunk_grid({"a": chunked, "plain": plain}, 8000) == 48
    assert chunk_grid({"a": chunked}, 22_050) == pytest.approx(48 * 22_050 / 8000)
    with pytest.raises(PartitaError, match="no model decodes in chunks"):
        chunk_grid({"plain": plain}, 8000)
    half = deepcopy(chunked)
    half.decoder.frames_per_chunk *= 2
    with pytest.raises(PartitaError, match=r"the models' chunks differ \(samples at 8000 Hz: a 48, half 96\)"):
        chunk_grid({"a": chunked, "half": half}, 8000)
    with pytest.raises(PartitaError, match="seam_excess.*chunk"):
        SeamExcessConfig().build(sample_rate=8000)

    audio = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    seams = SeamExcessConfig(window=16, hop=4, near=4, far=8, edge=0)
    found = evaluate({"a": chunked}, [("clip", audio, ChannelLayout.MONO)], [seams], references=False)
    assert found.settings["metrics"][0]["chunk"] == 48


def test_chunks_need_not_be_an_integer_number_of_frames():
    """Clicks on a grid of 1000.5 samples are seams on this grid only."""
    source = 0.01 * noise(2)
    broken = source.clone()
    broken[:, (torch.arange(1, 80) * 1000.5).long()] += 1
    settings = {"window": 64, "hop": 16, "near": 40, "far": 200, "edge": 0}
    right, wrong = (SeamExcess(chunk=chunk, **settings)(broken, source) for chunk in (1000.5, 900))
    assert right > 50 and abs(wrong) < right / 4
    drifting = Drift(RATE, chunk=2000.5).errors(broken, source)
    assert len(drifting) == int(2 * RATE // 2000.5) and torch.isfinite(drifting).all()
