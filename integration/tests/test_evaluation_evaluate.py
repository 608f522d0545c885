import csv
import json
import math

import pytest
import torch
from partita.evaluation import Evaluation, Interval, evaluate, latent_statistics, named_metrics
from partita.evaluation.metrics import DriftConfig, LogMelL1Config
from partita_core import AudioSpec, ChannelLayout, Codec, LatentSpec, PartitaError
from partita_decoders import TwoStep
from torch import nn

RATE, HOP = 8000, 80
ALL = named_metrics(["all"])


class Scaled(Codec):
    """The identity up to a gain: a frame's samples are its latent vector."""

    encode_context = decode_context = (0, 0)

    def __init__(self, gain=1.0, sample_rate=RATE, codebook_sizes=()):
        super().__init__()
        self.audio_spec = AudioSpec(sample_rate, 2, tuple(ChannelLayout))
        self.latent_spec = LatentSpec(2 * HOP, sample_rate, HOP, codebook_sizes=codebook_sizes)
        self.gain = nn.Parameter(torch.tensor([gain]))

    def encode_frames(self, audio, layout, num_quantizers):
        frames = audio.unflatten(-1, (-1, HOP))  # (batch, 2, frames, hop)
        return frames.transpose(2, 3).flatten(1, 2), None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return values.unflatten(1, (2, HOP)).transpose(2, 3).flatten(2) * self.gain


class Narrow(Scaled):
    """A codec that declares a tenth of the numbers, so that the low-pass reference removes something."""

    def __init__(self):
        super().__init__(0.5)
        self.latent_spec = LatentSpec(HOP // 5, RATE, HOP)

    def encode_frames(self, audio, layout, num_quantizers):
        self.kept = audio
        return audio.new_zeros(audio.shape[0], HOP // 5, audio.shape[-1] // HOP), None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return self.kept * self.gain


class Coded(Scaled):
    """A codec with two levels of codes that decode to silence."""

    def __init__(self):
        super().__init__(codebook_sizes=(16, 16))

    def encode_frames(self, audio, layout, num_quantizers):
        values, _ = super().encode_frames(audio, layout, num_quantizers)
        codes = torch.zeros(len(values), 2, values.shape[-1], dtype=torch.int64)
        codes[:, num_quantizers or 2 :] = -1
        return values, codes

    def codes_to_values(self, codes):
        return self.gain.new_zeros(len(codes), self.latent_spec.dim, codes.shape[-1])

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return super().decode_frames(
            self.codes_to_values(codes) if values is None else values, None, layout, None, seeds
        )


def clips(count=4, samples=2001):
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        layout = ChannelLayout(i % 3)
        yield f"clip {i}", 0.1 * (i + 1) * torch.randn(layout.width, samples, generator=generator), layout


def test_identity_is_best_and_better_than_references():
    result = evaluate({"identity": Scaled()}, clips(), ALL)
    for name, mean in result.means["identity"].items():
        best = 100 if name == "si_sdr" else 0
        assert mean == Interval(best, best, best), name
    for name in ("silence", "matched noise"):
        for metric in result.metrics:
            against = result.means[name][metric.name].mean
            best = result.means["identity"][metric.name].mean
            assert best < against if metric.better == "lower" else best > against


def test_systems_have_rates_and_speeds():
    result = evaluate({"a": Coded(), "b": Narrow()}, clips())
    names = [system.name for system in result.systems]
    assert names == ["a", "b", "silence", "matched noise", "low-pass, 1,600 numbers/s", "low-pass, 16,000 numbers/s"]
    assert [system.reference for system in result.systems] == [False, False, True, True, True, True]
    a, b = result.systems[:2]
    assert (a.floats_per_second, a.bit_rate, b.floats_per_second) == (16000, 800, 1600)
    assert a.speed.encode > 0 and a.speed.decode > 0
    low, unchanged = (result.means[name]["si_sdr"].mean for name in names[-2:])
    assert low < 20 and unchanged == 100


def test_models_with_codes_decode_codes_unless_num_quantizers_is_zero():
    models = {"codes": Coded(), "values": Scaled()}
    found = {levels: evaluate(models, clips(), references=False, num_quantizers=levels) for levels in (None, 1, 0)}
    rates = {levels: [system.bit_rate for system in each.systems] for levels, each in found.items()}
    assert rates == {None: [800, None], 1: [400, None], 0: [None, None]}
    for levels, each in found.items():
        assert each.means["values"]["si_sdr"].mean == 100
        assert each.means["codes"]["si_sdr"].mean == (100 if levels == 0 else -100)
    with pytest.raises(PartitaError, match="num_quantizers is 3.* 2 "):
        evaluate(models, clips(), num_quantizers=3)
    with pytest.raises(PartitaError, match="num_quantizers is 1"):
        evaluate({"values": Scaled()}, clips(), num_quantizers=1)


def test_equal_seeds_give_equal_files(tmp_path):
    for run in ("first", "second"):
        evaluate({"model": Narrow()}, clips(), ALL, seed=3).to_json(tmp_path / run)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    other = evaluate({"model": Narrow()}, clips(), seed=4)
    assert other.means["matched noise"] != Evaluation.load(tmp_path / "first").means["matched noise"]


def test_difference_of_a_model_from_itself_is_zero():
    result = evaluate({"a": Scaled(0.7), "b": Scaled(0.7)}, clips(), ALL, references=False)
    assert [(each.system, each.baseline) for each in result.differences] == [("a", "b")] * len(ALL)
    assert all(each.difference == Interval(0, 0, 0) and not each.clear for each in result.differences)


def test_differences_are_system_minus_baseline():
    result = evaluate({"good": Scaled(0.9), "bad": Scaled(0.1)}, clips(), ["log_mel_l1"], references=False)
    (difference,) = result.differences
    assert difference.difference.mean == pytest.approx(math.log10(1 / 0.9) - 1, abs=0.01)
    assert difference.clear
    assert result.best(result.metrics[0]) == "good"


def test_short_and_silent_clips_have_values():
    cases = [("one", torch.full((1, 1), 0.5), "mono"), ("silence", torch.zeros(2, 300), "stereo")]
    result = evaluate({"model": Narrow()}, cases)
    values = [value for table in result.scores.values() for row in table.values() for value in row]
    assert len(values) == 4 * 3 * 2 and all(map(math.isfinite, values))
    assert "nan" not in result.to_markdown()


def test_models_of_another_sample_rate_are_resampled():
    time = torch.arange(RATE) / RATE
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time)[None] * torch.hann_window(RATE)
    codecs = {"same": Scaled(), "double": Scaled(sample_rate=2 * RATE)}
    result = evaluate(codecs, [("a", tone, "mono")], sample_rate=RATE)
    assert result.scores["double"]["si_sdr"][0] > 50
    with pytest.raises(PartitaError, match="same at 8000 Hz, double at 16000 Hz"):
        evaluate(codecs, clips())


def test_on_clip_gets_every_estimate():
    seen = {}
    evaluate({"half": Scaled(0.5)}, clips(2), on_clip=lambda name, audio, made: seen.update({name: (audio, made)}))
    assert list(seen) == ["clip 0", "clip 1"]
    audio, made = seen["clip 1"]
    assert list(made)[:3] == ["half", "silence", "matched noise"]
    torch.testing.assert_close(made["half"], 0.5 * audio)


def test_evaluation_restores_the_training_mode():
    training, resting = Scaled().train(), Scaled().eval()
    evaluate({"a": training, "b": resting}, clips(1))
    assert training.training and not resting.training


def test_json_round_trip(tmp_path):
    result = evaluate({"model": Narrow()}, clips(), [LogMelL1Config(num_mels=20), "si_sdr"])
    result.to_json(tmp_path / "r.json", speeds=True)
    assert Evaluation.load(tmp_path / "r.json") == result
    assert json.loads((tmp_path / "r.json").read_text())["settings"]["metrics"][0]["num_mels"] == 20
    assert result.to_dict()["systems"][0]["speed"] is None


def test_csv_has_one_line_per_clip_and_system(tmp_path):
    result = evaluate({"model, with comma": Scaled(0.5)}, clips(3))
    result.to_csv(tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(result.systems)
    assert rows[0]["system"] == "model, with comma" and rows[0]["layout"] == "mono"
    assert float(rows[0]["log_mel_l1"]) == result.scores["model, with comma"]["log_mel_l1"][0]


def test_latent_statistics_are_over_all_clips():
    codec = Scaled()
    result = evaluate({"a": codec}, clips())
    vectors = torch.cat([codec.encode(audio[None], layout=layout).values[0].T for _, audio, layout in clips()])
    found = result.latents["a"]
    assert found == latent_statistics(vectors) and found.vectors == 4 * 26
    assert f"| a | 104 | {vectors.square().mean().sqrt():#.3g} | " in result.to_markdown()


def test_constant_latents_have_no_statistics():
    result = evaluate({"narrow": Narrow()}, clips())
    assert result.latents == {} and "latents" not in result.to_markdown()


def test_markdown_marks_the_best_and_names_the_references():
    text = evaluate({"good": Scaled(0.9), "bad": Scaled(0.1)}, clips(), ["log_mel_l1"]).to_markdown()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.split("\n| latents |")[0].splitlines()}
    assert "**0.046 [" in lines["good"] and "**" not in lines["bad"] and "silence" in lines
    assert "log-mel L1 ↓" in text and "good − bad" in lines
    widths = {line.count("|") for line in text.split("\n\n")[1].splitlines()}
    assert len(widths) == 1


def test_sampler_reaches_the_decoder_and_is_recorded():
    class Sampled(Scaled):
        def decode_frames(self, values, codes, layout, sampler, seeds):
            return super().decode_frames(values, codes, layout, sampler, seeds) * sampler.sigma_context

    result = evaluate({"model": Sampled()}, clips(), ["log_mel_l1"], sampler=TwoStep(sigma_context=1.0))
    assert result.means["model"]["log_mel_l1"] == Interval(0, 0, 0)
    assert result.settings["sampler"] == {"type": "sampler/two_step", "sigma_context": 1.0, "refine": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": []}, "no clips"),
        ({"clips": [("x", torch.full((1, 9), math.nan), "mono")]}, "clip x has samples that are not finite"),
        ({"clips": [("x", torch.zeros(2, 9), "mono")]}, r"clip x .*\(2, 9\).*\(1, samples\).* mono"),
        ({"clips": [("x", torch.zeros(1, 0), "mono")]}, "not empty"),
        ({"codecs": {"broken": Scaled(math.nan)}}, "broken returned samples that are not finite for clip 0"),
        ({"codecs": {"silence": Scaled()}}, "silence.*reference"),
        ({"codecs": {}}, "there are no models"),
        ({"metrics": ["si_sdrr"]}, "si_sdrr.*si_sdr"),
        ({"metrics": ["si_sdr", "si_sdr"]}, "si_sdr, si_sdr"),
    ],
)
def test_invalid_evaluation_arguments(change, message):
    arguments = {"codecs": {"model": Scaled()}, "clips": clips(1), "metrics": ["log_mel_l1"]} | change
    with pytest.raises(PartitaError, match=message):
        evaluate(**arguments)


def test_clips_that_a_metric_cannot_measure_are_skipped_for_all_systems(tmp_path):
    """Drift needs two chunks; a clip of 500 samples has none."""
    cases = [*clips(3, 20_001), ("short", torch.full((2, 500), 0.1), "stereo")]
    metrics = ["si_sdr", DriftConfig(chunk=5000)]
    found = evaluate({"a": Scaled(0.7), "b": Narrow()}, cases, metrics)
    assert found.skipped.keys() == {"drift"} and found.skipped["drift"].keys() == {"short"}
    unskipped = evaluate({"a": Scaled(0.7), "b": Narrow()}, clips(3, 20_001), metrics)
    for system, scores in found.scores.items():
        assert scores["drift"][3] is None and None not in scores["drift"][:3] + scores["si_sdr"]
        assert found.means[system]["drift"] == unskipped.means[system]["drift"]
    (note,) = [line for line in found.to_markdown().splitlines() if line.startswith("drift ")]
    assert "3 of 4" in note and "short" in note and "500 samples" in note
    found.to_json(tmp_path / "found.json")
    assert Evaluation.load(tmp_path / "found.json").scores == found.scores
    found.to_csv(tmp_path / "found.csv")
    (line,) = [
        line
        for line in (tmp_path / "found.csv").read_text().splitlines()
        if line.startswith("short,") and ",a," in line
    ]
    assert line.endswith(",")
    with pytest.raises(PartitaError, match="drift .*short.* 500 samples"):
        evaluate({"a": Scaled()}, cases[3:], metrics)


def test_note_about_a_single_clip():
    assert "no width" in evaluate({"a": Scaled(0.7)}, clips(1)).to_markdown()
    assert "no width" not in evaluate({"a": Scaled(0.7)}, clips(2)).to_markdown()
