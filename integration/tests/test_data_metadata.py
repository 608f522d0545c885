import json
import unicodedata

import pytest
import torch
from partita.data import dataset_splits, open_dataset, write_audio
from partita_core import PartitaError


@pytest.fixture
def lay(tmp_path):
    """Write audio files with the given names, and return the folder."""
    write_audio(tmp_path / "one.wav", torch.full((1, 400), 0.25), 8000)
    audio = (tmp_path / "one.wav").read_bytes()

    def make(*names: str):
        for name in names:
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_bytes(audio)
        return tmp_path / "data"

    return make


def labels(folder, split: str = "train") -> dict[str, str | None]:
    return {row["file_name"]: row.get("label") for row in open_dataset(folder, split)}


CAFE = unicodedata.normalize("NFC", "caf\u00e9")
SPELLINGS = {
    "here": ("a.wav", "./a.wav"),
    "twice": ("sub/a.wav", "sub/../sub//a.wav"),
    "backslash": ("sub/a.wav", "sub\\a.wav"),
    "no_suffix": ("sub/a.wav", "sub/a"),
    "dotted": ("track.01.wav", "track.01"),
    "other_suffix": ("a.flac", "a.wav"),
    "unread_suffix": ("a.flac", "a.m4a"),
    "case": ("Sub/A.WAV", "sub/a.wav"),
    "composed": (f"{unicodedata.normalize('NFD', CAFE)}.wav", f"{CAFE}.wav"),
    "decomposed": (f"{CAFE}.wav", f"{unicodedata.normalize('NFD', CAFE)}.wav"),
    "all": ("Sub/Track.01.wav", ".\\sub\\track.01"),
}


@pytest.mark.parametrize("file, called", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_match_files_despite_spelling(lay, caplog, file, called, form):
    folder = lay(file, "other.wav")
    rows = [{"file_name": called, "label": "x"}, {"file_name": "other.wav", "label": "y"}]
    text = (
        "\n".join(json.dumps(row) for row in rows)
        if form == "jsonl"
        else f'file_name,label\n"{called}",x\nother.wav,y\n'
    )
    (folder / f"metadata.{form}").write_text(text, encoding="utf-8")
    assert labels(folder) == {file: "x", "other.wav": "y"}
    assert not caplog.records


def test_absolute_names_match(lay, caplog):
    folder = lay("sub/a.wav")
    (folder / "sub/metadata.csv").write_text(f"file_name,label\n{folder}/sub/a.wav,x\n")
    assert labels(folder) == {"sub/a.wav": "x"} and not caplog.records


def test_unmatched_rows_and_files_are_reported(lay, caplog):
    folder = lay("a.wav", "b.wav", "c.wav", "A.flac", "d.wav")
    (folder / "metadata.csv").write_text(
        "file_name,label\nb.wav,1\nB.wav,2\nA,3\ngone.wav,4\nlost.wav,5\nc.wav,6\nc.wav,7\nd.wav,8\nd.wav,8\n"
    )
    assert labels(folder) == {"A.flac": None, "a.wav": None, "b.wav": "1", "c.wav": "7", "d.wav": "8"}
    rows, files = [record.getMessage() for record in caplog.records]
    assert "of 9 rows" in rows
    assert "no file matches 3 ('B.wav', ...)" in rows and "match 1 ('A')" in rows and "in 1 ('c.wav')" in rows
    assert "of 5 files in train" in files and "2 ('A.flac', ...)" in files


def test_row_for_file_of_another_split_is_not_reported(lay, caplog):
    folder = lay("train/a.wav", "test/b.wav")
    (folder / "metadata.csv").write_text("file_name,label\ntrain/a.wav,x\ntest/b.wav,y\n")
    assert labels(folder) == {"train/a.wav": "x"} and labels(folder, "test") == {"test/b.wav": "y"}
    assert not caplog.records


def test_deeper_metadata_extends_metadata_above(lay):
    folder = lay("train/deep/a.wav", "train/b.wav")
    (folder / "metadata.csv").write_text("file_name,label,tempo\ntrain/deep/a.wav,x,90\n")
    (folder / "train/deep/metadata.jsonl").write_text('{"file_name": "a.wav", "label": null, "text": "t"}\n')
    row = open_dataset(folder)[1]
    assert (row["file_name"], row["label"], row["tempo"], row["text"]) == ("train/deep/a.wav", "x", 90.0, "t")


def test_json_cells_have_the_type_of_their_column(lay):
    folder = lay("a.wav", "b.wav")
    rows = [
        {"file_name": "a.wav", "duration_s": 1, "label": 7, "tags": ["x", "y"], "channels": 1},
        {"file_name": "b.wav", "duration_s": 0.5, "label": "", "tags": None, "channels": "2"},
    ]
    (folder / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    found = open_dataset(folder)
    assert found["duration_s"] == [1.0, 0.5] and found["label"] == ["7", None]
    assert found["tags"] == ['["x", "y"]', None] and found["channels"] == [1, 2]


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"file_name": "a.wav"}\n{"file', "line 2 is not JSON"),
        ("[1]", r"line 1 is \[1\], not an object"),
        ('{"name": "a.wav"}', "line 1 has no key file_name; did you mean name"),
        ('{"file_name": ""}', "line 1 has no file_name"),
        ('{"file_name": "a.wav", "channels": [1]}', r"channels is \[1\], which is not a number"),
        ('{"file_name": "a.wav", "duration_s": "long"}', "could not convert"),
        ('{"file_name": "a.wav", "channels": 9223372036854775808}', "9223372036854775808 .*64 bits"),
    ],
)
def test_invalid_json_lines_raise(lay, text, reason):
    folder = lay("a.wav")
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(PartitaError, match=reason) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value) and "metadata.jsonl" in str(caught.value)


def test_split_column_divides_folder(lay):
    folder = lay("a.wav", "b.wav", "c.wav")
    table = folder / "metadata.csv"
    table.write_text("file_name,split\na.wav,Training\nb.wav,dev\nc.wav,test\n")
    assert dataset_splits(folder) == ["train", "validation", "test"]
    assert [list(labels(folder, split)) for split in dataset_splits(folder)] == [["a.wav"], ["b.wav"], ["c.wav"]]
    table.write_text("file_name,split\na.wav,train\nb.wav,test\n")
    with pytest.raises(PartitaError, match=r"test and train, .*for 1 file \('c.wav'\)"):
        open_dataset(folder)
    table.write_text("file_name,split\na.wav,test\nb.wav,test\nc.wav,test\n")  # the folder of one split
    assert len(open_dataset(folder)) == 3 and dataset_splits(folder) == ["train"]
    table.write_text("file_name,split\na.wav,fold1\nb.wav,fold2\n")
    assert len(open_dataset(folder)) == 3


@pytest.mark.parametrize("name", ["Metadata.CSV", "METADATA.csv", "metadata.Csv"])
def test_metadata_name_ignores_case(lay, caplog, name):
    folder = lay("a.wav")
    (folder / name).write_text("file_name,label\na.wav,x\n")
    assert labels(folder) == {"a.wav": "x"} and not caplog.records


def test_unsupported_metadata_tables_are_reported(lay, caplog):
    folder = lay("train/a.wav")
    (folder / "train/metadata.tsv").write_text("file_name\tlabel\na.wav\tx\n")
    assert labels(folder) == {"train/a.wav": None}
    assert "left out 1 table ('train/metadata.tsv') of metadata" in caplog.text


def test_conflicting_metadata_tables_are_reported(lay, caplog):
    folder = lay("a.wav", "b.wav", "sub/c.wav")
    (folder / "metadata.csv").write_text("file_name,label\na.wav,x\nb.wav,y\nsub/c.wav,z\n")
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.wav", "label": "x"}\n{"file_name": "b.wav", "label": "w"}\n'
    )
    (folder / "sub/metadata.csv").write_text("file_name,label\nc.wav,v\n")
    assert labels(folder) == {"a.wav": "x", "b.wav": "w", "sub/c.wav": "v"}
    (record,) = caplog.records
    assert "metadata.jsonl: overrides cells" in record.message and "for 1 ('b.wav')" in record.message
