"""Row filters: conditions on columns, for training, encoding and evaluation."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from partita.data import DataConfig, build_loader, encode_corpus, filter_rows, open_dataset, write_audio
from partita.data.where import meets, parse_where
from partita.training import train
from partita_core import AudioSpec, ChannelLayout, PartitaError, override

pytestmark = pytest.mark.usefixtures("datasets_cache")

SPEC = AudioSpec(8000, 1, (ChannelLayout.MONO,))
CONFIG = DataConfig(augmentation=None, silence_db=None, num_workers=0, batch_size=2, crop_seconds=0.01)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three training files, two of them of the task `speech`, and a test file of each task."""
    tasks = {"train/a": "speech", "train/b": "music", "train/c": "speech", "test/d": "music", "test/e": "speech"}
    rows = ["file_name,task,tempo,year"]
    for number, (name, task) in enumerate(tasks.items()):
        path = tmp_path / "data" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, torch.full((1, 800), 0.1 * (number + 1)), 8000)
        rows.append(f"{name}.wav,{task},{60 + 10 * number},1999")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def names(folder, where: str, split: str = "train") -> list[str]:
    return [Path(name).stem for name in open_dataset(folder, split, where=where)["file_name"]]


def test_parse_where():
    assert parse_where("") == parse_where(" ") == {}
    assert parse_where("task=read_speech, tempo=120") == {"task": "read_speech", "tempo": "120"}
    assert parse_where("title=a=b") == {"title": "a=b"}


@pytest.mark.parametrize("text, named", [("task", "'task'"), ("task=", "'task='"), ("=x", "'=x'"), ("a=1,b", "'b'")])
def test_malformed_where_raises(text, named):
    with pytest.raises(PartitaError, match=named):
        DataConfig(where=text)
    with pytest.raises(PartitaError, match="'a' is given twice"):
        parse_where("a=1,a=2")


def test_rows_that_meet_all_conditions_are_kept(folder):
    assert names(folder, "") == ["a", "b", "c"]
    assert names(folder, "task=speech") == ["a", "c"]
    assert names(folder, "task=speech,tempo=80") == ["c"]
    assert names(folder, "task=speech", "test") == ["e"]
    assert names(folder, "tempo=70.0") == ["b"]  # numbers are compared as numbers
    assert names(folder, "year=1999") == ["a", "b", "c"]  # text is compared as text


def test_empty_result_names_the_values_of_the_column(folder):
    with pytest.raises(PartitaError, match=r"none of 3 rows has task=sing; .*'task' holds speech, music$") as caught:
        open_dataset(folder, where="task=sing")
    assert str(folder) in str(caught.value) and "(train)" in str(caught.value)
    with pytest.raises(PartitaError, match="none of 3 rows has task=music,tempo=60 together"):
        open_dataset(folder, where="task=music,tempo=60")


def test_unknown_column_and_wrong_value_raise(folder):
    with pytest.raises(PartitaError, match="'tusk'.*task"):
        open_dataset(folder, where="tusk=speech")
    with pytest.raises(PartitaError, match="'tempo' holds float64.*'fast'"):
        open_dataset(folder, where="tempo=fast")
    with pytest.raises(PartitaError, match="'audio' holds"):
        open_dataset(folder, where="audio=x")


def test_types_of_columns():
    import datasets

    features = datasets.Features(
        {
            "kind": datasets.ClassLabel(names=["kick", "snare"]),
            "loud": datasets.Value("bool"),
            "count": datasets.Value("int32"),
            "id": datasets.Value("int64"),
            "level": datasets.Value("float32"),
        }
    )
    columns = {
        "kind": [0, 1, 1],
        "loud": [True, False, None],
        "count": [1, 2, 3],
        "id": [2**62 + 1, 2**62, 0],
        "level": [0.5, None, float("nan")],
    }
    rows = datasets.Dataset.from_dict(columns, features=features)
    for where, expected in {
        "kind=snare": [2, 3],
        "loud=false": [2],
        "count=2": [2],
        "count=2.0": [2],
        f"id={2**62 + 1}": [1],
        "level=0.5": [1],
    }.items():
        assert filter_rows(rows, where)["count"][:] == expected, where
    with pytest.raises(PartitaError, match="'snar' is not a class of the column 'kind'.*snare"):
        filter_rows(rows, "kind=snar")


@pytest.mark.parametrize(
    "value, text, expected",
    [
        ("a", "a", True),
        ("120", "120.0", False),
        (120, "120.0", True),
        (2**62 + 1, str(2**62 + 1), True),
        (2**62 + 1, str(2**62), False),
        (120.0, "120", True),
        (120.0, "fast", False),
        (True, "true", True),
        (True, "1", False),
        (None, "None", False),
        ("None", "None", True),
    ],
)
def test_row_meets_conditions_by_the_type_of_its_value(value, text, expected):
    row = {"x": value, "y": "b"}
    assert meets(row, {"x": text, "y": "b"}) is expected
    assert not meets(row, {"x": text, "y": "c"}) and not meets(row, {"x": text, "z": "c"})


def write_shards(folder: Path, tasks: list[list[str]]) -> Path:
    import datasets

    folder.mkdir()
    number = 0
    for shard, group in enumerate(tasks):
        rows = []
        for task in group:
            path = folder / f"{number}.wav"
            write_audio(path, torch.full((1, 800), 0.01 * (number + 1)), 8000)
            rows.append(
                {"audio": {"path": path.name, "bytes": path.read_bytes()}, "file_name": path.name, "task": task}
            )
            path.unlink()
            number += 1
        datasets.Dataset.from_list(rows).to_parquet(folder / f"train-{shard:05d}-of-{len(tasks):05d}.parquet")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_is_filtered_and_resumes(tmp_path, workers):
    folder = write_shards(tmp_path / "set", [["x", "y", "x"], ["y", "y", "y"], ["y", "x", "x"]])
    config = replace(CONFIG, where="task=x", streaming=True, shuffle_buffer=2, num_workers=workers, batch_size=1)
    dataset = open_dataset(folder, where=config.where, streaming=True)
    settings = {"audio_spec": SPEC, "crop_multiple": 10, "seed": 0}
    read = build_loader(dataset, config, **settings)
    batches, positions = [], []
    for batch in islice(read, 8):
        batches.append(batch["file_name"][0])
        positions.append(read.positions)
    assert set(batches) == {"0.wav", "2.wav", "7.wav", "8.wav"}
    resumed = build_loader(dataset, config, positions=positions[2], **settings)
    assert [batch["file_name"][0] for batch in islice(resumed, 5)] == batches[3:]


def test_stream_without_matching_row_raises(tmp_path):
    folder = write_shards(tmp_path / "set", [["x", "y"], ["y"]])
    config = replace(CONFIG, where="task=z", streaming=True)
    dataset = open_dataset(folder, where=config.where, streaming=True)
    with pytest.raises(PartitaError, match="no row of the stream has task=z"):
        next(iter(build_loader(dataset, config, audio_spec=SPEC, crop_multiple=10, seed=0)))


def test_damaged_shard_of_filtered_stream_is_named(tmp_path):
    folder = write_shards(tmp_path / "set", [["x", "x"], ["x", "x"]])
    dataset = open_dataset(folder, where="task=x", streaming=True)
    (damaged := folder / "train-00001-of-00002.parquet").write_bytes(b"PAR1")
    config = replace(CONFIG, streaming=True, batch_size=1)
    batches = list(islice(build_loader(dataset, config, audio_spec=SPEC, crop_multiple=10, seed=0), 6))
    assert {reason.file for batch in batches for reason in batch["broken"]} == {str(damaged)}


@pytest.mark.slow
def test_training_uses_filtered_rows(config, tones, tmp_path, monkeypatch):
    from partita.objectives import Objective

    seen, original = set(), Objective.__call__

    def call(self, batch, *rest):
        seen.update(batch["file_name"])
        return original(self, batch, *rest)

    monkeypatch.setattr(Objective, "__call__", call)
    data = tmp_path / "data"
    rows = ["file_name,task"]
    for path in [*(tones / "train").iterdir(), *(tones / "validation").iterdir()]:
        target = data / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        rows.append(f"{path.parent.name}/{path.name},{'odd' if path.stem[-1] in '135' else 'even'}")
    (data / "metadata.csv").write_text("\n".join(rows))
    train(override(config(steps=2), ["data.where=task=odd"]), data=data, output=tmp_path / "run", progress=False)
    assert {Path(name).name for name in seen} == {"tone_1.wav", "tone_3.wav", "tone_5.wav"}


def test_encode_filters_and_leaves_out_empty_splits(run, folder, tmp_path, ok, refused, caplog):
    out, _ = ok("encode", run / "model", folder, "-o", tmp_path / "corpus", "--where", "task=music,tempo=70")
    assert "1 of 1 files" in out
    assert set(json.loads((tmp_path / "corpus" / "corpus.json").read_text())["splits"]) == {"train"}
    assert [Path(name).stem for name in open_dataset(tmp_path / "corpus")["file_name"]] == ["b"]
    assert any("tempo=70" in record.message and "test" in record.message for record in caplog.records)
    line = refused("encode", run / "model", folder, "-o", tmp_path / "none", "--where", "task=sing")
    assert "task=sing" in line and "speech, music" in line
    line = refused("encode", run / "model", folder / "train/a.wav", "-o", tmp_path / "z.safetensors", "--where", "a=b")
    assert "--where" in line


def test_resuming_a_corpus_with_other_conditions_raises(run, folder, tmp_path):
    from partita.model_loading import load_codec

    codec = load_codec(run / "model")
    encode_corpus(codec, folder, tmp_path / "corpus", where="task=speech", progress=False)
    done = encode_corpus(codec, folder, tmp_path / "corpus", where="task=speech", progress=False)
    assert (done.files, done.encoded) == (3, 3)
    with pytest.raises(PartitaError, match="other files"):
        encode_corpus(codec, folder, tmp_path / "corpus", progress=False)


def test_evaluate_filters(run, folder, tmp_path, ok, refused):
    common = ("evaluate", run / "model", "--data", folder, "--metrics", "si_sdr")
    ok(*common, "--where", "task=music", "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [Path(clip["name"]).stem for clip in found["clips"]] == ["d"]
    assert "speech" in refused(*common, "--where", "task=sing")
