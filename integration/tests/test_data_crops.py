from dataclasses import replace
from itertools import islice

import pytest
import soundfile
import torch
from partita.data import (
    AudioCrops,
    Augmentation,
    DataConfig,
    EpochSampler,
    build_loader,
    collate,
    open_dataset,
    write_audio,
)
from partita_core import AudioSpec, ChannelLayout, PartitaError, from_dict, override, to_dict

SPEC = AudioSpec(8000, 2, tuple(ChannelLayout))
PLAIN = DataConfig(augmentation=None, num_workers=0, batch_size=4)


def ramp(start: float, samples: int) -> torch.Tensor:
    """Samples whose values give their positions."""
    return (start + torch.arange(samples) / 100_000)[None].expand(2, -1)


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    for place, samples in enumerate([5000, 6000, 7000, 300, 8000]):
        write_audio(tmp_path / f"{place}.wav", ramp(0.1 * place + 0.1, samples), 8000)
    return tmp_path


def crops(folder, config: DataConfig = PLAIN, crop_samples: int = 1000, seed: int = 0, spec=SPEC) -> AudioCrops:
    return AudioCrops(open_dataset(folder), audio_spec=spec, crop_samples=crop_samples, config=config, seed=seed)


def test_crop_is_slice_of_its_file(folder):
    item = crops(folder)[0, 2]
    assert item["audio"].shape == (2, 1000) and item["audio"].dtype == torch.float32
    place = round((item["audio"][0, 0].item() - 0.3) * 100_000)
    assert 0 <= place <= 6000
    torch.testing.assert_close(item["audio"], ramp(0.3, 7000)[:, place : place + 1000])
    assert (item["audio_lengths"], item["index"], item["broken"]) == (1000, 2, [])
    assert item["layout"] == item["target_layout"] == ChannelLayout.STEREO


def test_crops_reach_first_and_last_sample(folder):
    config, starts = PLAIN, set()
    for epoch in range(40):
        audio = crops(folder, config, 4990)[epoch, 0]["audio"]
        starts.add(round((audio[0, 0].item() - 0.1) * 100_000))
    assert min(starts) == 0 and max(starts) == 10


def test_short_file_is_zero_padded(folder):
    item = crops(folder, replace(PLAIN, silence_db=None))[0, 3]
    assert item["audio_lengths"] == 300
    torch.testing.assert_close(item["audio"][:, :300], ramp(0.4, 300))
    assert not item["audio"][:, 300:].any()


def test_crop_depends_on_seed_epoch_and_index_only(folder):
    config = replace(PLAIN, augmentation=Augmentation())
    one, other = crops(folder, config), crops(folder, config)
    other[3, 1]
    torch.manual_seed(1)
    assert all(torch.equal(one[0, i]["audio"], other[0, i]["audio"]) for i in range(5))
    assert not torch.equal(one[0, 4]["audio"], one[1, 4]["audio"])
    assert not torch.equal(one[0, 4]["audio"], crops(folder, config, seed=1)[0, 4]["audio"])


def test_crops_are_resampled_to_model_rate(tmp_path):
    time = torch.arange(48000) / 48000
    write_audio(tmp_path / "a.flac", 0.5 * torch.sin(2 * torch.pi * 1000 * time)[None], 48000)
    item = crops(tmp_path, crop_samples=4000)[0, 0]
    assert item["layout"] == ChannelLayout.MONO and torch.equal(*item["audio"])
    spectrum = (item["audio"][0] * torch.hann_window(4000)).to(torch.float64)
    assert torch.fft.rfft(spectrum).abs().argmax() == 500


def test_silent_crops_are_drawn_again(tmp_path):
    audio = torch.zeros(1, 80000)
    audio[:, 40000:] = noise(40000)
    write_audio(tmp_path / "a.wav", audio, 8000)
    always = crops(tmp_path, replace(PLAIN, max_silent_retries=20), 100)
    assert all(always[epoch, 0]["audio"].any() for epoch in range(30))
    never = crops(tmp_path, replace(PLAIN, silence_db=None), 100)
    silent = sum(not never[epoch, 0]["audio"].any() for epoch in range(30))
    assert 5 <= silent <= 25


MONO = AudioSpec(8000, 1, (ChannelLayout.MONO,))


@pytest.mark.parametrize("samples", [300, 5000])
def test_cancelling_channels_are_silent_in_mono(tmp_path, samples):
    write_audio(tmp_path / "0.wav", torch.stack([noise(samples), -noise(samples)]), 8000)
    write_audio(tmp_path / "1.wav", noise(5000)[None], 8000)
    item = crops(tmp_path, spec=MONO)[0, 0]  # always the mean of both
    assert item["index"] == 1 and "its channels cancel each other, below -60 dB" in item["broken"][0]
    assert crops(tmp_path)[0, 0]["index"] == 0  # as left and right, it is not silent
    config = replace(PLAIN, augmentation=Augmentation(level_db=None), max_silent_retries=50)
    drawn = [crops(tmp_path, config, spec=MONO)[epoch, 0] for epoch in range(12)]
    assert all(item["index"] == 0 and item["audio"].std() > 0.01 for item in drawn)  # one of the channels


def test_constant_offset_counts_as_silence(tmp_path):
    audio = torch.full((2, 8000), 0.5)
    audio[0] = -0.3
    audio[:, 6000:] += noise(2000)
    write_audio(tmp_path / "0.wav", audio, 8000)
    found = [crops(tmp_path, replace(PLAIN, max_silent_retries=50))[epoch, 0] for epoch in range(12)]
    assert all(item["audio"].std(-1).max() > 1e-3 and not item["broken"] for item in found)


def test_silent_file_is_replaced_if_another_is_usable(folder):
    write_audio(folder / "1.wav", torch.zeros(1, 6000), 8000)
    item = crops(folder)[0, 1]
    assert item["index"] != 1 and item["audio"].any()
    said = f"{folder / '1.wav'}: is silent, below -60 dB in all of 4 crops"
    assert item["broken"][0] == said
    item = crops(folder, crop_samples=7000)[0, 1]
    assert item["broken"][0] == f"{folder / '1.wav'}: is silent, below -60 dB"  # the crop holds all of it
    for name in ("0.wav", "2.wav", "3.wav", "4.wav"):
        (folder / name).unlink()
    item = crops(folder)[0, 0]
    assert not item["audio"].any() and item["audio_lengths"] == 1000 and item["broken"] == [said]


def test_file_changed_while_reading_is_replaced(folder, monkeypatch):
    """The file becomes shorter between reading its header and its samples; the next time, the header is right."""
    from partita.data import audio_crops as module

    original = module.audio_info

    def look(source):
        info = original(source)
        if source["path"].endswith("1.wav") and info.frames == 6000:
            write_audio(folder / "1.wav", ramp(0.2, 1200), 8000)
        return info

    monkeypatch.setattr(module, "audio_info", look)
    found = crops(folder, replace(PLAIN, silence_db=None), crop_samples=5000)
    first, second = found[0, 1], found[1, 1]
    assert first["index"] != 1 and first["broken"][0].startswith(f"{folder / '1.wav'}: has 1200 samples, not ")
    assert (second["index"], second["audio_lengths"], second["broken"]) == (1, 1200, [])


def test_broken_files_are_replaced_and_reported(folder):
    (folder / "1.wav").write_text("not audio")
    write_audio(folder / "2.flac", torch.zeros(1, 9000), 8000)
    data = (folder / "2.flac").read_bytes()
    (folder / "2.flac").write_bytes(data[:60])
    items = [crops(folder)[epoch, 1] for epoch in range(8)]
    assert {item["index"] for item in items} <= {0, 3, 4, 5, 2} and len({item["index"] for item in items}) > 1
    assert all(item["broken"][0].startswith(f"{folder / '1.wav'}: is not audio") for item in items)
    again = crops(folder)[5, 1]
    assert torch.equal(again["audio"], items[5]["audio"]) and again["broken"] == items[5]["broken"]
    assert collate(items)["broken"] == [reason for item in items for reason in item["broken"]]


@pytest.mark.parametrize("workers", [0, 1])
def test_file_broken_at_several_positions_is_counted_once(tmp_path, workers):
    noise = torch.rand(2, 60000, generator=torch.Generator().manual_seed(0)) - 0.5
    soundfile.write(tmp_path / "whole.flac", noise.T.numpy(), 48000)
    data = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    config = DataConfig(augmentation=None, num_workers=workers, batch_size=24, crop_seconds=0.01)
    settings = {"audio_spec": AudioSpec(48000, 2, (ChannelLayout.STEREO,)), "crop_multiple": 1, "seed": 0}
    broken = next(iter(build_loader(open_dataset(tmp_path), config, **settings)))["broken"]
    assert {found.file for found in broken} == {"cut.flac"} and len(set(broken)) > 1
    assert all(found.startswith(f"{tmp_path / 'cut.flac'}: is ") for found in broken)


@pytest.mark.parametrize("workers", [0, 1])
def test_only_broken_files_raise(tmp_path, workers):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_text("not audio")
    config = replace(PLAIN, num_workers=workers)
    loader = build_loader(open_dataset(tmp_path), config, audio_spec=SPEC, crop_multiple=10, seed=0)
    with pytest.raises(PartitaError, match=r"2 files .* of 2; the first: .*[ab]\.wav: is not audio") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)


def keys(steps: int, **settings) -> list:
    return list(islice(EpochSampler(**{"num_items": 5, "batch_size": 4, "seed": 0} | settings), steps))


def test_epochs_are_complete_and_shuffled():
    flat = [key for batch in keys(10) for key in batch]
    epochs = [flat[5 * epoch : 5 * epoch + 5] for epoch in range(8)]
    for number, epoch in enumerate(epochs):
        assert sorted(epoch) == [(number, index) for index in range(5)]
    assert len({tuple(index for _, index in epoch) for epoch in epochs}) > 4
    assert keys(3) != keys(3, seed=1)


def test_sampler_resumes_from_start_step():
    assert keys(4, start_step=7) == keys(11)[7:]


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_batches(world_size):
    shares = [keys(6, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [sum(parts, []) for parts in zip(*shares)] == keys(6)
    with pytest.raises(PartitaError, match="batch of 4 .* 3 processes"):
        EpochSampler(num_items=5, batch_size=4, seed=0, world_size=3)


def test_small_data_set_fills_a_batch_with_several_epochs():
    (batch,) = keys(1, num_items=2, batch_size=5)
    assert [epoch for epoch, _ in batch] == [0, 0, 1, 1, 2]


def same(one: dict, other: dict) -> bool:
    assert one.keys() == other.keys() and one["broken"] == other["broken"]
    names = one["file_name"] == other["file_name"]
    return names and all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))


def test_batches_equal_with_workers_and_after_resuming(folder):
    config = replace(PLAIN, augmentation=Augmentation(), crop_seconds=0.102)
    settings = {"audio_spec": SPEC, "crop_multiple": 64, "seed": 3}
    dataset = open_dataset(folder)
    here = list(islice(build_loader(dataset, config, **settings), 5))
    elsewhere = list(islice(build_loader(dataset, replace(config, num_workers=2), **settings), 5))
    resumed = list(islice(build_loader(dataset, config, start_step=2, **settings), 3))
    assert all(map(same, here, elsewhere)) and all(map(same, here[2:], resumed))
    assert here[0]["audio"].shape == (4, 2, 832)
    for key in ("audio_lengths", "layout", "target_layout", "index"):
        assert here[0][key].dtype == torch.int64 and here[0][key].shape == (4,)


def test_two_ranks_join_to_one_batch(folder):
    settings = {"audio_spec": SPEC, "crop_multiple": 64, "seed": 3}
    dataset = open_dataset(folder)
    whole = next(iter(build_loader(dataset, PLAIN, **settings)))
    parts = [next(iter(build_loader(dataset, PLAIN, rank=r, world_size=2, **settings))) for r in (0, 1)]
    assert torch.equal(torch.cat([part["audio"] for part in parts]), whole["audio"])


def test_loading_does_not_advance_global_generator(folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    next(iter(build_loader(open_dataset(folder), PLAIN, audio_spec=SPEC, crop_multiple=64, seed=3)))
    assert torch.equal(torch.get_rng_state(), before)


def test_crop_samples_is_nearest_multiple():
    assert DataConfig(crop_seconds=1.5).crop_samples(44100, 3360) == 20 * 3360
    assert DataConfig(crop_seconds=0.001).crop_samples(44100, 3360) == 3360


def test_data_config_round_trip_and_ranges():
    config = DataConfig()
    assert from_dict(DataConfig, to_dict(config)) == config
    changed = override(config, ["augmentation.swap=0", "batch_size=3"])
    assert changed.augmentation.swap == 0 and changed.batch_size == 3
    assert override(config, ["augmentation=none"]).augmentation is None
    with pytest.raises(PartitaError, match="batch_size is 0; it must be at least 1"):
        DataConfig(batch_size=0)
    with pytest.raises(PartitaError, match="crop_seconds is 0"):
        DataConfig(crop_seconds=0)


def test_empty_data_set_and_missing_format_raise(folder):
    with pytest.raises(PartitaError, match="holds no audio"):
        AudioCrops(open_dataset(folder).select([]), audio_spec=SPEC, crop_samples=9, config=PLAIN, seed=0)
    config = replace(PLAIN, augmentation=Augmentation(mono_average=0, mono_channel=0))
    with pytest.raises(PartitaError, match="mono: mono_average, mono_channel are 0"):
        crops(folder, config, spec=AudioSpec(8000, 1, (ChannelLayout.MONO,)))
