"""Representation supervision in the trainer: on native and external codecs, with and without texts."""

import json
from dataclasses import replace

import pytest
import torch
from partita.cli import main
from partita.data import DataConfig, open_dataset
from partita.data.texts import TextTask
from partita.model_loading import load_model, load_representation
from partita.objectives import RepresentationSupervisionConfig
from partita.training import AdamWConfig, Constant, RunConfig, TrainerConfig, train
from partita.training.logs import read_log
from partita_core import PartitaError, read_tensors
from partita_representation import (
    CausalRepresentationConfig,
    FrozenLLMConfig,
    RepresentationModel,
    RepresentationModelConfig,
    RQMTPConfig,
    SwiGLUAdapterConfig,
)

TEXTS = (TextTask("What?", "tone {number}"),)


@pytest.fixture(scope="module")
def numbered(tones, tmp_path_factory):
    """The tones with a column of their numbers."""
    folder = tmp_path_factory.mktemp("numbered")
    for split in ("train", "validation"):
        (folder / split).mkdir()
        files = sorted((tones / split).glob("*.wav"))
        for file in files:
            (folder / split / file.name).symlink_to(file)
        lines = ["file_name,number", *(f"{file.name},{i}" for i, file in enumerate(files))]
        (folder / split / "metadata.csv").write_text("\n".join(lines))
    return folder


def supervision(codec, llm=None, texts=TEXTS, **trainer) -> RunConfig:
    supervisions = {"rq": RQMTPConfig.example()} | ({"llm": FrozenLLMConfig()} if llm else {})
    adapter = SwiGLUAdapterConfig.example() if llm else None
    adamw = AdamWConfig(lr=1e-2, schedule=Constant())
    settings = {"steps": 6, "log_every": 1, "evaluate_seconds": 1.0, "ema_decay": 0.9, **trainer}
    return RunConfig(
        codec=str(codec),
        model=RepresentationModelConfig(CausalRepresentationConfig.example(), adapter, str(llm) if llm else None),
        objective=RepresentationSupervisionConfig(supervisions, dict.fromkeys(supervisions, 1.0)),
        data=DataConfig(crop_seconds=0.4, batch_size=4, num_workers=0, augmentation=None, texts=texts if llm else ()),
        trainer=TrainerConfig(optimizers={"generator": adamw}, **settings),
    )


@pytest.fixture(scope="module")
def trained(run, llm, numbered, tmp_path_factory):
    """Folder of a run with both supervisions."""
    folder = tmp_path_factory.mktemp("supervised") / "run"
    train(supervision(run / "model", llm, steps=60), data=numbered, output=folder, progress=False)
    return folder


def lines(folder):
    return [line for line in read_log(folder / "log.jsonl") if "total" in line]


def test_both_losses_decrease_and_validation_losses_are_logged(trained):
    first, last = lines(trained)[0], lines(trained)[-1]
    assert last["loss/rq"] < 0.8 * first["loss/rq"]
    assert last["loss/llm"] < 0.9 * first["loss/llm"]  # from the features alone: the language model is random
    assert last["total"] == pytest.approx(last["loss/rq"] + last["loss/llm"], rel=1e-5)
    validated = [line for line in read_log(trained / "log.jsonl") if "validation/rq" in line]
    assert [line["step"] for line in validated] == [0, 30, 60]
    assert validated[-1]["validation/rq"] < validated[0]["validation/rq"]
    assert 0 <= validated[-1]["validation/llm_token_accuracy"] <= 1


def test_saved_model_contains_the_unchanged_codec(trained, run):
    model = load_representation(trained / "model")
    folders = run / "model", trained / "model/codec"
    before, after = (read_tensors(folder / "model.safetensors")[0] for folder in folders)
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    assert model.codec.space_id == load_model(run / "model").space_id
    checkpoint = sorted((trained / "checkpoints").iterdir())[-1]
    again = load_model(checkpoint)
    assert isinstance(again, RepresentationModel)
    for name, tensor in again.encoder.state_dict().items():
        assert (tensor == model.encoder.state_dict()[name]).all()
    assert "RepresentationModel on the latents of a frozen codec" in (trained / "model" / "README.md").read_text()


@pytest.mark.slow
def test_resumed_representation_run_equals_uninterrupted_run(run, llm, numbered, tmp_path):
    config = supervision(run / "model", llm, steps=4)
    train(config, data=numbered, output=tmp_path / "whole", progress=False)
    half = replace(config, trainer=replace(config.trainer, steps=2))
    train(half, data=numbered, output=tmp_path / "run", progress=False)
    train(config, data=numbered, output=tmp_path / "run", resume=True, progress=False)
    # The schedule is constant, so the first two steps are the same.
    whole, resumed = (read_tensors(tmp_path / name / "model/model.safetensors")[0] for name in ("whole", "run"))
    assert all((whole[name] == resumed[name]).all() for name in whole)


@pytest.mark.slow
def test_training_on_a_corpus_without_audio(run, llm, numbered, tmp_path):
    assert main(["encode", str(run / "model"), str(numbered), "-o", str(tmp_path / "corpus")]) == 0
    assert "audio" not in open_dataset(tmp_path / "corpus").column_names
    train(supervision(run / "model", llm), data=tmp_path / "corpus", output=tmp_path / "run", progress=False)
    assert lines(tmp_path / "run")[-1]["loss/llm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mimi", "oobleck"])
def test_training_on_external_codecs(foreign, tones, tmp_path, name):
    foreign(name).save_pretrained(tmp_path / "codec")
    config = supervision(f"hf:{tmp_path / 'codec'}", steps=40)
    train(config, data=tones, output=tmp_path / "run", progress=False)
    first, last = lines(tmp_path / "run")[0], lines(tmp_path / "run")[-1]
    assert last["loss/rq"] < 0.8 * first["loss/rq"]
    assert load_representation(tmp_path / "run" / "model").codec.audio_spec.sample_rate == 8000


def test_init_from_a_representation_model(run, llm, numbered, trained, tmp_path, ok, monkeypatch):
    from partita import recipes

    fixed = AdamWConfig(lr=0.0, schedule=Constant())

    def recipe(codec, llm=None):
        config = supervision(codec, llm, steps=1)
        return replace(config, trainer=replace(config.trainer, optimizers={"generator": fixed}))

    monkeypatch.setitem(recipes.CODEC_RECIPES, "fixed", recipe)
    of_run = "represent", run / "model", "--data", numbered, "--output", tmp_path / "on", "--llm", llm
    ok(*of_run, "--recipe", "fixed", "--init-from", trained / "model")
    before, after = (read_tensors(folder / "model/model.safetensors")[0] for folder in (trained, tmp_path / "on"))
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6)


def test_missing_texts_are_reported_before_training(run, llm, tones, numbered, tmp_path):
    with pytest.raises(PartitaError, match="texts"):
        train(supervision(run / "model", llm, texts=()), data=tones, output=tmp_path / "a", progress=False)
    with pytest.raises(PartitaError, match="number"):
        train(supervision(run / "model", llm), data=tones, output=tmp_path / "b", progress=False)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.slow
def test_represent_from_the_command_line(run, tones, ok, refused, monkeypatch, tmp_path):
    from partita import recipes

    monkeypatch.setitem(recipes.CODEC_RECIPES, "tiny", lambda codec, llm=None: supervision(codec, llm))
    printed, _ = ok("represent", run / "model", "--data", tones, "--output", tmp_path / "r", "--recipe", "tiny")
    assert "rq_accuracy" in printed and "model:" in printed
    file = next((tones / "test").glob("*.wav"))
    ok("represent", tmp_path / "r/model", file, "-o", tmp_path / "u.safetensors")
    ok("encode", run / "model", file, "-o", tmp_path / "z.safetensors")
    ok("represent", tmp_path / "r/model", tmp_path / "z.safetensors", "-o", tmp_path / "v.safetensors")
    direct, facts = read_tensors(tmp_path / "u.safetensors")
    stored, _ = read_tensors(tmp_path / "v.safetensors")
    assert direct["features"].shape[1] == load_representation(tmp_path / "r/model").encoder.width
    assert json.dumps(facts) and (direct["features"] - stored["features"]).abs().max() < 1e-4
    assert "INPUT" in refused("represent", tmp_path / "r/model", "-o", tmp_path / "w.safetensors")
    assert "Autoencoder" in refused("represent", run / "model", file, "-o", tmp_path / "w.safetensors")
