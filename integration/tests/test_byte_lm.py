"""The byte-level language model of a data set's texts."""

import math
from functools import partial

import pytest
import torch
from partita.data import TextTask, write_audio
from partita.generation import byte_lm
from partita.generation.byte_lm import train_byte_lm
from partita_core import PartitaError
from partita_representation import SEPARATOR, FrozenLanguageModel

TASKS = (TextTask("Say.", "{text}", {"text_kind": "transcript"}), TextTask("Name.", "a {label}"))
train_tiny = partial(train_byte_lm, texts=TASKS, width=32, layers=1, batch_size=8, lr=1e-2, progress=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    columns = "file_name,text,text_kind,caption,label,task\n"
    for split, words in {"train": ["yes", "no"], "validation": ["yes"]}.items():
        (folder / split).mkdir()
        rows = [f"{word}.wav,{word},transcript,a word,bell,sound_class\n" for word in words]
        for word in words:
            write_audio(folder / split / f"{word}.wav", torch.ones(1, 80), 8000)
        (folder / split / "metadata.csv").write_text(columns + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm") / "llm"
    return folder, train_tiny(data, folder, steps=150)


def answers(folder, questions):
    model = FrozenLanguageModel(folder)
    ids = [torch.tensor(row) for row in model.tokenize(questions)]
    embeds = [model.embed(row)[None] for row in ids]
    return [model.generate(one, torch.ones(one.shape[:2], dtype=torch.int64), max_new_tokens=12)[0] for one in embeds]


def test_model_learns_the_texts_and_is_loaded_by_transformers(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, found = trained
    assert found.texts == 3 and found.train < 0.6 and found.validation < 1.2  # uniform bytes: 8
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (type(model).__name__, type(tokenizer).__name__) == ("LlamaForCausalLM", "ByT5Tokenizer")
    assert sum(parameter.numel() for parameter in model.parameters()) == found.parameters
    assert answers(folder, ["Name." + SEPARATOR])[0] == "a bell"
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}


def test_model_uses_the_position_of_audio(trained):
    folder, _ = trained
    assert answers(folder, [f"Say.{word}{SEPARATOR}" for word in ("yes", "no")]) == ["yes", "no"]


def test_bits_per_byte_of_answers_and_ends(trained, data):
    folder, found = trained
    model = FrozenLanguageModel(folder)
    nats, count = 0.0, 0
    for question, answer in [("Say.", "yes"), ("Name.", "a bell")]:
        before, after = model.tokenize([question + SEPARATOR, answer])
        ids = torch.tensor([*before, *after, model.eos_id])[None]
        with torch.no_grad():
            logits = model(model.embed(ids), torch.ones_like(ids))[0].double().log_softmax(-1)
        for place in range(len(before), ids.shape[1]):
            nats -= float(logits[place - 1, ids[0, place]])
            count += 1
    assert found.validation == pytest.approx(nats / count / math.log(2), rel=1e-4)


def test_equal_seeds_give_equal_models(data, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        train_tiny(data, tmp_path / str(number), steps=3, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        found.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert found[0] == found[1] != found[2]


def test_errors_leave_no_output(data, tmp_path):
    with pytest.raises(PartitaError, match="needs the column 'words'"):
        train_byte_lm(data, tmp_path / "llm", texts=(TextTask("p", "{words}"),))
    with pytest.raises(PartitaError, match="train"):
        train_byte_lm(data, tmp_path / "llm", texts=(TextTask("p", "{text}", {"label": "drum"}),))
    assert not (tmp_path / "llm").exists()
    with pytest.raises(PartitaError, match="not empty"):
        train_byte_lm(data, data)


def test_llm_on_the_command_line(data, ok, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(byte_lm, "train_byte_lm", partial(train_byte_lm, width=32, layers=1))
    printed, _ = ok("llm", "--data", data, "-o", tmp_path / "llm", "--steps", 2)
    assert "4 different texts" in printed and "bits per byte" in printed and "validation" in printed
    assert "--steps: '0'" in refused("llm", "--data", data, "-o", tmp_path / "other", "--steps", 0)


def test_unwritable_output_is_an_error_before_training(tones, refused, monkeypatch, tmp_path):
    def trained(*_, **__):
        raise AssertionError("it was trained")

    monkeypatch.setattr("partita.generation.byte_lm.train_byte_lm", trained)
    (tmp_path / "file").touch()
    assert f"cannot write {tmp_path / 'file' / 'llm'}" in refused(
        "llm", "--data", tones, "-o", tmp_path / "file" / "llm"
    )
