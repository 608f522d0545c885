"""Model cards: the metadata for the hub, and the text."""

import json
import re
from dataclasses import replace

import pytest
import soundfile
import yaml
from partita.data import open_dataset
from partita.evaluation import DEFAULT_METRICS, Interval
from partita.model_loading import load_model
from partita.recipes import music2latent2_tiny
from partita.training.logs import read_log
from partita.training.model_card import TrainingSummary, ValidationMetric, model_card
from partita.training.statistics import audio_hours
from partita_core import Autoencoder


def header_of(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL).group(1))


@pytest.fixture(scope="module")
def card(run):
    return (run / "model" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def training():
    return TrainingSummary("tiny", "objective/x", "tones: a|b", 6, 12.5, 1200, 90.0, "CPU", "validation", ())


def test_header_has_the_metrics_of_the_log(card, run):
    header = header_of(card)
    assert header["library_name"] == "partita" and header["pipeline_tag"] == "audio-to-audio"
    assert header["tags"] == ["audio", "autoencoder", "codec"] and "license" not in header
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert model["name"] == "tiny" and result["dataset"]["split"] == "validation"
    last = [line for line in read_log(run / "log.jsonl") if "validation/si_sdr" in line][-1]
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found == {name: last[f"validation/{name}"] for name in DEFAULT_METRICS}
    assert {metric["name"] for metric in result["metrics"]} >= {"log-mel L1 ↓", "SI-SDR, dB ↑"}


def test_table_of_parts_adds_up(card, run):
    model = Autoencoder.from_pretrained(run / "model")
    rows = dict(re.findall(r"^\| (\w+) \|(?: `\w+/\w+`)? \| ([\d.]+) M \|$", card, re.MULTILINE))
    assert set(rows) == {"encoder", "bottleneck", "decoder", "all"}
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert float(rows["all"]) == pytest.approx(total, abs=0.005)
    assert float(rows["all"]) == pytest.approx(sum(float(rows[p]) for p in rows if p != "all"), abs=0.02)


def test_text_has_data_time_metrics_and_usage(card):
    assert "Trained for 6 steps of `objective/adversarial_reconstruction` in" in card and "on CPU" in card
    assert "(6 files, 0.1 minutes of audio)" in card  # six times half a second
    assert re.search(r"\| log-mel L1 ↓ \| [\d.]+ \[[\d.]+, [\d.]+\] \|", card)
    assert "on a few clips of the split `validation`, with 95 % bootstrap intervals" in card
    assert 'model = partita.load("PATH")' in card


def test_card_without_metrics(training, run):
    card = model_card(load_model(run / "model"), training)
    assert "Measured: none." in card and "model-index" not in header_of(card)
    assert "1,200 steps" in card and "12.5 hours of audio" in card


def test_card_of_a_published_model(training, run):
    model = load_model(run / "model")
    measured = (ValidationMetric("b", "B ↑", 2.0, Interval(2.0, 1.0, 3.0)),)
    card = model_card(model, replace(training, measured=measured), load="ours", license="cc-by-sa-4.0", body="## Use\n")
    header, text = header_of(card), card.split("---\n", 2)[2]
    assert header["license"] == "cc-by-sa-4.0"
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == 2.0
    assert "## Use\n" in text and "B ↑" not in text and 'partita.load("ours")' in text


def test_card_with_metrics_without_intervals(training, run):
    measured = (ValidationMetric("loss", "loss", 1.5), ValidationMetric("b", "B ↑", 2.0, Interval(2.0, 1.0, 3.0)))
    model = load_model(run / "model")
    assert "without intervals:" in model_card(model, replace(training, measured=measured[:1]))
    card = model_card(model, replace(training, measured=measured))
    assert "| loss | 1.500 |" in card and "| B ↑ | 2.000 [1.000, 3.000] |" in card
    (result,) = header_of(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "tones: a|b"  # needs quotes in YAML
    assert [metric["value"] for metric in result["metrics"]] == [1.5, 2.0]


def test_hours_from_file_headers(tmp_path):
    for i, seconds in enumerate((1, 2, 6)):
        soundfile.write(tmp_path / f"{i}.wav", [0.0] * (seconds * 8000), 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    dataset = open_dataset(tmp_path, split="train")
    assert len(dataset) == 4 and audio_hours(dataset) == pytest.approx(9 / 3600)


def test_header_is_read_by_huggingface_hub(card, tmp_path):
    from huggingface_hub import ModelCard

    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.model_name == "tiny" and len(data.eval_results) == len(DEFAULT_METRICS)
    assert json.dumps(data.to_dict())


def test_metrics_of_single_levels_are_left_out(training, run):
    measured = (
        ValidationMetric("loss", "loss", 1.5),
        *(ValidationMetric(f"usage_{i}", f"usage_{i}", 0.5) for i in range(16)),
    )
    card = model_card(load_model(run / "model"), replace(training, measured=measured))
    assert "| loss |" in card and "usage_" not in card


def test_tokens_per_frame_are_stated(training):
    model = music2latent2_tiny().model.build().eval()
    about = model_card(model, replace(training, measured=()))
    assert "8 vectors of 64 numbers 1.34583 times per second" in about
