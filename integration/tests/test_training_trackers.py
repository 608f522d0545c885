"""Samples and spectrograms of a run, as files and in TensorBoard."""

import importlib.util
import shutil

import numpy as np
import pytest
import soundfile
import torch
from partita.training import train
from partita.training.logs import read_log
from partita.training.samples import Samples
from partita_core import PartitaError, override
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RATE = 8000


@pytest.fixture(scope="module")
def tracked(config, tones, tmp_path_factory):
    """Folder and config of a run of two steps with TensorBoard."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    run = override(config(steps=2), ['trainer.trackers=["tensorboard"]', "trainer.evaluate_every=1"])
    train(run, data=tones, output=folder, progress=False)
    return folder, run


def events(folder):
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"audio": 0, "images": 0, "scalars": 0})
    return found.Reload()


def test_every_evaluation_writes_audio_and_spectrograms(run):
    folders = sorted(path.name for path in (run / "samples").iterdir())
    assert folders == ["original", "step_00000000", "step_00000003", "step_00000006"]
    for folder in folders:
        assert {path.name for path in (run / "samples" / folder).iterdir()} == {
            *("tone_0.wav", "tone_0.png", "tone_1.wav", "tone_1.png")
        }
    assert not (run / "tensorboard").exists()


def test_clips_of_the_same_name_have_different_files(tmp_path):
    samples = Samples(tmp_path, [])
    for step in (0, 1):
        for i, name in enumerate(("piano/1.wav", "drums/1.wav", "drums/1.flac", "2.wav")):
            audio = torch.full((1, 800), 0.1 * (i + 1))
            samples.write(step, name, audio / 2, audio, RATE)
    for folder, scale in (("original", 1), ("step_00000000", 0.5), ("step_00000001", 0.5)):
        levels = {path.stem: soundfile.read(path)[0].max() for path in (tmp_path / folder).glob("*.wav")}
        expected = {"1": 0.1, "drums_1": 0.2, "drums_1_2": 0.3, "2": 0.4}
        assert levels == pytest.approx({name: scale * level for name, level in expected.items()}, abs=1e-3)


def test_originals_are_pieces_of_the_files_with_full_scale_spectrograms(run, tones):
    written, _ = soundfile.read(run / "samples" / "original" / "tone_0.wav")
    true, _ = soundfile.read(tones / "validation" / "tone_0.wav")
    assert 0 < len(written) <= len(true)  # a piece from anywhere in it
    pieces = np.lib.stride_tricks.sliding_window_view(true, len(written), axis=0).transpose(0, 2, 1)
    assert np.abs(pieces - written).max((1, 2)).min() < 2**-15
    picture = np.asarray(Image.open(run / "samples" / "original" / "tone_0.png"))
    assert picture.shape == (180, 720) and picture.max() == 255


def test_tensorboard_has_the_values_of_the_log(tracked):
    folder, _ = tracked
    found = events(folder)
    for name in ("total", "validation/si_sdr", "lr/generator"):
        logged = {line["step"]: line[name] for line in read_log(folder / "log.jsonl") if name in line}
        tracked_values = {event.step: event.value for event in found.Scalars(name)}
        assert tracked_values == pytest.approx(logged, rel=1e-5) and len(logged) >= 2


def test_tensorboard_has_audio_and_images_of_every_evaluation(tracked):
    folder, _ = tracked
    found = events(folder)
    assert sorted(found.Tags()["audio"]) == ["original/tone_0", "original/tone_1", "sample/tone_0", "sample/tone_1"]
    assert sorted(found.Tags()["images"]) == sorted(found.Tags()["audio"])
    assert [event.step for event in found.Audio("sample/tone_0")] == [0, 1, 2]
    assert [event.step for event in found.Audio("original/tone_0")] == [0]
    audio, image = found.Audio("sample/tone_0")[-1], found.Images("sample/tone_0")[-1]
    assert audio.sample_rate == RATE and audio.length_frames == 4000
    assert (image.height, image.width) == (180, 720)


@pytest.mark.slow
def test_trackers_may_change_on_resume(tracked, config, tones, tmp_path):
    folder, run = tracked
    shutil.copytree(folder, tmp_path / "run")
    longer = override(run, ["trainer.steps=3", "trainer.trackers=[]"])
    train(longer, data=tones, output=tmp_path / "run", resume=True, progress=False)
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["step"] == 3
    assert [event.step for event in events(tmp_path / "run").Scalars("total")] == [1, 2]


def test_tracker_that_is_not_installed(config, tones, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "partita.training.samples.find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
    )
    run = override(config(steps=1), ['trainer.trackers=["tensorboard"]'])
    with pytest.raises(PartitaError, match=r'pip install "partita\[tensorboard\]"'):
        train(run, data=tones, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_unknown_tracker(config):
    with pytest.raises(PartitaError, match="tensorboard"):
        override(config(), ['trainer.trackers=["wandb"]'])
