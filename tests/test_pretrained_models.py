"""The models of `partita-pretrained`, and the script that writes them."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import partita
import pytest
import torch
from partita.cli import main
from partita.data import write_audio
from partita.evaluation import Evaluation, evaluate, named_metrics
from partita.evaluation.results import format_interval
from partita.model_loading import pretrained_names
from partita.objectives import AdversarialReconstructionConfig
from partita.training import RunConfig, RunFolder
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, Codec, PartitaError, round_to_half
from partita_core.fingerprints import uncompiled_state
from partita_decoders import GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig
from partita_pretrained import folder

ROOT = Path(__file__).resolve().parents[1]
NAMES = pretrained_names()


@pytest.mark.parametrize("name", NAMES)
def test_shipped_model_is_rounded_and_identified_by_its_weights(name):
    model = partita.load(name)
    stored = json.loads((folder(name) / "config.json").read_text())["space_id"]
    before = {key: value.clone() for key, value in uncompiled_state(model).items()}
    round_to_half(model)
    assert all(torch.equal(value, before[key]) for key, value in uncompiled_state(model).items())
    codec = model if isinstance(model, Codec) else model.codec
    codec.train().eval()  # drops the stored fingerprint
    assert codec.space_id == stored


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_file_through_a_shipped_model(name, tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    write_audio(tmp_path / "in.wav", 0.1 * torch.randn(1, 8000, generator=generator), 8000)
    assert main(["reconstruct", name, str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav")]) == 0
    assert (tmp_path / "out.wav").stat().st_size > 8000


LOADED = "import sys, partita; partita.load(sys.argv[1]); print(*sys.modules)"


@pytest.mark.slow
def test_loading_does_not_import_the_compiler_of_torch():
    """Its import takes longer than all others."""
    command = [sys.executable, "-c", LOADED, NAMES[0]]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "partita_encoders" in loaded and "torch._dynamo" not in loaded


# ------------------------------------------------------------------ writing a model


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("add_model", ROOT / "packages" / "pretrained" / "add_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def paths(tmp_path):
    """A run with a model, its training data, an evaluation and a text."""
    parts = GenAEEncoderConfig.example(), TanhConfig(), GenAEDecoderConfig.example()
    config = AutoencoderConfig(AudioSpec(8000, 2), 4, *parts)
    codec = config.build().eval()
    run = RunFolder(tmp_path / "run")
    run.write_config(RunConfig(model=config, objective=AdversarialReconstructionConfig.example()), "our_recipe")
    codec.save_pretrained(run.model)
    lines = [{"step": step, "cpu_seconds": 6.0 * step} for step in (10, 20, 30)]
    run.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_rows(tmp_path / "data", [("CC-BY-4.0", "Ann"), ("CC-BY-4.0", "Bob"), ("CC0-1.0", "Ann")])
    clips = [(f"{i}", 0.1 * torch.randn(1, 4000), ChannelLayout.MONO) for i in range(2)]
    found = evaluate({"ours": codec}, clips, named_metrics(["si_sdr"]), sample_rate=8000)
    found.to_json(tmp_path / "evaluation.json")
    (tmp_path / "about.md").write_text("## Use\n\nFor tests.\n\n## Limits\n\nHolds nothing.\n")
    given = {"data": "data", "evaluation": "evaluation.json", "about": "about.md", "output": "models"}
    return {"model": run.model} | {name: tmp_path / path for name, path in given.items()}


def write_rows(data, rows):
    with_names = [(f"train/{i}.wav", *row) for i, row in enumerate(rows)]
    shutil.rmtree(data, ignore_errors=True)
    (data / "train").mkdir(parents=True)
    for name, *_ in with_names:
        write_audio(data / name, torch.zeros(1, 8000), 8000)
    with (data / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "licence", "attribution"), *with_names])


def test_model_of_a_run_is_written_with_its_card(script, paths):
    found = script.add_model("ours", **paths)
    model, trained = partita.load(found), partita.load(paths["model"])
    round_to_half(trained)
    assert model.space_id == trained.space_id
    card = (found / "README.md").read_text()
    assert "\nlicense: cc-by-sa-4.0\n" in card and "`our_recipe`" in card
    assert "30 steps" in card and "in 3 minutes on one CPU core (processor time)" in card
    assert "`data` (3 files, 0.1 minutes of audio)" in card
    assert "| CC-BY-4.0 | 2 |" in card and "| CC0-1.0 | 1 |" in card
    assert re.findall(r"^- (.*)$", card, re.MULTILINE)[-3:] == ["Ann (CC-BY-4.0)", "Bob (CC-BY-4.0)", "Ann (CC0-1.0)"]
    assert "For tests." in card and "Holds nothing." in card and 'partita.load("ours")' in card
    interval = Evaluation.load(paths["evaluation"]).means["ours"]["si_sdr"]
    assert "over 2 clips of the split `test` of `data`" in card and f"dB ↑ | {format_interval(interval)} |" in card


def test_card_without_an_evaluation_has_the_same_weights(script, paths):
    first = script.add_model("ours", **paths | {"evaluation": None})
    weights, card = (first / "model.safetensors").read_bytes(), (first / "README.md").read_text()
    assert "## Measured" not in card and "## Limits" in card
    second = script.add_model("ours", **paths)
    assert second == first and (second / "model.safetensors").read_bytes() == weights
    assert "## Measured" in (second / "README.md").read_text()


def test_checkpoint_has_the_steps_and_the_time_of_its_step(script, paths):
    run = RunFolder(paths["model"].parent)
    assert script.trained(run, run.checkpoints / "step_00000025") == (25, 120.0)
    assert script.trained(run, run.model) == (30, 180.0)
    with pytest.raises(PartitaError, match="step 5"):
        script.trained(run, run.checkpoints / "step_00000005")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("GPL-2.0-or-later", "Eve"), "GPL-2.0-or-later"),
        (("CC-BY-NC-4.0", "Eve"), "CC-BY-NC-4.0"),
        (("", "Eve"), "None"),
    ],
)
def test_data_that_cannot_be_published_is_an_error(script, paths, row, told):
    write_rows(paths["data"], [("CC-BY-4.0", "Ann"), row])
    with pytest.raises(PartitaError, match=told):
        script.add_model("ours", **paths)
    assert not paths["output"].exists()


def test_missing_parts_are_errors(script, paths, tmp_path):
    with pytest.raises(PartitaError, match="'other'.*ours"):
        script.add_model("other", **paths)
    with pytest.raises(PartitaError, match="RUN/model"):
        script.add_model("ours", **paths | {"model": tmp_path})
    paths["about"].write_text("## Use\n")
    with pytest.raises(PartitaError, match="## Limits"):
        script.add_model("ours", **paths)
    with pytest.raises(SystemExit) as end:
        script.main(["ours", str(paths["model"]), "--about", "x", "--evaluation", "x", "--data", str(tmp_path)])
    assert end.value.code == 2
