import csv
import json
import os

import numpy as np
import pytest
from partita.data import audio_info, open_dataset, read_audio, synthesize
from partita.data.synth.composition import SCALES, compose
from partita.data.synth.drums import DRUMS
from partita.data.synth.instruments import INSTRUMENTS, SAMPLE_RATE
from partita.data.synth.styles import STYLES
from partita.data.synth.synthesize import synthesize_clip
from partita_core import PartitaError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "music"
    steps = []
    assert synthesize(folder, minutes=1.0, seed=5, progress=lambda *step: steps.append(step))
    assert steps == [(done, 6) for done in range(1, 7)]
    return folder


@pytest.mark.parametrize("name", INSTRUMENTS)
@pytest.mark.parametrize("frequency", [82.4, 440.0])
def test_instruments_are_in_tune_and_end_quietly(name, frequency):
    tone = INSTRUMENTS[name](frequency, 0.5, np.random.default_rng(0))
    assert tone.dtype == np.float32 and 0.3 < np.abs(tone).max() < 1.6 and abs(tone[-1]) < 1e-3
    # energy at the harmonics of the pitch, compared with that between them
    size = 1 << 18
    power = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), size)) ** 2
    bins = frequency * size / SAMPLE_RATE * np.arange(0.5, 6.01, 0.5)
    near = [power[round(b * 0.995) : round(b * 1.005) + 1].max() for b in bins]
    if name not in ("bells", "organ", "overdriven guitar"):  # inharmonic, with a sub-octave, with a fifth
        assert max(near[1::2]) > 20 * max(near[0::2])
    if name != "bells":
        strongest = np.arange(1, 12, 2)[np.argmax(near[1::2])]
        peak = power[round(bins[strongest] * 0.97) : round(bins[strongest] * 1.03)].argmax()
        assert abs(1200 * np.log2((round(bins[strongest] * 0.97) + peak) / bins[strongest])) < 30


@pytest.mark.parametrize("name", DRUMS)
def test_drums_are_audible_and_end_quietly(name):
    stroke = DRUMS[name](np.random.default_rng(0))
    assert stroke.dtype == np.float32 and 0.5 < np.abs(stroke).max() < 3 and abs(stroke[-1]) < 1e-3


@pytest.mark.parametrize("style", STYLES)
def test_pieces_follow_key_and_style(style):
    piece = compose(style, 10.0, np.random.default_rng(1))
    tonic, mode = piece.key.rsplit(" ", 1)
    pitches = {note.midi % 12 for note in piece.notes if note.midi}
    scales = [{(root + step) % 12 for step in SCALES[mode]} for root in range(12)]
    assert any(pitches <= scale for scale in scales)
    low, high = STYLES[style].tempos
    assert low <= piece.tempo <= high
    assert {note.instrument for note in piece.notes} <= {*INSTRUMENTS, *DRUMS}
    assert all(0 <= note.start < 10 and 0 <= note.pan <= 1 for note in piece.notes)


@pytest.mark.parametrize("number", range(len(STYLES)))
def test_clip_level_width_and_spectrum(number):
    piece, audio = synthesize_clip(0, number)
    assert audio.shape == (2, 441000) and audio.dtype == np.float32
    assert np.abs(audio).max() < 0.9
    assert -23 < 10 * np.log10(np.mean(audio**2)) < -13
    assert not np.array_equal(audio[0], audio[1])
    power = np.abs(np.fft.rfft(audio[0])) ** 2
    high = power[int(5000 * 10) :].sum() / power.sum()
    assert 1e-7 < high < 0.5
    # no second of it is silent
    assert (audio[:, :396900].reshape(2, 9, 44100) ** 2).mean((0, 2)).min() > 1e-5


def test_synthesized_folder_opens_as_data_set(made):
    assert sorted(os.listdir(made)) == ["metadata.csv", "synth.json", "test", "train", "validation"]
    sizes = {split: len(open_dataset(made, split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 4, "validation": 1, "test": 1}
    row = open_dataset(made, "train")[0]
    assert row["label"] == "ballad" and row["caption"].startswith("slow ballad music in ")
    assert row["tempo"] == int(row["tempo"]) and row["duration_s"] == 10.0 and row["licence"] == "CC0-1.0"
    info = audio_info(row["audio"])
    assert (info.sample_rate, info.channels, info.frames, info.format) == (44100, 2, 441000, "FLAC/PCM_16")


def test_split_metadata_equals_top_level_metadata(made):
    with (made / "metadata.csv").open() as file:
        everything = list(csv.DictReader(file))
    for split in ("train", "validation", "test"):
        with (made / split / "metadata.csv").open() as file:
            rows = [row | {"file_name": f"{split}/{row['file_name']}"} for row in csv.DictReader(file)]
        assert rows == [row for row in everything if row["split"] == split]
        assert all((made / row["file_name"]).is_file() for row in rows)


def test_clip_depends_on_seed_and_number_only(made):
    names = [name for split in ("train", "validation", "test") for name in open_dataset(made, split)["file_name"]]
    assert len(names) == 6
    _, audio = synthesize_clip(5, 1)
    stored, _ = read_audio(made / next(name for name in names if name.endswith("_0001.flac")))
    assert np.abs(stored.numpy() - audio).max() <= 2**-15
    assert not np.allclose(audio, synthesize_clip(6, 1)[1])


def test_existing_data_set_is_kept_and_other_settings_raise(made):
    before = (made / "synth.json").stat().st_mtime_ns
    assert synthesize(made, minutes=1.0, seed=5) is False
    assert (made / "synth.json").stat().st_mtime_ns == before
    with pytest.raises(PartitaError, match="holds 6 clips of seed 5, not 6 clips of seed 6"):
        synthesize(made, minutes=1.0, seed=6)


def test_occupied_folder_raises(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(PartitaError, match="is not empty"):
        synthesize(tmp_path / "full", minutes=0.1)
    with pytest.raises(PartitaError, match="is a file"):
        synthesize(tmp_path / "full/mine.txt", minutes=0.1)
    with pytest.raises(PartitaError, match="minutes is 0; it must be positive"):
        synthesize(tmp_path / "new", minutes=0)
    assert sorted(os.listdir(tmp_path)) == ["full"]


def test_interrupted_synthesis_leaves_no_folder(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "music", minutes=0.5, progress=stop)
    assert os.listdir(tmp_path) == []


def test_empty_folder_is_used(tmp_path):
    (tmp_path / "music").mkdir()
    assert synthesize(tmp_path / "music", minutes=0.1)
    mark = json.loads((tmp_path / "music/synth.json").read_text())
    assert mark["clips"] == 3 and mark["seed"] == 0
