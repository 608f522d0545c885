"""Numeric and class columns of data sets in training batches."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from partita.data import DataConfig, build_loader, encode_corpus, open_dataset, write_audio
from partita.model_loading import load_codec
from partita.training import train
from partita_core import AudioSpec, ChannelLayout, PartitaError, override

pytestmark = pytest.mark.usefixtures("datasets_cache")

SPEC = AudioSpec(8000, 1, (ChannelLayout.MONO,))
CONFIG = DataConfig(augmentation=None, silence_db=None, num_workers=0, batch_size=4, crop_seconds=0.01)
LABELS = ("snare", "kick", "hat", "kick")
TEMPOS = (120.0, 90.5, 60.0, 75.0)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four files of one constant each, with metadata."""
    rows = ["file_name,label,tempo,channels,split"]
    for number, (label, tempo) in enumerate(zip(LABELS, TEMPOS)):
        write_audio(tmp_path / f"{number}.wav", torch.full((1, 800), 0.1 * (number + 1)), 8000)
        rows.append(f"{number}.wav,{label},{tempo},{number},train")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    return tmp_path


def write_parquet(folder: Path, *, labels=LABELS, tempos=TEMPOS) -> Path:
    """The same rows in shards of two, with a ClassLabel, a bool and a list column."""
    import datasets

    datasets.disable_progress_bars()
    names = ["kick", "snare", "hat"]
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "file_name": datasets.Value("string"),
            "label": datasets.Value("string"),
            "drum": datasets.ClassLabel(names=names),
            "tempo": datasets.Value("float64"),
            "loud": datasets.Value("bool"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    folder.mkdir(exist_ok=True)
    for shard in range(2):
        rows = []
        for number in (2 * shard, 2 * shard + 1):
            path = folder / f"{number}.wav"
            write_audio(path, torch.full((1, 800), 0.1 * (number + 1)), 8000)
            row = {"audio": {"path": path.name, "bytes": path.read_bytes()}, "file_name": path.name}
            row |= {"label": labels[number], "drum": labels[number], "tempo": tempos[number]}
            rows.append(row | {"loud": number > 1, "tags": ["x"]})
            path.unlink()
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(folder / f"train-{shard:05d}-of-00002.parquet")
    return folder


def loader(dataset, *columns: str, **changes):
    config = replace(CONFIG, columns=columns, **changes)
    return build_loader(dataset, config, audio_spec=SPEC, crop_multiple=10, seed=0)


def by_name(batch) -> dict[str, dict[str, float]]:
    return {
        name: {column: values[item].item() for column, values in batch["columns"].items()}
        for item, name in enumerate(batch["file_name"])
    }


def test_numbers_and_classes_of_each_row(folder):
    read = loader(open_dataset(folder), "label", "tempo", "channels")
    batch = next(iter(read))
    assert read.classes == {"label": ("hat", "kick", "snare")}
    kinds = {name: (values.dtype, values.shape) for name, values in batch["columns"].items()}
    assert kinds == {
        "label": (torch.int64, (4,)),
        "tempo": (torch.float32, (4,)),
        "channels": (torch.int64, (4,)),
    }
    expected = {
        f"{number}.wav": {"label": read.classes["label"].index(label), "tempo": tempo, "channels": number}
        for number, (label, tempo) in enumerate(zip(LABELS, TEMPOS))
    }
    assert by_name(batch) == expected


def test_no_columns_leave_the_batch_unchanged(folder):
    plain, labeled = next(iter(loader(open_dataset(folder)))), next(iter(loader(open_dataset(folder), "label")))
    assert "columns" not in plain and torch.equal(plain["audio"], labeled["audio"])


def test_class_label_keeps_its_own_order(tmp_path):
    read = loader(open_dataset(write_parquet(tmp_path / "set")), "drum", "loud")
    found = by_name(next(iter(read)))
    assert read.classes == {"drum": ("kick", "snare", "hat")}
    assert {name: row["drum"] for name, row in found.items()} == {"0.wav": 1, "1.wav": 0, "2.wav": 2, "3.wav": 0}
    assert [found[f"{number}.wav"]["loud"] for number in range(4)] == [0, 0, 1, 1]


def test_classes_do_not_depend_on_row_order(folder):
    dataset = open_dataset(folder)
    orders = [loader(dataset.select(rows), "label").classes for rows in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3])]
    assert orders[0] == orders[1] == orders[2] == {"label": ("hat", "kick", "snare")}


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_columns_equal_those_of_random_access(tmp_path, workers):
    folder = write_parquet(tmp_path / "set")
    read = loader(open_dataset(folder), "label", "drum", "tempo")
    settings = {"streaming": True, "shuffle_buffer": 2, "num_workers": workers, "batch_size": 2}
    stream = loader(open_dataset(folder, streaming=True), "label", "drum", "tempo", **settings)
    assert stream.classes == read.classes
    found = {}
    for batch in islice(stream, 2):
        found |= by_name(batch)
    assert found == by_name(next(iter(read)))


def test_crops_of_latents_have_columns(run, folder, tmp_path):
    codec = load_codec(run / "model")
    encode_corpus(codec, folder, tmp_path / "corpus", progress=False)
    dataset = open_dataset(tmp_path / "corpus")
    config = replace(CONFIG, columns=("label", "tempo"))
    settings = {"audio_spec": codec.audio_spec, "crop_multiple": codec.latent_spec.hop, "seed": 0}
    read = build_loader(dataset, config, **settings)
    batch = next(iter(read))
    assert "latents" in batch and read.classes == {"label": ("hat", "kick", "snare")}
    assert {name: row["tempo"] for name, row in by_name(batch).items()} == {
        f"{number}.wav": tempo for number, tempo in enumerate(TEMPOS)
    }


def test_missing_column_and_wrong_type_raise(tmp_path, folder):
    with pytest.raises(PartitaError, match="'lable'.*label"):
        loader(open_dataset(folder), "lable")
    dataset = open_dataset(write_parquet(tmp_path / "set"))
    with pytest.raises(PartitaError, match="'tags' holds List"):
        loader(dataset, "tags")


def test_missing_value_raises_before_training(folder):
    text = (folder / "metadata.csv").read_text().replace("1.wav,kick,90.5", "1.wav,,")
    (folder / "metadata.csv").write_text(text)
    for column in ("label", "tempo"):
        with pytest.raises(PartitaError, match=f"1 of 4 rows, first in '1.wav', .*'{column}'") as caught:
            loader(open_dataset(folder), column)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column, changes", [("label", {"labels": ("snare", None, "hat", "kick")}), ("tempo", {})])
def test_missing_value_in_stream_is_skipped_and_reported(tmp_path, column, changes):
    changes = changes or {"tempos": (120.0, float("nan"), 60.0, 75.0)}
    folder = write_parquet(tmp_path / "set", **changes)
    settings = {"streaming": True, "shuffle_buffer": 2, "batch_size": 1}
    batches = list(islice(loader(open_dataset(folder, streaming=True), column, **settings), 6))
    assert {batch["file_name"][0] for batch in batches} == {"0.wav", "2.wav", "3.wav"}
    reasons = {str(reason) for batch in batches for reason in batch["broken"]}
    assert len(reasons) == 1 and "1.wav" in (reason := reasons.pop()) and repr(column) in reason


def test_given_classes_are_used_and_other_values_raise(folder):
    dataset = open_dataset(folder)
    config = replace(CONFIG, columns=("label",))
    settings = {"audio_spec": SPEC, "crop_multiple": 10, "seed": 0}
    read = build_loader(dataset, config, classes={"label": ("snare", "kick", "hat", "clap")}, **settings)
    assert by_name(next(iter(read)))["0.wav"] == {"label": 0}
    with pytest.raises(PartitaError, match="1 of 4 rows, first in '0.wav', .*'snare'.* 2 classes"):
        build_loader(dataset, config, classes={"label": ("hat", "kick")}, **settings)


def test_mixing_with_columns_raises():
    from partita.data import Augmentation

    with pytest.raises(PartitaError, match="mix is 0.5.*columns"):
        DataConfig(augmentation=Augmentation(mix=0.5), columns=("label",))


def test_training_passes_columns_to_the_objective(config, tones, tmp_path, monkeypatch):
    """Batches of training and of validation losses have the columns, with indices of the same classes."""
    from partita.objectives import Objective

    seen, original = [], Objective.__call__

    def call(self, batch, *rest):
        seen.append(batch["columns"])
        return original(self, batch, *rest)

    monkeypatch.setattr(Objective, "__call__", call)
    data = tmp_path / "data"
    for path in [*(tones / "train").iterdir(), *(tones / "validation").iterdir()]:
        target = data / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    labels = "train/tone_0.wav,a\n" + "".join(f"train/tone_{i}.wav,b\n" for i in range(1, 6))
    (data / "metadata.csv").write_text(f"file_name,label\n{labels}validation/tone_0.wav,b\nvalidation/tone_1.wav,b\n")
    run = override(config(steps=2), ['data.columns=["label"]', "data.batch_size=6"])
    train(run, data=data, output=tmp_path / "run", progress=False)
    assert len(seen) == 2 and all(sorted(columns["label"].tolist()) == [0, 1, 1, 1, 1, 1] for columns in seen)
