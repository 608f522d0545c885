"""Mixing augmentation: clamped sums of random crops of two files."""

from dataclasses import replace

import pytest
import torch
from partita.data import AudioCrops, Augmentation, DataConfig, open_dataset, write_audio
from partita.data.augment import mixed
from partita_core import AudioSpec, ChannelLayout, PartitaError

SPEC = AudioSpec(8000, 1, (ChannelLayout.MONO,))
BARE = Augmentation(0, 0, 1, 0, 0, swap=0, switch_target=0, flip=0, level_db=None)
LEVELS = (0.1, 0.2, 0.4)


@pytest.fixture
def folder(tmp_path):
    """Three files with one constant each; the last is short."""
    for place, (level, samples) in enumerate(zip(LEVELS, (2000, 2000, 300))):
        write_audio(tmp_path / f"{place}.wav", torch.full((1, samples), level), 8000)
    return tmp_path


def crops(folder, mix: float) -> AudioCrops:
    config = DataConfig(augmentation=replace(BARE, mix=mix), num_workers=0, silence_db=None)
    return AudioCrops(open_dataset(folder), audio_spec=SPEC, crop_samples=1000, config=config, seed=0)


def test_mixed_length_width_and_clamping():
    mono, stereo = torch.tensor([[0.5, -0.5, 0.25]]), torch.tensor([[0.75, -0.75], [0.25, 0.0]])
    expected = torch.tensor([[1.0, -1.0, 0.25], [0.75, -0.5, 0.25]])
    assert torch.equal(mixed(mono, stereo), expected) and torch.equal(mixed(stereo, mono), expected)


def test_mix_probability(folder):
    data = crops(folder, 0.5)
    sums = {round(a + b, 4): (a, b) for a in LEVELS for b in LEVELS}
    alone = 0
    for epoch in range(100):
        item = data[epoch, 0]
        level = round(float(item["audio"][0, 0]), 3)
        assert level == 0.1 or 0.1 in sums[level]
        assert item["audio_lengths"] == 1000 and item["file_name"] == "0.wav"
        if level == 0.5:  # the short file ends
            assert float(item["audio"][0, 299]) == pytest.approx(0.5, abs=1e-3)
            assert float(item["audio"][0, 300]) == pytest.approx(0.1, abs=1e-3)
        alone += level == 0.1
    assert 30 < alone < 70  # four standard deviations are 20


def test_mixed_crop_has_the_longer_length(folder):
    lengths = {crops(folder, 1.0)[epoch, 2]["audio_lengths"] for epoch in range(20)}
    assert lengths == {300, 1000}


def test_mixing_off_draws_nothing(folder):
    """Without mixing nothing is drawn for it, so all other draws stay the same."""
    off, on = crops(folder, 0.0), crops(folder, 1.0)
    assert float(off[0, 1]["audio"][0, 0]) == pytest.approx(0.2, abs=1e-3)
    assert float(on[0, 1]["audio"][0, 0]) > 0.29
    again = crops(folder, 1.0)
    assert all(torch.equal(on[e, i]["audio"], again[e, i]["audio"]) for e in range(3) for i in range(3))


def test_damaged_mixing_partner_is_ignored(folder):
    data = crops(folder, 1.0)
    (folder / "1.wav").write_bytes(b"no audio")
    (folder / "2.wav").write_bytes(b"no audio")
    for epoch in range(10):
        item = data[epoch, 0]
        assert round(float(item["audio"][0, 0]), 3) in (0.1, 0.2)  # alone, or with itself
        assert item["broken"] == []


@pytest.mark.parametrize("other", [{"streaming": True}, {"texts": "text"}])
def test_mixing_with_texts_columns_or_streams_raises(other):
    from partita.data.texts import TextTask

    other = {name: (TextTask("", "{label}"),) if value == "text" else value for name, value in other.items()}
    with pytest.raises(PartitaError, match="augmentation.mix is 0.5"):
        DataConfig(augmentation=Augmentation(mix=0.5), **other)
