"""`partita report`: contents and errors."""

import re
import shutil

import pytest
from partita.cli._models import named_models
from partita.training import RunFolder
from partita_core import PartitaError, write_json


def sections(path):
    return re.findall(r"<h2>([^<]*)</h2>", path.read_text(encoding="utf-8"))


def test_report_contents(ok, run, tones, tmp_path):
    output = tmp_path / "r.html"
    found, _ = ok("report", run / "model", f"early={run / 'model'}", "--data", tones, "-o", output, "--clips", 2)
    assert found == f"report: {output}\n"
    text = output.read_text(encoding="utf-8")
    assert sections(output) == ["Metrics", "Rate and distortion", "Listen", "Latents", "Training", "Models"]
    assert text.count("<article") == 2 and text.count("<audio") == 2 * 3
    assert "<title>run/model · early</title>" in text and "Paired differences" in text
    assert "<td>genae · vae · genae</td>" in text and "4 at " in text
    assert "3, 0.0 minutes" in text and "validation/si_sdr" in text


def test_report_clips_are_spread_over_the_data(ok, run, tones, tmp_path):
    ok("report", run / "model", "--data", tones, "--split", "train", "-o", tmp_path / "r.html", "--clips", 1)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r"<h3>([^<]*)", text) == ["train/tone_0.wav"] and ">6, 0.1 minutes<" in text


def test_robustness_plot_matches_models_by_name(ok, refused, run, tones, tmp_path):
    interval = {"mean": 1.0, "low": 0.5, "high": 1.5}
    record = {"snrs_db": ["inf", "0.0"], "means": {"mine": {"log_mel_l1": [interval] * 2}}, "clips": [{}]}
    write_json(tmp_path / "noisy.json", record | {"matched noise": {"log_mel_l1": interval}})
    common = ("--data", tones, "--limit", 1, "--seconds", 0.2, "-o", tmp_path / "r.html")
    common += ("--robustness", tmp_path / "noisy.json")
    assert "NAME=MODEL" in refused("report", run / "model", *common)
    ok("report", f"mine={run / 'model'}", *common)
    assert "Robustness" in sections(tmp_path / "r.html")


def test_invalid_report_arguments(refused, run, tones, tmp_path):
    model, data = run / "model", ("--data", tones)
    assert "must be .html" in refused("report", model, *data, "-o", tmp_path / "r.txt")
    assert "cannot write" in refused("report", model, *data, "-o", "/proc/r.html")
    assert "--clips: '0'" in refused("report", model, *data, "-o", tmp_path / "r.html", "--clips", 0)
    assert "--seconds: '-1'" in refused("report", model, *data, "-o", tmp_path / "r.html", "--seconds", -1)
    nine = [f"m{i}={model}" for i in range(9)]
    assert "there are 9 models; a report compares at most 8" in refused(
        "report", *nine, *data, "-o", tmp_path / "r.html"
    )
    assert "same name" in refused("report", f"a={model}", f"a={run}", *data, "-o", tmp_path / "r.html")


@pytest.mark.parametrize("content", [b"5\n", b'\xff\n{"step": 1}\n'])
def test_invalid_log_raises_before_evaluation(refused, run, tones, tmp_path, content):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_bytes(content)
    command = ("report", tmp_path / "run" / "model", "--data", tones, "-o", tmp_path / "r.html")
    assert "line 1 is" in refused(*command)


def test_model_names(tmp_path):
    model = tmp_path / "a" / "model"
    model.mkdir(parents=True)
    found = named_models([str(model), f"mine={model}", "hf:some/thing"])
    assert found == {"a/model": str(model), "mine": str(model), "hf:some/thing": "hf:some/thing"}
    assert list(named_models(["b=x", "a=y"])) == ["b", "a"]
    (tmp_path / "odd=name").mkdir()  # an existing path with an equals sign is a path
    assert named_models([str(tmp_path / "odd=name")]) == {"odd=name": str(tmp_path / "odd=name")}
    for models in (["a=x", "a=y"], [str(model), str(model)]):
        with pytest.raises(PartitaError, match="two of 2 models .*same name"):
            named_models(models)


def test_run_folder_of_model(run, tmp_path):
    for inside in ("model", "checkpoints/step_00000006"):
        assert RunFolder.of_model(run / inside).log == (run / "log.jsonl").resolve()
    assert RunFolder.of_model(run) is None and RunFolder.of_model(tmp_path / "model") is None
    assert RunFolder.of_model("hf:owner/name") is None
