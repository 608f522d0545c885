from collections import Counter
from dataclasses import replace

import pytest
import torch
from partita.data import (
    SPEECH_AND_SOUND_TEXTS,
    AudioCrops,
    DataConfig,
    TextTask,
    all_texts,
    build_loader,
    collate,
    draw_text,
    open_dataset,
    write_audio,
)
from partita_core import AudioSpec, ChannelLayout, PartitaError, from_dict, override, to_dict

SPEC = AudioSpec(8000, 2, tuple(ChannelLayout))
SAID = TextTask("Say it.", "{text}", {"kind": "transcript"}, whole=True)
LABEL = TextTask("What is it, at {tempo}?", "a sound of {label}")
CONFIG = DataConfig(augmentation=None, silence_db=None, num_workers=0, batch_size=4, texts=(SAID, LABEL))


@pytest.fixture
def folder(tmp_path):
    """One long file with a transcript and a label, a short one with both, and one without any text."""
    for name, samples in {"long": 6000, "short": 500, "none": 900}.items():
        write_audio(tmp_path / f"{name}.wav", torch.full((1, samples), 0.1), 8000)
    (tmp_path / "metadata.csv").write_text(
        "file_name,text,kind,label,tempo\nlong.wav,zero,transcript,bell,90\nshort.wav,one {x},transcript,drum,60\n"
        "none.wav,,transcript,bell,\n"
    )
    return tmp_path


def crops(folder, **changes) -> AudioCrops:
    return AudioCrops(
        open_dataset(folder), audio_spec=SPEC, crop_samples=1000, config=replace(CONFIG, **changes), seed=0
    )


def drawn(folder, index: int) -> Counter:
    found = crops(folder)
    return Counter((item["prompt"], item["answer"]) for item in (found[epoch, index] for epoch in range(60)))


def test_draws_one_applicable_text(folder):
    long, none, short = (drawn(folder, index) for index in range(3))
    assert long == {("What is it, at 90.0?", "a sound of bell"): 60}  # a transcript describes the entire file only
    assert none == {("", ""): 60}  # the columns are empty
    assert set(short) == {("Say it.", "one {x}"), ("What is it, at 60.0?", "a sound of drum")}
    assert min(short.values()) > 15


def test_texts_are_deterministic_and_do_not_change_audio(folder):
    one, other = crops(folder), crops(folder)
    other[4, 2]
    assert [one[epoch, 2]["answer"] for epoch in range(9)] == [other[epoch, 2]["answer"] for epoch in range(9)]
    plain = crops(folder, texts=())
    assert "answer" not in plain[3, 0]
    assert all(torch.equal(plain[epoch, 0]["audio"], one[epoch, 0]["audio"]) for epoch in range(5))


def test_batches_hold_lists_of_texts(folder):
    loader = build_loader(open_dataset(folder), CONFIG, audio_spec=SPEC, crop_multiple=100, seed=0)
    batch = next(iter(loader))
    assert len(batch["prompt"]) == len(batch["answer"]) == 4 and all(isinstance(text, str) for text in batch["answer"])
    assert [not text for text in batch["answer"]] == (batch["index"] == 1).tolist()
    assert "prompt" not in collate([crops(folder, texts=())[0, 0]])


def test_where_of_text_task_filters_rows():
    row = {"text": "zero", "kind": "caption", "label": 3, "tempo": 1}
    assert SAID.text(row) is None and LABEL.text(row) == ("What is it, at 1?", "a sound of 3")
    assert TextTask("p", "a", {"label": "3"}).text(row) == ("p", "a")
    generator = torch.Generator().manual_seed(0)
    assert draw_text((SAID,), row, whole=True, generator=generator) == ("", "")
    assert list(all_texts((SAID, LABEL), [row, row | {"kind": "transcript"}])) == [
        ("What is it, at 1?", "a sound of 3"),
        ("Say it.", "zero"),
        ("What is it, at 1?", "a sound of 3"),
    ]


@pytest.mark.parametrize("template", ["{", "{}", "{0.x}", "{label!r}", "{label:3}", "a } b", "{a[0]}"])
def test_malformed_template_raises(template):
    with pytest.raises(PartitaError, match="the template"):
        TextTask("p", template)
    with pytest.raises(PartitaError, match="the template"):
        TextTask(template, "a")


def test_unknown_text_column_raises(folder):
    for task in (TextTask("{lable}", "x"), TextTask("p", "{lable}"), TextTask("p", "x", {"lable": "bell"})):
        with pytest.raises(PartitaError, match="needs the column 'lable'; did you mean label"):
            build_loader(
                open_dataset(folder), replace(CONFIG, texts=(task,)), audio_spec=SPEC, crop_multiple=100, seed=0
            )
    with pytest.raises(PartitaError, match="has no answer"):
        TextTask("p", "")
    assert TextTask("{{p}}", "{{}}").text({}) == ("{p}", "{}")


def test_texts_config_round_trip():
    config = DataConfig(texts=SPEECH_AND_SOUND_TEXTS)
    assert from_dict(DataConfig, to_dict(config)) == config
    changed = override(config, ['texts=[{"prompt": "p", "answer": "{label}"}]'])
    assert changed.texts == (TextTask("p", "{label}"),)
    assert override(config, ["texts=[]"]).texts == ()


def test_speech_and_sound_texts():
    digit = {"task": "spoken_digit", "label": "7", "text": "seven", "text_kind": "transcript", "caption": "a digit"}
    bark = {"task": "sound_class", "label": "dog_bark", "text": "a dog", "text_kind": "caption", "caption": "a dog"}
    assert {answer for _, answer in all_texts(SPEECH_AND_SOUND_TEXTS, [digit])} == {
        "seven",
        "a digit",
        "The digit is 7.",
    }
    assert {answer for _, answer in all_texts(SPEECH_AND_SOUND_TEXTS, [bark])} == {"a dog", "The sound is dog_bark."}
