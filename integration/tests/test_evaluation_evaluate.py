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
    """Claims a tenth of the numbers, so that the low-pass reference has something to leave out."""

    def __init__(self):
        super().__init__(0.5)
        self.latent_spec = LatentSpec(HOP // 5, RATE, HOP)

    def encode_frames(self, audio, layout, num_quantizers):
        self.kept = audio
        return audio.new_zeros(audio.shape[0], HOP // 5, audio.shape[-1] // HOP), None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return self.kept * self.gain


class Coded(Scaled):
    """Two levels of codes, of which nothing is left but silence."""

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


def test_the_identity_is_perfect_and_better_than_every_reference():
    result = evaluate({"identity": Scaled()}, clips(), ALL)
    for name, mean in result.means["identity"].items():
        best = 100 if name == "si_sdr" else 0
        assert mean == Interval(best, best, best), name
    for name in ("silence", "matched noise"):
        for metric in result.metrics:
            against = result.means[name][metric.name].mean
            best = result.means["identity"][metric.name].mean
            assert best < against if metric.better == "lower" else best > against


def test_systems_are_described():
    result = evaluate({"a": Coded(), "b": Narrow()}, clips())
    names = [system.name for system in result.systems]
    assert names == ["a", "b", "silence", "matched noise", "low-pass, 1,600 numbers/s", "low-pass, 16,000 numbers/s"]
    assert [system.reference for system in result.systems] == [False, False, True, True, True, True]
    a, b = result.systems[:2]
    assert (a.floats_per_second, a.bit_rate, b.floats_per_second) == (16000, 800, 1600)
    assert a.speed.encode > 0 and a.speed.decode > 0
    low, all_of_it = (result.means[name]["si_sdr"].mean for name in names[-2:])
    assert low < 20 and all_of_it == 100


def test_codes_are_what_is_decoded_of_models_that_make_them_unless_their_values_are_asked_for():
    models = {"codes": Coded(), "values": Scaled()}
    found = {levels: evaluate(models, clips(), references=False, num_quantizers=levels) for levels in (None, 1, 0)}
    rates = {levels: [system.bit_rate for system in each.systems] for levels, each in found.items()}
    assert rates == {None: [800, None], 1: [400, None], 0: [None, None]}
    for levels, each in found.items():
        assert each.means["values"]["si_sdr"].mean == 100
        assert each.means["codes"]["si_sdr"].mean == (100 if levels == 0 else -100)
    with pytest.raises(PartitaError, match="num_quantizers is 3; this model has 2 levels"):
        evaluate(models, clips(), num_quantizers=3)
    with pytest.raises(PartitaError, match="num_quantizers is 1, and no model makes codes"):
        evaluate({"values": Scaled()}, clips(), num_quantizers=1)


def test_twice_the_same_is_the_same(tmp_path):
    for run in ("first", "second"):
        evaluate({"model": Narrow()}, clips(), ALL, seed=3).to_json(tmp_path / run)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    other = evaluate({"model": Narrow()}, clips(), seed=4)
    assert other.means["matched noise"] != Evaluation.load(tmp_path / "first").means["matched noise"]


def test_a_model_against_itself_differs_by_zero():
    result = evaluate({"a": Scaled(0.7), "b": Scaled(0.7)}, clips(), ALL, references=False)
    assert [(each.system, each.baseline) for each in result.differences] == [("a", "b")] * len(ALL)
    assert all(each.difference == Interval(0, 0, 0) and not each.clear for each in result.differences)


def test_differences_are_system_minus_baseline():
    result = evaluate({"good": Scaled(0.9), "bad": Scaled(0.1)}, clips(), ["log_mel_l1"], references=False)
    (difference,) = result.differences
    assert difference.difference.mean == pytest.approx(math.log10(1 / 0.9) - 1, abs=0.01)
    assert difference.clear
    assert result.best(result.metrics[0]) == "good"


def test_short_and_silent_clips_leave_no_gap_in_the_table():
    cases = [("one", torch.full((1, 1), 0.5), "mono"), ("silence", torch.zeros(2, 300), "stereo")]
    result = evaluate({"model": Narrow()}, cases)
    figures = [value for table in result.scores.values() for row in table.values() for value in row]
    assert len(figures) == 4 * 3 * 2 and all(map(math.isfinite, figures))
    assert "nan" not in result.to_markdown()


def test_a_model_of_another_rate_is_measured_at_the_clips_rate():
    time = torch.arange(RATE) / RATE
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time)[None] * torch.hann_window(RATE)
    codecs = {"same": Scaled(), "double": Scaled(sample_rate=2 * RATE)}
    result = evaluate(codecs, [("a", tone, "mono")], sample_rate=RATE)
    assert result.scores["double"]["si_sdr"][0] > 50
    with pytest.raises(PartitaError, match="same at 8000 Hz, double at 16000 Hz"):
        evaluate(codecs, clips())


def test_the_listener_gets_every_estimate():
    heard = {}
    evaluate({"half": Scaled(0.5)}, clips(2), on_clip=lambda name, audio, made: heard.update({name: (audio, made)}))
    assert list(heard) == ["clip 0", "clip 1"]
    audio, made = heard["clip 1"]
    assert list(made)[:3] == ["half", "silence", "matched noise"]
    torch.testing.assert_close(made["half"], 0.5 * audio)


def test_models_stay_in_their_mode():
    training, resting = Scaled().train(), Scaled().eval()
    evaluate({"a": training, "b": resting}, clips(1))
    assert training.training and not resting.training


def test_json_comes_back_whole(tmp_path):
    result = evaluate({"model": Narrow()}, clips(), [LogMelL1Config(num_mels=20), "si_sdr"])
    result.to_json(tmp_path / "r.json", speeds=True)
    assert Evaluation.load(tmp_path / "r.json") == result
    assert json.loads((tmp_path / "r.json").read_text())["settings"]["metrics"][0]["num_mels"] == 20
    assert result.to_dict()["systems"][0]["speed"] is None


def test_csv_has_a_line_for_each_clip_and_system(tmp_path):
    result = evaluate({"model, with comma": Scaled(0.5)}, clips(3))
    result.to_csv(tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(result.systems)
    assert rows[0]["system"] == "model, with comma" and rows[0]["layout"] == "mono"
    assert float(rows[0]["log_mel_l1"]) == result.scores["model, with comma"]["log_mel_l1"][0]


def test_latents_are_looked_at_over_all_clips():
    codec = Scaled()
    result = evaluate({"a": codec}, clips())
    whole = torch.cat([codec.encode(audio[None], layout=layout).values[0].T for _, audio, layout in clips()])
    found = result.latents["a"]
    assert found == latent_statistics(whole) and found.vectors == 4 * 26
    assert f"| a | 104 | {whole.square().mean().sqrt():#.3g} | " in result.to_markdown()


def test_latents_that_tell_nothing_are_left_out():
    result = evaluate({"narrow": Narrow()}, clips())
    assert result.latents == {} and "latents" not in result.to_markdown()


def test_markdown_marks_the_best_and_names_the_references():
    text = evaluate({"good": Scaled(0.9), "bad": Scaled(0.1)}, clips(), ["log_mel_l1"]).to_markdown()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.split("\n| latents |")[0].splitlines()}
    assert "**0.046 [" in lines["good"] and "**" not in lines["bad"] and "silence" in lines
    assert "log-mel L1 ↓" in text and "good − bad" in lines
    widths = {line.count("|") for line in text.split("\n\n")[1].splitlines()}
    assert len(widths) == 1


def test_the_sampler_reaches_the_decoder_and_is_recorded():
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
        ({"clips": [("x", torch.zeros(2, 9), "mono")]}, r"clip x is \(2, 9\); \(1, samples\) for mono"),
        ({"clips": [("x", torch.zeros(1, 0), "mono")]}, "not empty"),
        ({"codecs": {"broken": Scaled(math.nan)}}, "broken returned samples that are not finite for clip 0"),
        ({"codecs": {"silence": Scaled()}}, "as one of the references"),
        ({"codecs": {}}, "there are no models"),
        ({"metrics": ["si_sdrr"]}, "did you mean si_sdr"),
        ({"metrics": ["si_sdr", "si_sdr"]}, "each once"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_a_line(change, message):
    arguments = {"codecs": {"model": Scaled()}, "clips": clips(1), "metrics": ["log_mel_l1"]} | change
    with pytest.raises(PartitaError, match=message):
        evaluate(**arguments)


def test_what_a_metric_refuses_is_left_out_of_its_means_for_all_and_named(tmp_path):
    """Two chunks at least: the clips of 500 samples have one."""
    cases = [*clips(3, 20_001), ("short", torch.full((2, 500), 0.1), "stereo")]
    metrics = ["si_sdr", DriftConfig(5000)]
    found = evaluate({"a": Scaled(0.7), "b": Narrow()}, cases, metrics)
    assert found.refused.keys() == {"drift"} and found.refused["drift"].keys() == {"short"}
    whole = evaluate({"a": Scaled(0.7), "b": Narrow()}, clips(3, 20_001), metrics)
    for system, scores in found.scores.items():
        assert scores["drift"][3] is None and None not in scores["drift"][:3] + scores["si_sdr"]
        assert found.means[system]["drift"] == whole.means[system]["drift"]
    assert "drift is over 3 of 4 clips. Of short: a clip of 500 samples has 0 whole chunks" in found.to_markdown()
    found.to_json(tmp_path / "found.json")
    assert Evaluation.load(tmp_path / "found.json").scores == found.scores
    found.to_csv(tmp_path / "found.csv")
    (line,) = [
        line
        for line in (tmp_path / "found.csv").read_text().splitlines()
        if line.startswith("short,") and ",a," in line
    ]
    assert line.endswith(",")
    with pytest.raises(PartitaError, match="drift takes none of the clips; of short: a clip of 500 samples"):
        evaluate({"a": Scaled()}, cases[3:], metrics)


def test_one_clip_is_said_to_have_no_intervals():
    assert "no width" in evaluate({"a": Scaled(0.7)}, clips(1)).to_markdown()
    assert "no width" not in evaluate({"a": Scaled(0.7)}, clips(2)).to_markdown()
