import json
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from partita.data import Clip
from partita.data.clip_latents import masked_mean, stack_tokens
from partita.probing import (
    LOG_MEL,
    Examples,
    LabelTask,
    ProbeSettings,
    character_edits,
    find_tasks,
    fit_probe,
    log_mel,
    open_tasks,
    pooled_features,
    probe,
    probe_answers,
    probe_features,
)
from partita.probing.transcripts import plain_text
from partita_core import AudioSpec, ChannelLayout, Codec, Latents, LatentSpec, PartitaError

RATE, HOP = 8000, 80
# So few items and so narrow a source take larger steps than the default's.
FAST = ProbeSettings(lr=3e-2)
WORDS = {"low": "a low tone", "high": "high"}


class Bands(Codec):
    """A mono codec whose latents are band energies of a frame's spectrum."""

    def __init__(self, dim=4, scale=1.0):
        super().__init__()
        self.audio_spec = AudioSpec(RATE, 1, (ChannelLayout.MONO,))
        self.latent_spec = LatentSpec(dim, RATE, HOP)
        self.encode_context = self.decode_context = (0, 0)
        self.scale = torch.nn.Parameter(torch.full((1,), scale))

    def encode_frames(self, audio, layout, num_quantizers):
        spectrum = torch.fft.rfft(audio[:, 0].unflatten(-1, (-1, HOP))).abs()[..., 1:]
        return self.scale * spectrum.unflatten(-1, (self.latent_spec.dim, -1)).mean(-1).transpose(1, 2), None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return torch.zeros(len(values), 1, HOP * values.shape[-1])


class Listener(torch.nn.Module):
    """A stand-in for a representation model: features of latents, and answers to prompts."""

    def __init__(self, codec):
        super().__init__()
        self.codec = codec

    def represent(self, latents):
        values = latents.values.transpose(1, 2)
        return SimpleNamespace(values=values.cumsum(1), frames=latents.frames, frame_rate=Fraction(100))

    def surprise(self, features, prompt, texts):
        mean = features.values[0, int(features.frames[0]) - 1]
        word = WORDS["low" if mean[0] > mean[2] else "high"]
        return torch.tensor([0.25 if text == word else 2.25 for text in texts])

    def answer(self, latents, prompt, *, max_new_tokens):
        mean = latents.values[0].mean(-1)
        text = WORDS["low" if mean[0] > mean[2] else "high"]
        return [f"{prompt} {text.upper()}!"[:max_new_tokens]] if prompt == "noise" else [text.upper() + "!"]


def clip(audio, rate=RATE, index=0):
    layout = ChannelLayout.MONO if audio.shape[0] == 1 else ChannelLayout.STEREO
    return Clip(index, f"{index}.wav", audio, rate, layout, {})


def blobs(items, classes=3, width=5, seed=0):
    """Features of well-separated classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(items) % classes
    centers = 6 * torch.eye(classes, width)
    return Examples(centers[labels] + 0.3 * torch.randn(items, width, generator=generator), labels)


def as_task(examples, name="task"):
    """A task and the features of one source, for `probe_features`."""
    classes = int(max(each.labels.max() for each in examples.values())) + 1
    items = {split: tuple(enumerate(each.labels.tolist())) for split, each in examples.items()}
    features = {split: {"a": dict(enumerate(each.features))} for split, each in examples.items()}
    return LabelTask(name, tuple("abcdefgh"[:classes]), items, 0), features


# ------------------------------------------------------------------ the probe


def test_pooling_ignores_padding_frames():
    values = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    values[0, 2:] = float("nan")
    found = masked_mean(values, torch.tensor([2, 4]))
    torch.testing.assert_close(found[0], torch.tensor([1.5, 2.5, 3.5]))
    torch.testing.assert_close(found[1], values[1].mean(0))


def test_probe_separates_linearly_separable_classes():
    task, features = as_task({"train": blobs(60), "validation": blobs(12, seed=1), "test": blobs(30, seed=2)})
    found = probe_features(features, task, FAST)
    assert found.accuracy["a"].mean == found.accuracy["a"].low == 1
    assert found.items == {"train": 60, "validation": 12, "test": 30}
    assert found.chance == found.majority == pytest.approx(1 / 3)
    assert found.by_seed["a"] == (1, 1, 1) and len(found.scores["a"]) == 30


def test_probe_of_random_labels_is_at_chance():
    generator = torch.Generator().manual_seed(3)
    examples = {
        split: Examples(torch.randn(count, 5, generator=generator), torch.arange(count) % 4)
        for split, count in (("train", 100), ("test", 400))
    }
    task, features = as_task(examples)
    found = probe_features(features, task, FAST).accuracy["a"]
    assert found.low < 0.25 < found.high and abs(found.mean - 0.25) < 0.05


def test_differences_between_equal_and_better_sources():
    task, features = as_task({"train": blobs(60), "test": blobs(30, seed=2)})
    for split in features.values():
        split["again"] = split["a"]
        split["nothing"] = {row: torch.zeros(5) for row in split["a"]}
    found = probe_features(features, task, FAST)
    pairs = {(each.system, each.baseline): each for each in found.differences}
    assert list(pairs) == [("again", "a"), ("nothing", "a"), ("nothing", "again")]
    same = pairs["again", "a"].difference
    assert same.mean == same.low == same.high == 0
    assert pairs["nothing", "a"].clear and pairs["nothing", "a"].difference.mean < -0.5
    assert found.best == "a"


def test_best_epoch_is_selected_by_validation():
    train = blobs(60)
    wrong = train._replace(labels=(train.labels + 1) % 3)  # the better it knows these items, the worse
    settings = {"lr": 1e-2, "batch_size": 4, "seeds": 1}
    kept = fit_probe(train, wrong, classes=3, settings=ProbeSettings(epochs=5, **settings), seed=0)
    first = fit_probe(train, None, classes=3, settings=ProbeSettings(epochs=1, **settings), seed=0)
    last = fit_probe(train, None, classes=3, settings=ProbeSettings(epochs=5, **settings), seed=0)
    assert torch.equal(kept.linear.weight, first.linear.weight)
    assert not torch.equal(kept.linear.weight, last.linear.weight)


def test_invalid_probe_settings():
    with pytest.raises(PartitaError, match="epochs is 0"):
        ProbeSettings(epochs=0)


# ------------------------------------------------------------------ tasks


def rows(**splits):
    return {split: [dict(zip(("task", "label"), row)) for row in table] for split, table in splits.items()}


def test_find_tasks_by_the_task_column():
    table = rows(
        train=[("b", "y"), ("b", "x"), ("a", "1"), ("a", "1"), ("b", None), (None, "z")],
        test=[("b", "x"), ("b", "q"), ("a", "1"), ("b", "")],
    )
    (task,) = find_tasks(table, column="label")
    assert task.name == "b" and task.classes == ("x", "y")
    assert task.items == {"train": ((0, 1), (1, 0)), "test": ((0, 0),)}
    assert task.unknown == 1


def test_find_tasks_of_one_name():
    table = rows(train=[("a", "x"), ("b", "y"), ("b", "x")], test=[("b", "x"), ("a", "y")])
    (task,) = find_tasks(table, column="label", name="all")
    assert task.name == "all"
    assert task.items == {"train": ((0, 0), (1, 1), (2, 0)), "test": ((0, 0), (1, 1))}
    with pytest.raises(PartitaError, match="1 training classes and 0 test items"):
        find_tasks(rows(train=[("a", "x")], test=[("a", "y")]), column="label", name="all")
    with pytest.raises(PartitaError, match="no task has 2"):
        find_tasks(rows(train=[("a", "x")], test=[("a", "x")]), column="label")


@pytest.mark.parametrize("value", [1.0, "0.25", "1e-3"])
def test_real_numbers_are_not_classes(value):
    table = rows(train=[("a", value), ("a", "1")], test=[("a", "1")])
    with pytest.raises(PartitaError, match="real numbers"):
        find_tasks(table, column="label")


def test_integers_are_classes():
    table = rows(train=[("a", "1"), ("a", "0")], test=[("a", "0")])
    assert find_tasks(table, column="label")[0].classes == ("0", "1")


# ------------------------------------------------------------------ sources


def test_log_mel_peaks_at_the_tone():
    t = torch.arange(RATE) / RATE
    found = log_mel(torch.sin(2 * math.pi * 1000 * t)[None], RATE)
    assert found.shape == (101, 64)
    loud = found.mean(0)
    assert 15 < loud.argmax() < 25  # 1 kHz is mel 15 of 57
    assert loud.max() > -1 and loud[50:].max() < -3
    pair = torch.stack([t, -t])
    torch.testing.assert_close(log_mel(pair, RATE), torch.full((101, 64), -5.0))


def test_tokens_of_a_frame_are_stacked():
    values = torch.arange(12, dtype=torch.float32).reshape(1, 2, 6)  # two channels, three tokens a frame
    spec = LatentSpec(2, RATE, HOP, tokens_per_frame=3)
    latents = Latents(values, None, torch.tensor([2 * HOP]), torch.tensor([0]), spec)
    assert stack_tokens(latents)[0].tolist() == [[0, 6, 1, 7, 2, 8], [3, 9, 4, 10, 5, 11]]


def test_sources_of_codecs_and_representation_models():
    codec, other = Bands().eval(), Bands(dim=2, scale=2.0).eval()
    models = {"one": Listener(codec), "two": Listener(codec), "other": other}
    generator = torch.Generator().manual_seed(0)
    clips = [clip(torch.randn(2, 2 * RATE, generator=generator), 2 * RATE, index) for index in (4, 7)]
    found = pooled_features(models, clips, seconds=0.5)
    assert list(found) == [LOG_MEL, "one z", "one u", "two u", "other z"]
    assert {source: set(rows) for source, rows in found.items()} == dict.fromkeys(found, {4, 7})
    assert found["one z"][4].shape == (4,) and found["other z"][4].shape == (2,)
    half = pooled_features({"one": codec}, [clip(clips[0].audio[:, :RATE], 2 * RATE, 4)], seconds=10.0)
    torch.testing.assert_close(half["one z"][4], found["one z"][4])
    torch.testing.assert_close(half[LOG_MEL][4], found[LOG_MEL][4])


def test_latents_are_normalized_if_statistics_are_known():
    codec = Bands(dim=2).eval()
    audio = clip(torch.randn(1, RATE, generator=torch.Generator().manual_seed(0)))
    plain = pooled_features({"m": codec}, [audio], seconds=1.0)["m z"][0]
    codec.latent_spec = LatentSpec(2, RATE, HOP, mean=(1.0, 2.0), std=(0.5, 4.0))
    scaled = pooled_features({"m": codec}, [audio], seconds=1.0)["m z"][0]
    torch.testing.assert_close(scaled, (plain - torch.tensor([1.0, 2.0])) / torch.tensor([0.5, 4.0]))


# ------------------------------------------------------------------ data sets


@pytest.fixture(scope="module")
def pitches(tmp_path_factory):
    """Low and high tones, some with noise, each with a text and a length."""
    folder = tmp_path_factory.mktemp("pitches")
    generator = np.random.default_rng(0)
    lines = ["file_name,label,task,text,score,tempo"]
    for split, count in (("train", 16), ("validation", 4), ("test", 8)):
        (folder / split).mkdir()
        for i in range(count):
            label = ("low", "high")[i % 2]
            t = np.arange(int(RATE * (0.2 + 0.02 * i))) / RATE
            audio = 0.3 * np.sin(2 * np.pi * (400 if label == "low" else 2500) * t)
            audio += 0.01 * generator.standard_normal(len(t))
            soundfile.write(folder / split / f"{i}.wav", audio, RATE, subtype="FLOAT")
            text = WORDS[label] if i < 7 else ""
            lines.append(f"{split}/{i}.wav,{label},pitch,{text},0.{i + 1},{60 if i < 3 else 120}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_probe_of_a_data_set(pitches):
    found = probe({"bands": Bands()}, str(pitches), settings=FAST)
    (task,) = found.tasks
    assert task.name == "pitch" and task.classes == ("high", "low") and task.items["test"] == 8
    assert task.accuracy["bands z"].mean == task.accuracy[LOG_MEL].mean == 1
    text = found.to_markdown()
    assert "| bands z | 100.0 [100.0, 100.0] |" in text and "| chance | 50.0 |" in text
    assert "| bands z − log-mel | 0.0 [0.0, 0.0] |" in text


def test_conditions_select_one_task(pitches):
    splits, (task,) = open_tasks(str(pitches), column="label", where="task=pitch, tempo=60.0")
    assert task.name == "pitch, 60.0" and task.items == dict.fromkeys(splits, ((0, 1), (1, 0), (2, 1)))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "test": 3, "validation": 3}
    splits, (task,) = open_tasks(str(pitches), column="label", where="tempo=120")
    assert {name: len(items) for name, items in task.items.items()} == {"train": 13, "test": 5, "validation": 1}


def test_broken_files_are_left_out_and_named(pitches, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for file in (pitches / split).iterdir():
            (tmp_path / split / file.name).write_bytes(file.read_bytes())
    (tmp_path / "test" / "0.wav").write_text("no audio")
    (tmp_path / "metadata.csv").write_text((pitches / "metadata.csv").read_text())
    broken = []
    found = probe({"bands": Bands()}, str(tmp_path), settings=ProbeSettings(epochs=1), broken=broken)
    assert found.tasks[0].items == {"train": 16, "test": 7}  # and without validation
    assert len(broken) == 1 and "0.wav" in broken[0]


# ------------------------------------------------------------------ transcripts


@pytest.mark.parametrize(
    ("answer", "reference", "edits"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_character_edits(answer, reference, edits):
    assert character_edits(answer, reference) == character_edits(reference, answer) == edits


def test_plain_text_ignores_case_punctuation_and_spaces():
    assert plain_text("  It's\tTWO—o'clock, ÄHM. ") == "it's two o'clock ähm"


def test_shuffling_raises_the_error_of_audio_dependent_answers(pitches):
    broken = []
    models = {"listens": Listener(Bands())}
    found = probe_answers(models, str(pitches), prompt="what?", broken=broken, shuffles=200)
    assert found.items == 7 and broken == []
    assert found.references[:2] == ("a low tone", "high")
    assert found.error_rate["listens"].mean == found.error_rate["listens"].high == 0
    # Of 7 items, 4 low (10 characters) and 3 high (4): the other word is 9 edits away.
    edits = character_edits("high", "a low tone")
    assert found.shuffled["listens"].mean == pytest.approx(7 * edits * (4 / 7) / 52, rel=0.1)
    assert found.gain["listens"].high < 0
    assert found.surprise["listens"].mean == 0.25
    # Of 6 others, each of 4 low items meets 3 high ones, and each of 3 high ones 4 low: 2 nats more with them.
    assert found.surprise_shuffled["listens"].mean == pytest.approx(0.25 + 2 * (4 * 3 + 3 * 4) / 42, rel=0.1)
    assert found.surprise_gain["listens"].high < 0
    assert "| listens | 0.250 [0.250, 0.250] |" in found.to_markdown()
    assert "| listens | 0.0 [0.0, 0.0] |" in found.to_markdown()


def test_error_rate_is_over_all_characters_without_long_files(pitches):
    broken = []
    found = probe_answers({"m": Listener(Bands())}, str(pitches), prompt="noise", seconds=0.29, broken=broken)
    assert found.items == 5 and len(broken) == 2 and "longer than 0.29 s" in broken[0]
    # "noise " before each answer, of which the longest is cut at 18.
    assert found.answers["m"][:2] == ("noise a low tone", "noise high")
    assert found.error_rate["m"].mean == pytest.approx(5 * 6 / (3 * 10 + 2 * 4))


# ------------------------------------------------------------------ the command


def test_probe_command_is_reproducible(ok, run, pitches, tmp_path):
    settings = ("--data", pitches, "--epochs", 2, "--seeds", 2)
    out, _ = ok("probe", run / "model", *settings, "--json", tmp_path / "a.json")
    assert "pitch, 2 classes, 8 items" in out and "run/model z" in out and "log-mel" in out
    ok("probe", run / "model", *settings, "--json", tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["column"] == "label" and found["settings"]["seeds"] == 2
    assert len(found["tasks"][0]["scores"]["log-mel"]) == 8


@pytest.mark.slow
def test_probe_command_includes_latents_and_features(ok, run, pitches, tmp_path):
    from partita_core import Autoencoder
    from partita_representation import RepresentationModelConfig

    codec = Autoencoder.from_pretrained(run / "model")
    (tmp_path / "ours").mkdir()
    RepresentationModelConfig.example().build(codec=codec).save_pretrained(tmp_path / "ours" / "model")
    out, _ = ok("probe", run / "model", tmp_path / "ours" / "model", "--data", pitches, "--epochs", 1, "--seeds", 1)
    sources = [line.split(" | ")[0].strip("| ") for line in out.splitlines() if line.startswith("|")]
    assert sources[2:7] == ["log-mel", "run/model z", "ours/model u", "most frequent class", "chance"]
    assert "ours/model u − run/model z" in sources


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--column", "lable"], "no column 'lable'.*label"),
        (["--column", "score"], "column 'score' holds real numbers"),
        (["--where", "label"], "'label'"),
        (["--where", "label=low,label=high"], "twice"),
        (["--where", "label=low"], "1 training classes"),
        (["--where", "color=low"], "no column 'color'.*score"),
        (["--seconds", "0"], "seconds is 0"),
        (["--epochs", "0"], "epochs is 0"),
        (["--json", "."], "is a folder; choose a file in it"),
        (["--answers", "what?"], "has no language model"),
    ],
)
def test_probe_command_errors_are_one_line(refused, run, pitches, arguments, line):
    import re

    assert re.search(line, refused("probe", run / "model", "--data", pitches, *arguments))


def test_probe_needs_a_test_split(refused, run, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), RATE)
    assert "test" in refused("probe", run / "model", "--data", tmp_path)


def test_rows_left_out_are_counted(caplog):
    def row(task, label):
        return {"task": task, "label": label}

    table = {
        "train": [row("a", "x"), row("a", "y"), row("a", None), row(None, "x"), row("b", "x")],
        "validation": [row("a", "z"), row("a", "x")],
        "test": [row("a", "x"), row("c", "x")],
    }
    (task,) = find_tasks(table, column="label")
    assert (task.name, task.classes, task.unknown) == ("a", ("x", "y"), 0)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("1 of 9 rows have no task") for line in lines)
    assert any("a: 1 of 6 rows have no label" in line for line in lines)
    assert any("a: 1 validation items" in line for line in lines)
    assert [("'b'" in line, "'c'" in line) for line in lines if "is skipped" in line] == [
        (True, False),
        (False, True),
    ]
