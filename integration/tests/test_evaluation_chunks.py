import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from partita.evaluation import by_chunk, chunk_grid, chunk_samples, evaluate, with_sampler
from partita.evaluation.metrics import DriftConfig, LogMelL1Config, SeamExcessConfig
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, PartitaError, lookup
from partita_decoders import ConsistencyDecoderConfig, GenAEDecoderConfig
from partita_decoders.samplers import Independent, TwoStep
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
    metric = SeamExcessConfig(CHUNK).build(sample_rate=RATE)
    expected = 100 * (math.log10(2 / 1e-4 + 1) / math.log10(1 / 1e-4 + 1) - 1)
    assert expected == pytest.approx(7.525, abs=1e-3)
    assert metric(clicks(at_seams=2.0), clicks()) == pytest.approx(expected, abs=1e-9)
    assert metric(clicks(), clicks(at_seams=2.0)) == pytest.approx(100 / (1 + expected / 100) - 100, abs=1e-9)


def test_clicks_away_from_seams_lower_it_and_those_in_between_do_not_count():
    metric = SeamExcessConfig(CHUNK).build(sample_rate=RATE)
    inside, between = clicks(), clicks()
    inside[:, CHUNK // 2 :: CHUNK] = 2.0
    between[:, 2048::CHUNK] = 2.0
    assert metric(inside, clicks()) < -0.1
    assert metric(between, clicks()) == 0


def test_seams_are_found_in_noise_and_on_their_own_grid_only():
    metric = SeamExcessConfig(CHUNK).build(sample_rate=RATE)
    source = noise(8, channels=2)
    assert metric(source, source) == 0
    assert abs(metric(noise(8, seed=1, channels=2), source)) < 2  # as loud, but nothing in common
    assert metric(faded(source), source) > 50
    elsewhere = SeamExcessConfig(chunk=CHUNK - 5120).build(sample_rate=RATE)
    assert elsewhere(faded(source), source) < 0  # there, the gaps are within chunks


def test_the_edges_are_left_out():
    source = noise(8)
    broken = source.clone()
    broken[:, CHUNK - 256 : CHUNK + 256] = 0  # the first seam
    assert SeamExcessConfig(CHUNK).build(sample_rate=RATE)(broken, source) == 0
    assert SeamExcessConfig(CHUNK, edge=4096).build(sample_rate=RATE)(broken, source) > 5


def test_silence_has_no_excess():
    metric = SeamExcessConfig(CHUNK).build(sample_rate=RATE)
    silent = torch.zeros(2, 6 * CHUNK)
    assert metric(silent, silent) == 0
    assert math.isfinite(metric(silent, noise(6 * CHUNK / RATE, channels=2)))
    assert math.isfinite(metric(noise(6 * CHUNK / RATE, channels=2), silent))


@pytest.mark.parametrize("samples", [1, 100, CHUNK, CHUNK + 40_000])
def test_a_clip_without_a_seam_is_refused(samples):
    metric = SeamExcessConfig(CHUNK).build(sample_rate=RATE)
    audio = torch.ones(1, samples)
    with pytest.raises(PartitaError, match=f"chunks of 32768 samples is to be measured in a clip of {samples},"):
        metric(audio, audio)


def test_the_shortest_clip_with_a_seam_is_measured():
    metric = SeamExcessConfig(CHUNK, edge=0).build(sample_rate=RATE)
    audio = noise((CHUNK + 256) / RATE)
    assert metric(audio, audio) == 0


@pytest.mark.parametrize(
    "settings", [{"near": 5000}, {"far": CHUNK // 2}, {"near": 1}, {"chunk": 4096}], ids=lambda s: next(iter(s))
)
def test_a_grid_that_cannot_be_measured_is_refused(settings):
    with pytest.raises(PartitaError, match="seams every"):
        SeamExcessConfig(**{"chunk": CHUNK} | settings)


def gained(audio, errors):
    """The audio, chunk k with a log10 gain of `errors[k]`."""
    gains = torch.tensor([10.0**error for error in errors]).repeat_interleave(CHUNK)
    return audio * gains[: audio.shape[-1]]


def test_drift_of_a_linear_rise_is_its_slope():
    metric = DriftConfig(CHUNK).build(sample_rate=RATE)
    source = noise(12 * CHUNK / RATE)
    errors = [0.2 + 0.01 * k for k in range(12)]
    expected = 100 * 60 * 0.01 / (sum(errors) / 12)
    assert metric(gained(source, errors), source) == pytest.approx(expected, rel=0.01)
    assert metric(gained(source, errors[::-1]), source) == pytest.approx(-expected, rel=0.01)
    half = DriftConfig(CHUNK, chunks=30).build(sample_rate=RATE)
    assert half(gained(source, errors), source) == pytest.approx(expected / 2, rel=0.01)


def test_an_error_that_stays_does_not_drift():
    metric = DriftConfig(CHUNK).build(sample_rate=RATE)
    source = noise(12 * CHUNK / RATE)
    assert metric(source, source) == 0
    assert abs(metric(gained(source, [0.2] * 12), source)) < 0.1


def test_errors_are_of_whole_chunks_and_their_mean_is_the_log_mel_distance():
    metric = DriftConfig(CHUNK).build(sample_rate=RATE)
    source, other = noise(3.5 * CHUNK / RATE, channels=2), noise(3.5 * CHUNK / RATE, seed=1, channels=2)
    errors = metric.errors(other, source)
    assert errors.shape == (3,)
    whole = LogMelL1Config().build(sample_rate=RATE)(other, source)
    assert float(errors.mean()) == pytest.approx(whole, rel=0.01)


def test_one_chunk_does_not_drift():
    metric = DriftConfig(CHUNK).build(sample_rate=RATE)
    audio = torch.ones(1, 2 * CHUNK - 1)
    with pytest.raises(PartitaError, match="has 1 whole chunks of 32768"):
        metric(audio, audio)


def test_they_are_registered():
    assert lookup("seam_excess", ("metric",)) is SeamExcessConfig
    assert lookup("drift", ("metric",)) is DriftConfig


def test_frames_go_to_the_chunk_that_they_are_centred_in():
    frames = torch.arange(1 + 100 // 8)  # of 100 samples, centered on 0, 8, ... 96
    assert by_chunk(frames, hop=8, chunk=32).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert by_chunk(frames[:4], hop=8, chunk=32).shape == (0, 4)
    with pytest.raises(PartitaError, match="30 samples is no multiple of the hop of 8"):
        by_chunk(frames, hop=8, chunk=30)


def test_the_grid_of_a_codec(chunked):
    assert chunk_samples(chunked) == 48
    plain = AutoencoderConfig(AUDIO, 4, GenAEEncoderConfig.example(), TanhConfig(), GenAEDecoderConfig.example())
    assert chunk_samples(plain.build()) is None
    with pytest.raises(PartitaError, match="has no decoder that denoises"):
        with_sampler(plain.build(), Independent())


def test_seams_are_looked_for_where_the_models_have_them(chunked):
    """At another rate, too; of several grids none is the one, and without chunks there is none."""
    plain = AutoencoderConfig(
        AUDIO, 4, GenAEEncoderConfig.example(), TanhConfig(), GenAEDecoderConfig.example()
    ).build()
    assert chunk_grid({"a": chunked, "plain": plain}, 8000) == 48
    assert chunk_grid({"a": chunked}, 22_050) == pytest.approx(48 * 22_050 / 8000)
    with pytest.raises(PartitaError, match="no model decodes in chunks; name samples"):
        chunk_grid({"plain": plain}, 8000)
    half = deepcopy(chunked)
    half.decoder.frames_per_chunk *= 2
    with pytest.raises(PartitaError, match=r"the models' chunks differ \(samples at 8000 Hz: a 48, half 96\)"):
        chunk_grid({"a": chunked, "half": half}, 8000)
    with pytest.raises(PartitaError, match="seam_excess needs to know the chunk"):
        SeamExcessConfig().build(sample_rate=8000)

    audio = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    seams = replace(SeamExcessConfig(48, window=16, hop=4, near=4, far=8, edge=0), chunk=None)
    found = evaluate({"a": chunked}, [("clip", audio, ChannelLayout.MONO)], [seams], references=False)
    assert found.settings["metrics"][0]["chunk"] == 48


def test_chunks_of_another_rate_need_not_be_whole_frames():
    """Clicks on a grid of 1000.5 samples are seams there, and nothing on one of 1000."""
    source = 0.01 * noise(2)
    broken = source.clone()
    broken[:, (torch.arange(1, 80) * 1000.5).long()] += 1
    settings = {"window": 64, "hop": 16, "near": 40, "far": 200, "edge": 0}
    right, wrong = (
        SeamExcessConfig(chunk, **settings).build(sample_rate=RATE)(broken, source) for chunk in (1000.5, 900)
    )
    assert right > 50 and abs(wrong) < right / 4
    drifting = DriftConfig(2000.5).build(sample_rate=RATE).errors(broken, source)
    assert len(drifting) == int(2 * RATE // 2000.5) and torch.isfinite(drifting).all()


def test_a_codec_with_another_sampler_shares_its_weights(chunked):
    own = chunked.decoder.sampler
    twin = with_sampler(chunked, Independent())
    assert chunked.decoder.sampler is own and twin.decoder.sampler == Independent()
    for ours, theirs in zip(chunked.parameters(), twin.parameters(), strict=True):
        assert ours is theirs
    audio = 0.1 * torch.randn(1, 1, 300, generator=torch.Generator().manual_seed(0))
    latents = chunked.encode(audio)
    expected = chunked.decode(latents, sampler=Independent(), seed=3)
    assert torch.equal(twin.decode(latents, seed=3), expected)


def test_samplers_are_compared_in_one_evaluation(chunked):
    systems = {"two steps": with_sampler(chunked, TwoStep()), "independent": with_sampler(chunked, Independent())}
    audio = 0.1 * torch.randn(1, 1100, generator=torch.Generator().manual_seed(0))
    seams = SeamExcessConfig(chunk=768, window=64, hop=16, near=32, far=256, edge=0)
    metrics = ("log_mel_l1", seams, DriftConfig(chunk=512))
    found = evaluate(systems, [("clip", audio, ChannelLayout.MONO)], metrics, references=False)
    assert [metric.title for metric in found.metrics[1:]] == ["seam excess, % ↓", "drift, % ↓"]
    assert all(len(each) == 1 and math.isfinite(each[0]) for table in found.scores.values() for each in table.values())
