"""Names of pretrained models, wherever a model is named."""

import json
import sys
from types import SimpleNamespace

import partita
import pytest
import soundfile
import torch
from partita import recipes
from partita.model_loading import load_codec, load_model
from partita.training import train
from partita_core import PartitaError, Saved, override, round_to_half


@pytest.fixture
def pretrained(run, monkeypatch):
    """An installed package of one model, `tones`: that of `run`."""
    package = SimpleNamespace(names=lambda: ("tones",), folder={"tones": run / "model"}.__getitem__)
    monkeypatch.setitem(sys.modules, "partita_pretrained", package)
    return run / "model"


def test_pretrained_model_is_loaded_by_its_name(pretrained, codec):
    assert partita.load is load_model
    for load in (partita.load, load_codec):
        model = load("tones")
        assert model.space_id == codec.space_id and not model.training


def test_folder_comes_before_a_pretrained_model_of_the_same_name(pretrained, codec, tmp_path, monkeypatch):
    round_to_half(codec)
    codec.save_pretrained(tmp_path / "tones", half=True)
    monkeypatch.chdir(tmp_path)
    assert partita.load("tones").space_id == codec.space_id != load_codec(pretrained).space_id


@pytest.mark.parametrize("name", ["tone", "tones.wav", "else"])
def test_unknown_name_is_an_error_with_the_pretrained_names(pretrained, name):
    with pytest.raises(PartitaError) as error:
        partita.load(name)
    assert repr(name) in str(error.value) and "tones" in str(error.value).replace(repr(name), "")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "partita_pretrained", None)
    with pytest.raises(PartitaError) as error:
        partita.load("tones")
    assert "'tones'" in str(error.value) and "partita-pretrained" in str(error.value)


COMMANDS = {
    "encode": "encode tones {audio} -o {out}.safetensors",
    "corpus": "encode tones {data} -o {out}",
    "decode": "decode tones {latents} -o {out}.wav",
    "reconstruct": "reconstruct tones {audio} -o {out}.wav",
    "tokenize": "tokenize tones {audio} -o {out}.safetensors",
    "evaluate": "evaluate tones --data {data}",
    "evaluate named": "evaluate ours=tones --data {data}",
    "frechet": "evaluate {data}/test --data {data} --frechet latents:tones",
    "report": "report tones --data {data} -o {out}.html",
    "train": "train tiny --data {data} --output {out} --init-from tones",
    "quantize": "quantize tones --data {data} --output {out}",
    "represent": "represent tones --data {data} --output {out}",
    "represent file": "represent tones {audio} -o {out}.safetensors",
    "generate": "generate tones --data {data} --output {out}",
    "generate file": "generate tones --seconds 1 -o {out}.wav",
    "probe": "probe tones --data {data}",
    "info": "info tones",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_name(command, pretrained, refused, tones, codec, config, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", config)
    paths = {"data": tones, "audio": next(tones.glob("test/*.wav")), "latents": tmp_path / "l.safetensors"}
    codec.encode(torch.zeros(1, 1, 100)).save(paths["latents"])
    opened = []

    def opens(name, **_):
        opened.append(name)
        raise PartitaError("opened")

    monkeypatch.setattr(Saved, "from_pretrained", opens)
    line = refused(*COMMANDS[command].format(**paths, out=tmp_path / "out").split())
    assert opened == [pretrained] and line.endswith(": opened\n")


def test_file_through_a_pretrained_model(pretrained, ok, tones, tmp_path):
    audio = next(tones.glob("test/*.wav"))
    for name, model in (("a", "tones"), ("b", pretrained)):
        ok("reconstruct", model, audio, "-o", tmp_path / f"{name}.wav")
    one, other = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in "ab")  # the header has the time of writing
    assert one.any() and (one == other).all()
    assert json.loads(ok("info", "tones", "--json")[0])["name"] == "tones"


def test_evaluation_has_the_name_in_its_table(pretrained, ok, tones):
    out, _ = ok("evaluate", "tones", "--data", tones, "--limit", 1, "--metrics", "si_sdr")
    assert "| tones |" in out


@pytest.mark.slow
def test_run_on_a_pretrained_codec_is_resumed_by_its_name(pretrained, family, tones, tmp_path):
    config = override(family("quantization", steps=1), ["codec=tones"])
    train(config, data=tones, output=tmp_path / "run", progress=False)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["config"]["codec"] == "tones"
    train(override(config, ["trainer.steps=2"]), data=tones, output=tmp_path / "run", resume=True, progress=False)
    checkpoint = load_model(tmp_path / "run" / "checkpoints" / "step_00000002")
    assert checkpoint.space_id == load_codec("tones").space_id
