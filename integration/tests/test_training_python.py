"""Training from Python: data sets, models and callbacks as objects."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Audio, Dataset, DatasetDict, IterableDatasetDict
from partita.data import encode_corpus, open_dataset
from partita.model_loading import load_codec, load_model
from partita.training import Callback, RunFolder, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita_core import Autoencoder, PartitaError, override, read_tensors
from torch import nn


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "model" / "model.safetensors")[0]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(folder: Path, split: str) -> Dataset:
    """A data set as a user has it: the bytes of files, and a column that audio is decoded from."""
    files = sorted((folder / split).glob("*.wav"))
    audio = [{"path": file.name, "bytes": file.read_bytes()} for file in files]
    return Dataset.from_dict({"audio": audio, "file_name": [f"{split}/{file.name}" for file in files]}).cast_column(
        "audio", Audio()
    )


# ------------------------------------------------------------------ data


@pytest.mark.slow
def test_data_set_objects_train_like_their_folder(config, run, tones, tmp_path):
    splits = DatasetDict({"train": rows(tones, "train"), "val": rows(tones, "validation")})
    train(config(), data=splits, output=tmp_path / "splits", progress=False)
    assert equal(weights(run), weights(tmp_path / "splits"))
    log = read_log(tmp_path / "splits" / "log.jsonl")
    assert [line["step"] for line in log if "validation/si_sdr" in line] == [0, 3, 6]
    train(config(steps=1), data=splits["train"], output=tmp_path / "one", progress=False)
    assert any("train/si_sdr" in line for line in read_log(tmp_path / "one" / "log.jsonl"))
    assert "`Dataset` (6 files" in (tmp_path / "one" / "model" / "README.md").read_text()


def test_corpus_object(run, family, tones, tmp_path):
    encode_corpus(load_codec(run / "model"), tones, tmp_path / "corpus", progress=False)
    for name, data in (("path", tmp_path / "corpus"), ("object", open_dataset(tmp_path / "corpus"))):
        train(family("quantization", steps=2), data=data, output=tmp_path / name, progress=False)
    assert equal(weights(tmp_path / "path"), weights(tmp_path / "object"))


@pytest.mark.slow
def test_resume_on_a_data_set_object_checks_its_files(config, tones, tmp_path):
    data = rows(tones, "train")
    train(config(steps=1), data=data, output=tmp_path / "run", progress=False)
    with pytest.raises(PartitaError, match="other files"):
        train(config(steps=2), data=data.select(range(3)), output=tmp_path / "run", resume=True, progress=False)
    train(config(steps=2), data=data, output=tmp_path / "run", resume=True, progress=False)


@pytest.mark.slow
def test_stream_object(config, tones, tmp_path):
    stream = rows(tones, "train").cast_column("audio", Audio(decode=False)).to_iterable_dataset()
    streamed = override(config(steps=2), ["data.streaming=true"])
    with pytest.raises(PartitaError, match=r"IterableDataset.*data\.streaming=true"):
        train(config(), data=stream, output=tmp_path / "run", progress=False)
    with pytest.raises(PartitaError, match=r"Dataset.*data\.streaming=false"):
        train(streamed, data=rows(tones, "train"), output=tmp_path / "run", progress=False)
    train(streamed, data=IterableDatasetDict({"train": stream}), output=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "data, message",
    [
        ([1, 2], "list"),
        (3, "int"),
        (DatasetDict({"test": Dataset.from_dict({"audio": []})}), "'train'.*test"),
        (Dataset.from_dict({"sound": [1]}), "audio"),
        (Dataset.from_dict({"audio": [[0.5, 0.25]]}), "audio"),
    ],
)
def test_data_that_cannot_be_trained_on(config, tmp_path, data, message):
    with pytest.raises(PartitaError, match=message) as caught:
        train(config(), data=data, output=tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


# ------------------------------------------------------------------ models


def test_model_is_trained_in_place_and_its_config_is_recorded(config, tones, tmp_path):
    settings = config(steps=2, ema_decay=None)
    wider = replace(settings, model=replace(settings.model, latent_dim=6))
    torch.manual_seed(5)
    built = wider.model.build()
    model = Autoencoder(built.encoder, built.bottleneck, built.decoder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = train(settings, data=tones, output=tmp_path / "run", model=model, progress=False)
    assert RunFolder(tmp_path / "run").read_config().model.latent_dim == 6
    saved = Autoencoder.from_pretrained(folder)
    assert saved.latent_spec.dim == 6 and equal(dict(model.state_dict()), dict(saved.state_dict()))
    assert not equal(before, dict(model.state_dict()))
    again = load_model(next((tmp_path / "run" / "checkpoints").iterdir()))
    assert equal(dict(model.state_dict()), dict(again.state_dict()))


def test_model_on_a_codec(run, family, config, tones, tmp_path):
    settings = family("generation", steps=1)
    codec = load_codec(run / "model")
    model = settings.model.build(codec=codec)
    train(settings, data=tones, output=tmp_path / "run", model=model, progress=False)
    assert load_model(tmp_path / "run" / "model").codec.space_id == codec.space_id
    torch.manual_seed(3)
    other = settings.model.build(codec=config().model.build().eval())
    with pytest.raises(PartitaError, match="another codec"):
        train(settings, data=tones, output=tmp_path / "other", model=other, progress=False)


class Unregistered(nn.Module):
    pass


def test_model_that_could_not_be_saved(config, family, tones, tmp_path):
    settings = config()
    model = settings.model.build()
    model.bottleneck.config = None
    with pytest.raises(PartitaError, match=type(model.bottleneck).__name__):
        train(settings, data=tones, output=tmp_path / "run", model=model, progress=False)
    with pytest.raises(PartitaError, match="Unregistered"):
        train(settings, data=tones, output=tmp_path / "run", model=Unregistered(), progress=False)
    with pytest.raises(PartitaError, match="latent_quantization.*quantizer.*autoencoder"):
        other = family("quantization")
        train(other, data=tones, output=tmp_path / "run", model=settings.model.build(), progress=False)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ callbacks


class Recorder(Callback):
    """Records the calls of a run."""

    def __init__(self) -> None:
        self.totals: list[float] = []
        self.calls: list[tuple[str, object]] = []

    def on_step(self, state, values):
        self.totals.append(float(values["total"]))
        self.calls.append(("step", state.step))

    def on_validation(self, state, metrics):
        assert metrics["si_sdr"] < 100
        self.calls.append(("validation", state.step))

    def on_checkpoint(self, path):
        assert (path / "state.json").is_file()
        self.calls.append(("checkpoint", path.name))

    def on_end(self, model_folder):
        assert (model_folder / "model.safetensors").is_file()
        self.calls.append(("end", model_folder.name))


def test_callbacks_are_called_in_order_and_change_nothing(config, run, tones, tmp_path):
    recorder = Recorder()
    train(config(), data=tones, output=tmp_path / "run", callbacks=[recorder, Callback()], progress=False)
    steps = [[("step", step)] for step in range(1, 7)]
    steps[2].append(("validation", 3))
    steps[5] += [("checkpoint", "step_00000006"), ("validation", 6), ("end", "model")]
    assert recorder.calls == [("validation", 0), *(call for calls in steps for call in calls)]
    logged = [line["total"] for line in read_log(tmp_path / "run" / "log.jsonl") if "total" in line]
    assert recorder.totals == pytest.approx(logged)
    assert equal(weights(run), weights(tmp_path / "run"))


@pytest.mark.parametrize("error", [LookupError("enough"), FileNotFoundError("enough")])
def test_exceptions_of_callbacks_end_the_run(config, tones, tmp_path, error):
    class Stop(Callback):
        def on_step(self, state, values):
            if state.step == 2:
                raise error

    run = config(steps=3)
    with pytest.raises(type(error), match="enough"):
        train(run, data=tones, output=tmp_path / "run", callbacks=[Stop()], checkpoint_every=1, progress=False)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000001"]
    train(run, data=tones, output=tmp_path / "run", resume=True, progress=False)
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "step_00000003"
