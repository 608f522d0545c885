"""Statistics of latents: measured on the requested duration, from anywhere in the training data."""

from dataclasses import replace

import pytest
import torch
from partita.data import encode_corpus, open_dataset, write_audio
from partita.objectives import LatentQuantizationConfig, TrainState
from partita.training.statistics import statistics_latents
from partita.training.validation import _ClipMetrics
from partita_core import AudioSpec, ChannelLayout, Codec, Frozen, LatentSpec, measure_latents
from partita_quantizers import FSQConfig, ReBottleneckConfig, ResidualVQConfig

RATE, HOP = 8000, 8


class Samples(Codec):
    """Codec whose latents are the samples of a frame."""

    encode_context = decode_context = (0, 0)

    def __init__(self):
        super().__init__()
        self.audio_spec = AudioSpec(RATE, 1, (ChannelLayout.MONO,))
        self.latent_spec = LatentSpec(HOP, RATE, HOP)

    def encode_frames(self, audio, layout, num_quantizers):
        return audio.unflatten(-1, (-1, HOP))[:, 0].mT, None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return values.mT.flatten(1)[:, None]


def music(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(1, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def configured(config):
    def built(**trainer):
        found = config(**trainer)
        return replace(found, data=replace(found.data, crop_seconds=0.1))

    return built


@pytest.fixture
def late(tmp_path):
    """Two files with 12 seconds of silence before the music."""
    for seed, name in enumerate("ab"):
        write_audio(tmp_path / f"{name}.wav", torch.nn.functional.pad(music(4, seed), (12 * RATE, 0)), RATE)
    return open_dataset(tmp_path)


def test_normalized_latents_have_unit_variance_despite_silence(late, configured):
    codec = Samples()
    spec = measure_latents(codec, statistics_latents(codec, late, configured(statistics_seconds=6.0), HOP))
    normalized = music(4)[0] / torch.tensor(spec.std).mean()
    assert normalized.std() == pytest.approx(1.0, rel=0.1)


def test_requested_seconds_are_measured_of_audio_and_corpus(late, configured, tmp_path):
    codec, wanted = Samples(), configured(statistics_seconds=6.0)
    encode_corpus(codec, tmp_path, tmp_path / "corpus", progress=False)
    for dataset in (late, open_dataset(tmp_path / "corpus")):
        lengths = [int(piece.audio_lengths[0]) for piece in statistics_latents(codec, dataset, wanted, HOP)]
        assert 6 * RATE <= sum(lengths) <= 7 * RATE


def test_validation_clips_are_not_silent(late, configured):
    run = configured(evaluate_seconds=0.4)
    objective = run.objective.build(model=run.model.build())
    clips = _ClipMetrics(late, objective, None, run, samples=None).clips  # pyright: ignore
    assert [name for name, _, _ in clips] == ["a.wav", "b.wav"]
    for _, audio, _ in clips:
        assert audio.shape[-1] == 0.2 * RATE and audio.std() > 0.01
        assert audio.untyped_storage().nbytes() < 4 * 0.3 * RATE  # not a view of the entire file


@pytest.mark.parametrize(
    ("quantizer", "seconds", "expected"),
    [
        (ResidualVQConfig.example(), 0.1, 128),  # 100 tokens in the data, and batches of 64
        (ResidualVQConfig.example(), None, 448),
        (ResidualVQConfig.example(), 60.0, 448),
        (ResidualVQConfig.example(), 0.001, 64),  # one per code, of 16
        (ReBottleneckConfig.example(), 0.1, 128),
        (FSQConfig((5, 5)), 0.1, 128),
    ],
)
def test_quantizer_is_initialized_from_the_available_latents(quantizer, seconds, expected):
    codec = Samples()
    objective = replace(LatentQuantizationConfig.example(), start_tokens=400).build(
        model=quantizer.build(dim=HOP), codec=Frozen(codec)
    )
    drawn = []

    def batches():
        while True:
            drawn.append(2)
            layouts = torch.zeros(2, dtype=torch.int64)
            audio = music(64 * HOP / RATE, len(drawn)).view(2, 1, -1)
            lengths = torch.tensor([32 * HOP, 32 * HOP])
            yield {"audio": audio, "audio_lengths": lengths, "layout": layouts, "target_layout": layouts}

    line = objective.initialize(batches(), seconds=seconds)
    assert len(drawn) * 64 == expected and f"{expected} latents" in line
    assert ("400 requested" in line) == (expected < 400)
    assert objective(next(batches()), TrainState(), "generator").total.isfinite()


def test_padding_is_not_used_for_initialization():
    codec = Samples()
    objective = LatentQuantizationConfig.example().build(model=FSQConfig((5, 5)).build(dim=HOP), codec=Frozen(codec))
    audio = torch.zeros(2, 1, 80 * HOP)
    audio[0] = music(80 * HOP / RATE)
    audio[1, :, :HOP] = 100.0  # one frame, repeated to the end of its crop
    layouts = torch.zeros(2, dtype=torch.int64)
    lengths = torch.tensor([80 * HOP, HOP])
    batch = {"audio": audio, "audio_lengths": lengths, "layout": layouts, "target_layout": layouts}
    objective.initialize(iter([batch]))
    assert float(objective.mean.mean()) == pytest.approx(100 / 81, rel=0.05)
