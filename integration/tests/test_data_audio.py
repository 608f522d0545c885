import os
import resource
import struct
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from partita.data import (
    AudioReader,
    audio_info,
    read_audio,
    read_resampled,
    resample,
    resampled_length,
    write_audio,
)
from partita.data.audio.truncation import truncation_reason
from partita_core import PartitaError


def noise(channels: int, samples: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(channels, samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_float_wav_round_trip_is_exact_beyond_full_scale(tmp_path):
    audio = 4 * noise(2, 1000)
    write_audio(tmp_path / "a.wav", audio, 32000)
    back, rate = read_audio(tmp_path / "a.wav")
    assert rate == 32000 and torch.equal(back, audio)
    info = audio_info(tmp_path / "a.wav")
    assert (info.sample_rate, info.channels, info.frames, info.format) == (32000, 2, 1000, "WAV/FLOAT")
    assert info.duration == 1000 / 32000


@pytest.mark.parametrize("suffix, subtype, step", [(".wav", "PCM_16", 2**-15), (".flac", None, 2**-23)])
def test_integer_formats_round_and_clip(tmp_path, suffix, subtype, step):
    audio = noise(1, 500)
    audio[0, :2] = torch.tensor([1.5, -1.5])
    write_audio(tmp_path / f"a{suffix}", audio, 44100, subtype=subtype)
    back, _ = read_audio(tmp_path / f"a{suffix}")
    assert (back - audio.clamp(-1, 1)).abs().max() <= step


def test_writes_a_minute_of_vorbis(tmp_path):
    write_audio(tmp_path / "a.ogg", noise(2, 60 * 44100), 44100)
    assert audio_info(tmp_path / "a.ogg").frames == 60 * 44100


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_partial_read_equals_slice_of_full_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_audio(path, noise(2, 50000), 44100)
    whole, _ = read_audio(path)
    part, _ = read_audio(path, 12345, 678)
    assert torch.equal(part, whole[:, 12345 : 12345 + 678])
    with pytest.raises(PartitaError, match="has 50000 samples, not 49000 to 51000"):
        read_audio(path, 49000, 2000)


def test_bytes_read_like_files(tmp_path):
    write_audio(tmp_path / "a.flac", noise(2, 3000), 44100)
    held = {"path": "far/a.flac", "bytes": (tmp_path / "a.flac").read_bytes()}
    assert torch.equal(read_audio(held, 100, 50)[0], read_audio(tmp_path / "a.flac", 100, 50)[0])
    with pytest.raises(PartitaError, match=r"far/a.flac: is empty"):
        read_audio({"path": "far/a.flac", "bytes": b""})


def broken_files(folder):
    good = noise(2, 40000).numpy().T
    (folder / "text.wav").write_text("a letter, not a song\n" * 50)
    (folder / "empty.flac").touch()
    soundfile.write(folder / "none.wav", good[:0], 44100)
    soundfile.write(folder / "seven.wav", np.tile(good[:100], (1, 4))[:, :7], 44100)
    soundfile.write(folder / "whole.flac", good, 44100)
    data = (folder / "whole.flac").read_bytes()
    (folder / "cut.flac").write_bytes(data[: len(data) // 2])
    for name, value in {"nan": np.nan, "inf": np.inf}.items():
        bad = good.copy()
        bad[20000] = value
        soundfile.write(folder / f"{name}.wav", bad, 44100, subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    (folder / "whole.flac").unlink()


@pytest.mark.parametrize(
    "name, reason",
    [
        ("text.wav", "is not audio that can be read"),
        ("empty.flac", r"is empty \(0 bytes\)"),
        ("none.wav", "holds no samples"),
        ("seven.wav", "has 7 channels"),
        ("cut.flac", "is damaged|is truncated"),
        ("nan.wav", "holds NaN or infinite"),
        ("inf.wav", "holds NaN or infinite"),
        ("folder.wav", "is a folder"),
        ("missing.wav", "no such file"),
    ],
)
def test_unreadable_file_error_names_the_file(tmp_path, name, reason):
    broken_files(tmp_path)
    with pytest.raises(PartitaError, match=reason) as caught:
        read_audio(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)


def stored(form: str, subtype: str) -> bytes:
    file = BytesIO()
    soundfile.write(file, noise(2, 30001).T.numpy(), 48000, format=form, subtype=subtype)
    return file.getvalue()


CUT = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAVEX", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "PCM_16")]
CUT += [("CAF", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")]


@pytest.mark.parametrize("form, subtype", CUT)
def test_truncated_file_raises(tmp_path, form, subtype):
    """libsndfile reads most truncated files as shorter ones."""
    data = stored(form, subtype)
    assert audio_info({"path": "a", "bytes": data + b"TAG" * 40}).frames == 30001  # trailing bytes do not matter
    for part in (0.5, 0.9, 0.99):
        (tmp_path / "a").write_bytes(data[: int(part * len(data))])
        for source in (tmp_path / "a", {"path": "a", "bytes": data[: int(part * len(data))]}):
            with pytest.raises(PartitaError, match=r"a: is truncated \("):
                audio_info(source)
    if form == "OGG":  # cut at the end of a page
        with pytest.raises(PartitaError, match=r"a: is truncated \(the page that ends it is missing\)"):
            audio_info({"path": "a", "bytes": data[: data.rfind(b"OggS")]})


@pytest.mark.parametrize("form, places", [("WAV", (4, 40)), ("AIFF", (4, 42)), ("AU", (8,))])
@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_header_of_unknown_length_is_not_truncation(form, places, length):
    data = bytearray(stored(form, "PCM_16"))
    assert form == "AU" or data[places[-1] - 4 : places[-1]] == {"WAV": b"data", "AIFF": b"SSND"}[form]
    for place in places:
        data[place : place + 4] = struct.pack(">I", length)
    assert truncation_reason(BytesIO(data)) is None
    data[places[-1] : places[-1] + 4] = struct.pack("<I" if form == "WAV" else ">I", 30001 * 4 + 1000)
    assert "bytes of samples are missing" in (truncation_reason(BytesIO(data)) or "")


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_implausible_sample_rate_raises(tmp_path, rate):
    """A file of a megabyte at 1 Hz would be resampled to one of 80 GB."""
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), 44100, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(PartitaError, match=rf"a\.wav: .*\b{rate} Hz; .*1000 to 1000000 Hz"):
        audio_info(tmp_path / "a.wav")


def claiming(path, frames):
    """A FLAC file of 1000 samples whose header claims `frames`."""
    soundfile.write(path, np.zeros((1000, 2)), 44100)
    data = bytearray(path.read_bytes())
    data[21] = data[21] & 0xF0 | frames >> 32  # 36 bits, the upper 4 after the bits per sample
    data[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
    path.write_bytes(data)


@pytest.mark.parametrize("frames", [2**31, 2**36 - 1])
def test_header_with_huge_length_raises(tmp_path, frames):
    claiming(tmp_path / "a.flac", frames)
    assert audio_info(tmp_path / "a.flac").frames == frames
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PartitaError, match=r"a.flac: is (damaged|truncated) \(") as caught:
        read_audio(tmp_path / "a.flac")
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kilobytes
    with pytest.raises(PartitaError, match="a.flac: is "):
        read_audio(tmp_path / "a.flac", frames - 1000, 100)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg", "a.aiff"])
def test_format_is_detected_despite_wrong_suffix(tmp_path, name):
    soundfile.write(tmp_path / "a.wav", np.full((1000, 1), 0.5), 44100, subtype="PCM_16")
    (tmp_path / "a.wav").rename(tmp_path / name)
    assert audio_info(tmp_path / name).format == "WAV/PCM_16" and read_audio(tmp_path / name)[0][0, 7] == 0.5


@pytest.mark.parametrize(
    "name, audio, reason",
    [
        ("a.txt", torch.zeros(1, 9), "a.txt: .*'.txt'"),
        ("no/a.wav", torch.zeros(1, 9), "does not exist"),
        ("a.wav", torch.zeros(3, 9), r"shape \(3, 9\)"),
        ("a.wav", torch.zeros(1, 0), r"shape \(1, 0\)"),
        ("a.wav", torch.full((1, 9), torch.nan), "NaN"),
        ("a.mp3", torch.zeros(1, 9), "cannot be written"),
    ],
)
def test_invalid_write_leaves_no_file(tmp_path, name, audio, reason):
    with pytest.raises(PartitaError, match=reason):
        write_audio(tmp_path / name, audio, 12345)
    assert os.listdir(tmp_path) == []


def test_failed_write_keeps_existing_file(tmp_path):
    write_audio(tmp_path / "a.wav", torch.zeros(1, 5), 8000)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(PartitaError, match="cannot be written"):
        write_audio(tmp_path / "a.wav", torch.zeros(1, 9), 8000, subtype="VORBIS")
    assert (tmp_path / "a.wav").read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]


RATES = [(48000, 44100), (44100, 48000), (8000, 44100), (44100, 16000), (96000, 44100), (12000, 176400)]


@pytest.mark.parametrize("source, target", RATES)
@pytest.mark.parametrize("samples", [1, 2, 7, 245, 3001])
def test_resampled_length_matches_resample(source, target, samples):
    out = resample(noise(2, samples), source, target)
    assert out.shape == (2, resampled_length(samples, source, target))
    assert abs(out.shape[1] - samples * target / source) <= 0.5


def test_resampling_preserves_a_sine():
    time = torch.arange(48000, dtype=torch.float64) / 48000
    out = resample(torch.sin(2 * torch.pi * 1000 * time)[None], 48000, 44100)
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(44100, dtype=torch.float64) / 44100)
    assert out.dtype == torch.float64
    assert (out[0, 2000:-2000] - expected[2000:-2000]).abs().max() < 1e-4
    assert resample(out, 44100, 44100) is out


@pytest.mark.parametrize("source, target", RATES)
@pytest.mark.parametrize("block", [100, 4099, 1 << 16])
def test_resampled_blocks_equal_resampled_file(tmp_path, source, target, block):
    write_audio(tmp_path / "a.wav", noise(2, 20011), source)
    reader = AudioReader(tmp_path / "a.wav", target, block)
    whole = resample(read_audio(tmp_path / "a.wav")[0], source, target)
    assert reader.samples == whole.shape[1]
    for _ in range(2):
        blocks = list(reader)
        assert all(part.shape[1] > 0 for part in blocks)
        assert torch.equal(torch.cat(blocks, 1), whole)


def test_reader_without_rate_keeps_file_rate(tmp_path):
    write_audio(tmp_path / "a.flac", noise(1, 5000), 22050)
    blocks = list(AudioReader(tmp_path / "a.flac", block_frames=1024))
    assert [part.shape[1] for part in blocks] == [1024] * 4 + [904]
    assert torch.equal(torch.cat(blocks, 1), read_audio(tmp_path / "a.flac")[0])


@pytest.mark.parametrize("source, target", [*RATES, (44100, 44100), (44101, 44100)])
def test_resampled_crop_equals_slice_of_resampled_file(tmp_path, source, target):
    write_audio(tmp_path / "a.wav", noise(2, 100003), source)
    whole = resample(read_audio(tmp_path / "a.wav")[0], source, target)
    info = audio_info(tmp_path / "a.wav")
    length = whole.shape[1]
    for start, frames in [(0, 500), (1, 1), (length // 3, 4000), (length - 700, 700), (0, length)]:
        crop = read_resampled(tmp_path / "a.wav", info, start, frames, target)
        assert crop.shape == (2, frames)
        assert (crop - whole[:, start : start + frames]).abs().max() < 5e-6
