import csv
import json

import mpmath
import pytest
import torch
from partita.evaluation import Evaluation, evaluate, frechet_distance
from partita.evaluation.frechet import EmbeddedClips
from partita_core import AudioSpec, ChannelLayout, Codec, LatentSpec, PartitaError
from torch import nn


def exact(first, second):
    """The definition, evaluated with 50 digits."""
    with mpmath.workdps(50):
        means, covariances = [], []
        for x in (first, second):
            rows = mpmath.matrix(x.tolist())
            mean = mpmath.matrix([sum(rows[:, k]) / rows.rows for k in range(rows.cols)])
            centered = mpmath.matrix([[rows[n, k] - mean[k] for k in range(rows.cols)] for n in range(rows.rows)])
            means.append(mean)
            covariances.append(centered.T * centered / (rows.rows - 1))
        root = matrix_root(covariances[0])
        cross = matrix_root(root * covariances[1] * root)
        trace = sum(covariances[0][k, k] + covariances[1][k, k] - 2 * cross[k, k] for k in range(cross.rows))
        return float(mpmath.norm(means[0] - means[1]) ** 2 + trace)


def matrix_root(matrix):
    values, vectors = mpmath.eigsy(matrix)
    return vectors * mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values]) * vectors.T


def sets(counts, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -3, dim, dtype=torch.float64)
    draws = [torch.randn(n, dim, generator=generator, dtype=torch.float64) * scale for n in counts]
    return draws[0] + 0.3, draws[1] * 1.5


@pytest.mark.parametrize(
    ("counts", "dim"), [((40, 30), 6), ((3, 4), 9), ((2, 2), 5), ((4, 30), 7), ((30, 4), 7), ((8, 8), 8), ((5, 9), 1)]
)
def test_frechet_distance_equals_the_definition(counts, dim):
    first, second = sets(counts, dim)
    expected = exact(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_agrees_with_other_implementations():
    first, second = sets((20, 25), 4)
    turn = torch.linalg.qr(torch.randn(300, 4, generator=torch.Generator().manual_seed(1)).double()).Q
    assert frechet_distance(first @ turn.T, second @ turn.T) == pytest.approx(exact(first, second), abs=1e-9)


def test_frechet_distance_of_a_permuted_set_is_zero():
    for counts in ((10, 10), (300, 300)):
        x, _ = sets(counts, 40)
        assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
        assert frechet_distance(x, x + 0.1) == pytest.approx(40 * 0.01)


def test_frechet_distance_of_known_gaussians():
    torch.manual_seed(0)
    x = torch.randn(50_000, 3, dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + torch.tensor([1.0, 2.0, 0.0])) == pytest.approx(5)
    scaled = x * torch.tensor([2.0, 1.0, 3.0])  # standard deviations 1 and 2, 1 and 1, 1 and 3
    assert frechet_distance(x, scaled) == pytest.approx(5, rel=0.02)
    turned = scaled @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert frechet_distance(x, turned) == pytest.approx(5, rel=0.02)
    assert frechet_distance(x[:, :1], 2 * x[:, :1]) == pytest.approx(1, rel=0.02)
    with pytest.raises(PartitaError, match="1 and 5"):
        frechet_distance(torch.ones(1, 2), torch.ones(5, 2))
    with pytest.raises(PartitaError, match="2 and 3 dimensions"):
        frechet_distance(torch.ones(5, 2), torch.ones(5, 3))


# ------------------------------------------------------------------ in an evaluation


class Scaled(Codec):
    """The identity up to a gain."""

    encode_context = decode_context = (0, 0)

    def __init__(self, gain):
        super().__init__()
        self.audio_spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
        self.latent_spec = LatentSpec(80, 8000, 80)
        self.gain = nn.Parameter(torch.tensor([gain]))

    def encode_frames(self, audio, layout, num_quantizers):
        return audio.unflatten(-1, (-1, 80))[:, 0].transpose(1, 2), None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return values.transpose(1, 2).flatten(1)[:, None] * self.gain


def moments(audio, sample_rate, layout):
    assert sample_rate == 8000 and layout is ChannelLayout.MONO
    return torch.stack([audio.mean(), audio.square().mean(), audio.abs().mean()])


def clips(count):
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        yield f"clip {i}", (i + 1) / count * torch.randn(1, 800, generator=generator), "mono"


def evaluated(count=6, names=("three moments",)):
    embedders = {name: moments for name in names}
    return evaluate({"same": Scaled(1.0), "half": Scaled(0.5)}, clips(count), ["lsd"], embedders=embedders)


def test_distances_of_systems_from_the_originals():
    (found,) = evaluated().frechet
    assert (found.embedder, found.dim, found.clips) == ("three moments", 3, 6)
    assert set(found.distances) == {"same", "half", "silence", "matched noise", "low-pass, 8,000 numbers/s"}
    assert found.distances["same"] == pytest.approx(0, abs=1e-12)
    originals = torch.stack([moments(audio, 8000, ChannelLayout.MONO) for _, audio, _ in clips(6)])
    halved = originals * torch.tensor([0.5, 0.25, 0.5])
    assert found.distances["half"] == pytest.approx(frechet_distance(originals, halved), rel=1e-5)
    assert found.distances["silence"] > found.distances["half"] > 1e-3


def test_distances_are_reported_with_the_embedder(tmp_path):
    result = evaluated(names=("latents:a", "features:b"))
    result.to_json(tmp_path / "r.json")
    result.to_csv(tmp_path / "r.csv")
    result.write_markdown(tmp_path / "r.md")
    assert [each["embedder"] for each in json.loads((tmp_path / "r.json").read_text())["frechet"]] == [
        "latents:a",
        "features:b",
    ]
    assert Evaluation.load(tmp_path / "r.json").frechet == result.frechet
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    halves = [row for row in rows if row["system"] == "half"]
    assert len(halves) == 6
    assert {float(row["Frechet [latents:a]"]) for row in halves} == {result.frechet[0].distances["half"]}
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert text == result.to_markdown() and "| Frechet [latents:a] ↓ | Frechet [features:b] ↓ |" in text
    assert len({line.count("|") for line in text.split("\n\n")[1].splitlines()}) == 1


def test_warning_for_fewer_clips_than_dimensions():
    assert "3 clips in 3 dimensions" in evaluated(3).to_markdown()
    assert "not of full rank" not in evaluated(4).to_markdown()
    assert evaluated(4).frechet[0].warning is None


def test_distance_of_one_clip_is_an_error():
    with pytest.raises(PartitaError, match="1 and 1"):
        evaluated(1)


def test_evaluation_without_embedders_has_no_distances(tmp_path):
    evaluate({"same": Scaled(1.0)}, clips(1), ["lsd"]).to_json(tmp_path / "r.json")
    older = json.loads((tmp_path / "r.json").read_text())
    assert older.pop("frechet") == []
    (tmp_path / "r.json").write_text(json.dumps(older))
    assert Evaluation.load(tmp_path / "r.json").frechet == ()


def test_embedding_that_is_not_finite_names_the_clip():
    clips = EmbeddedClips("odd", lambda audio, rate, layout: audio[0, :2] / audio[0, 0])
    clips.add("a", torch.ones(1, 8), {"m": torch.ones(1, 8)}, sample_rate=8000, layout=ChannelLayout.MONO)
    with pytest.raises(PartitaError, match="odd .*not finite.* m .*clip b"):
        clips.add("b", torch.ones(1, 8), {"m": torch.zeros(1, 8)}, sample_rate=8000, layout=ChannelLayout.MONO)
