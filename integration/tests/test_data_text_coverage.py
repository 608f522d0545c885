import logging
import shutil
from dataclasses import replace

import pytest
import torch
from partita.data import TextTask, open_dataset, write_audio
from partita.data.text_coverage import check_coverage, tasks_per_row
from partita.data.texts import condition
from partita.training import train
from partita.training.logs import read_log
from partita_core import AudioSpec, ChannelLayout, PartitaError

SPEC = AudioSpec(8000, 1, (ChannelLayout.MONO,))
LABEL, SAID = TextTask("", "{label}"), TextTask("", "{text}", whole=True)


@pytest.fixture
def dataset(tmp_path):
    """Three files of 100, 200 and 300 samples; the first has no label, and the last no text."""
    for name, samples in {"a": 100, "b": 200, "c": 300}.items():
        write_audio(tmp_path / f"{name}.wav", torch.full((1, samples), 0.1), 8000)
    (tmp_path / "metadata.csv").write_text("file_name,label,text,nothing\na.wav,,x,\nb.wav,y,x,\nc.wav,y,,\n")
    return open_dataset(tmp_path)


def notes(caplog, dataset, *texts: TextTask, samples: int) -> list[str]:
    caplog.clear()
    check_coverage(dataset, texts, audio_spec=SPEC, samples=samples, data="DATA")
    return [record.getMessage() for record in caplog.records]


def test_tasks_per_row(dataset):
    assert tasks_per_row(dataset, [LABEL, SAID]) == [[SAID], [LABEL, SAID], [LABEL]]
    assert tasks_per_row(dataset, [TextTask("", "always")]) == [[TextTask("", "always")]] * 3


def test_files_without_text_are_reported(dataset, caplog):
    with caplog.at_level(logging.WARNING):
        assert notes(caplog, dataset, LABEL, SAID, samples=300) == []
        assert notes(caplog, dataset, samples=10) == []
        (line,) = notes(caplog, dataset, LABEL, samples=100)
    assert "of 3 files" in line and "1 ('a.wav')" in line and "'{label}'" in line


def test_whole_file_texts_do_not_apply_to_longer_files(dataset, caplog):
    missing, longer = notes(caplog, dataset, SAID, samples=100)
    assert "1 ('c.wav')" in missing
    assert longer.startswith("DATA: 50% of the files") and "0.0125 s" in longer and "'b.wav'" in longer
    assert len(notes(caplog, dataset, SAID, LABEL, samples=50)) == 1  # only the first has no other text
    assert notes(caplog, dataset, SAID, samples=200) == []  # the line on the third file is logged only once


def test_data_without_any_applicable_text_raises(dataset):
    with pytest.raises(PartitaError, match="none of 3 files .*'{nothing}'"):
        check_coverage(dataset, [TextTask("", "{nothing}")], audio_spec=SPEC, samples=100, data="DATA")
    with pytest.raises(PartitaError, match="all of 2 files are longer than a crop of 0.00625 s"):
        check_coverage(dataset.select([0, 1]), [SAID], audio_spec=SPEC, samples=50, data="DATA")
    with pytest.raises(PartitaError, match="needs the column 'lable'"):
        check_coverage(dataset, [TextTask("", "{lable}")], audio_spec=SPEC, samples=100, data="DATA")


@pytest.mark.parametrize(
    "template, whole", [("{text}", True), ("says {transcript}", True), ("{label}", False), ("{caption}", False)]
)
def test_condition_on_transcript_is_whole(template, whole):
    assert condition(template) == TextTask("", template, whole=whole)


def test_unreadable_header_counts_as_zero_length(dataset, caplog, tmp_path):
    (tmp_path / "b.wav").write_bytes(b"no audio")
    found = notes(caplog, dataset, replace(SAID, answer="{text}!"), samples=150)
    assert len(found) == 1 and "no text" in found[0]


@pytest.mark.slow
def test_validation_split_synonym_is_used_for_evaluation(config, tones, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(tones / "test", data / "Train")
    train(config(steps=1), data=data, output=tmp_path / "one", progress=False)
    assert f"{data}: has no split validation" in caplog.text
    assert any("train/log_mel_l1" in line for line in read_log(tmp_path / "one/log.jsonl"))
    caplog.clear()
    shutil.copytree(tones / "validation", data / "dev")
    train(config(steps=1), data=data, output=tmp_path / "two", progress=False)
    assert any("validation/log_mel_l1" in line for line in read_log(tmp_path / "two/log.jsonl")) and not caplog.records
    (data / "dev/metadata.csv").write_text("file_name,duration_s\ntone_0.wav,long\n")
    with pytest.raises(PartitaError, match="dev/metadata.csv: cannot be read"):
        train(config(steps=1), data=data, output=tmp_path / "three", progress=False)


def test_generator_training_without_applicable_transcripts_raises(run, tones, tmp_path, refused):
    shutil.copytree(tones / "validation", tmp_path / "data")
    (tmp_path / "data/metadata.csv").write_text("file_name,text\ntone_0.wav,a\ntone_1.wav,b\n")
    arguments = ["generate", run / "model", "--data", tmp_path / "data", "--output", tmp_path / "out"]
    arguments += ["--recipe", "generation_tiny", "data.crop_seconds=0.2", "--text", "{text}"]
    assert "all of 2 files are longer than a crop of 0.2" in refused(*arguments)
    assert not (tmp_path / "out").exists()
