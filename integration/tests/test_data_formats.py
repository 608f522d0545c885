"""All formats read as a whole, in blocks and in parts, and compared with ffmpeg."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from partita.data.audio.reader import AudioFile
from torch import Tensor


def music(rate: int, channels: int, seconds: float = 3.0) -> np.ndarray:
    """Tones and noise with a pause, `(samples, channels)`: after a pause, MP3 frames depend on many earlier ones."""
    draw, time = np.random.default_rng(rate + channels), np.arange(int(rate * seconds)) / rate
    audio = np.zeros((len(time), channels))
    for _ in range(10):
        tone = np.sin(2 * np.pi * draw.uniform(60, 0.35 * rate) * time) * np.sin(
            2 * np.pi * draw.uniform(0.3, 3) * time
        )
        audio += 0.06 * tone[:, None] * draw.uniform(0.3, 1, channels)
    audio += draw.normal(0, 0.02, audio.shape) * (np.sin(2 * np.pi * 1.3 * time) ** 8)[:, None]
    audio[len(time) // 3 : len(time) // 2] = 0
    return audio


def check_parts(source, *, crops: int) -> Tensor:
    """All samples of a file, after checking that blocks and crops are exact parts of them."""
    with AudioFile(source) as file:
        whole, length = file.read(), file.info.frames
        assert whole.shape == (file.info.channels, length)
        for block in (997, length // 3):
            assert torch.equal(torch.cat(list(file.blocks(block)), 1), whole)
        draw = np.random.default_rng(0)
        size = min(1500, length // 2)
        # Half are near an end.
        starts = draw.integers(0, length - size, crops)
        starts[::4] = draw.integers(0, min(3000, length - size), len(starts[::4]))
        starts[1::4] = length - size - draw.integers(0, min(3000, length - size), len(starts[1::4]))
        wrong = [start for start in starts if not torch.equal(file.read(start, size), whole[:, start : start + size])]
        assert not wrong
    return whole


# Listed by libsndfile, but it cannot write them or cannot read what it has written.
UNUSABLE = {
    *(("AIFF", f"DWVW_{bits}") for bits in (12, 16, 24)),
    ("MP3", "MPEG_LAYER_I"),
    ("MP3", "MPEG_LAYER_II"),
    ("WAV", "MPEG_LAYER_III"),
}
WRITTEN = [
    (form, subtype)
    for form in soundfile.available_formats()
    if form not in ("RAW", "SD2")  # RAW has no header, SD2 is two files
    for subtype in soundfile.available_subtypes(form)
    if (form, subtype) not in UNUSABLE
]


@pytest.mark.parametrize("form, subtype", WRITTEN)
def test_parts_equal_full_read_in_all_formats(form, subtype):
    file, settings = BytesIO(), {"format": form, "subtype": subtype}
    if "MPEG" in subtype:
        settings |= {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
    soundfile.write(file, music(8000, 1), 8000, **settings)
    expected = soundfile.read(BytesIO(file.getvalue()), dtype="float32")[0]
    whole = check_parts({"path": "a", "bytes": file.getvalue()}, crops=12)
    if "MPEG" not in subtype:
        assert torch.equal(whole[0], torch.from_numpy(expected))


MPEG, VORBIS, OPUS = 4e-6, 4e-7, 2e-5  # ffmpeg's Opus is rounded to 16 bit

WEBM = "ffmpeg -i IN -c:a {} out.webm && ffmpeg -i out.webm -c copy out.{}"
# Name: encoder, sample rate, channels, and the maximum difference from ffmpeg's samples.
ENCODERS = {
    "mp3_lame_vbr": ("lame --quiet -V2 IN out.mp3", 44100, 2, MPEG),
    "mp3_lame_cbr": ("lame --quiet -b 128 IN out.mp3", 44100, 2, MPEG),
    "mp3_lame_checksums": ("lame --quiet -p -b 96 IN out.mp3", 48000, 2, MPEG),
    "mp3_lame_vbr_no_xing": ("lame --quiet -t -V2 IN out.mp3", 44100, 2, MPEG),
    "mp3_lame_cbr_no_xing": ("lame --quiet -t -b 128 IN out.mp3", 44100, 2, MPEG),
    "mp3_lame_22k_mono": ("lame --quiet -b 32 IN out.mp3", 22050, 1, MPEG),
    "mp3_lame_48k_mono_low": ("lame --quiet -b 32 -m m --resample 48 IN out.mp3", 48000, 1, MPEG),
    "mp3_lame_16k_lowest": ("lame --quiet -b 8 IN out.mp3", 16000, 1, MPEG),
    "mp3_lame_8k": ("lame --quiet -b 8 IN out.mp3", 8000, 1, MPEG),
    "mp3_ffmpeg_vbr": ("ffmpeg -i IN -c:a libmp3lame -q:a 4 out.mp3", 44100, 2, MPEG),
    "mp3_ffmpeg_no_xing": (
        "ffmpeg -i IN -c:a libmp3lame -q:a 2 -write_xing 0 out.mp3",
        32000,
        2,
        MPEG,
    ),
    "mp3_in_wav": ("ffmpeg -i IN -c:a libmp3lame out.wav", 44100, 2, MPEG),
    "mp2": ("ffmpeg -i IN -c:a mp2 -f mp2 out.mp3", 44100, 2, 1e-4),
    "vorbis_oggenc": ("oggenc -Q -q 6 -o out.ogg IN && ffmpeg -i out.ogg -c copy out.oga", 44100, 2, VORBIS),
    "vorbis_ffmpeg": ("ffmpeg -i IN -c:a libvorbis -q:a 3 out.ogg", 22050, 1, VORBIS),
    "vorbis_from_webm": (
        WEBM.format("libvorbis", "ogg"),
        48000,
        2,
        VORBIS,
    ),
    "opus_opusenc": ("opusenc --quiet --bitrate 64 IN out.opus", 44100, 2, OPUS),
    "opus_speech": ("opusenc --quiet --speech --bitrate 16 IN out.opus", 48000, 1, OPUS),
    "opus_ffmpeg": ("ffmpeg -i IN -c:a libopus -b:a 48k out.opus", 48000, 2, OPUS),
    "opus_from_webm": (WEBM.format("libopus", "opus"), 48000, 2, OPUS),
    "flac": ("flac -s -o out.flac IN", 44100, 2, 0),
    "flac_unknown_length": ("ffmpeg -i IN -f flac pipe:1", 44100, 2, 0),
    "wav_gsm": ("ffmpeg -i IN -c:a libgsm_ms out.wav", 8000, 1, 0),
    "wav_ms_adpcm": ("ffmpeg -i IN -c:a adpcm_ms out.wav", 44100, 2, 0),
    "wav_ima_adpcm": ("ffmpeg -i IN -c:a adpcm_ima_wav out.wav", 44100, 2, 2e-3),  # ffmpeg rounds differently
    "wav_of_unknown_length": ("ffmpeg -i IN -f wav pipe:1", 44100, 2, 0),
    "aiff": ("ffmpeg -i IN -c:a pcm_s24be out.aiff", 44100, 2, 0),
}


def encode(folder: Path, command: str, rate: int, channels: int) -> Path:
    """The encoded `music`; the test is skipped if an encoder is not installed."""
    soundfile.write(folder / "in.wav", music(rate, channels), rate, subtype="PCM_16")
    path = folder / "none"
    for step in command.split(" && "):
        words = ["in.wav" if word == "IN" else word for word in step.split()]
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        words[1:1] = ["-v", "error", "-y"] if words[0] == "ffmpeg" else []
        done = subprocess.run(words, cwd=folder, capture_output=True)
        if b"Unknown encoder" in done.stderr:
            pytest.skip(f"ffmpeg has no encoder for: {step}")
        assert done.returncode == 0, done.stderr
        path = folder / words[-1]
        if words[-1] == "pipe:1":
            path = folder / "out.piped"
            path.write_bytes(done.stdout)
    return path


def by_ffmpeg(path: Path, rate: int, channels: int) -> Tensor:
    """The file decoded by ffmpeg, `(channels, samples)`."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    decoder = ["-c:a", "libopus"] if path.suffix == ".opus" else []
    output = ["-f", "f32le", "-c:a", "pcm_f32le", "-ar", str(rate), "-"]
    done = subprocess.run(
        ["ffmpeg", "-v", "error", *decoder, "-i", str(path), *output], capture_output=True, check=True
    )
    return torch.from_numpy(np.frombuffer(done.stdout, np.float32).reshape(-1, channels).T.copy())


def check_encoder(folder: Path, name: str, *, crops: int) -> None:
    command, rate, channels, tolerance = ENCODERS[name]
    path = encode(folder, command, rate, channels)
    whole = check_parts(path, crops=crops)
    with AudioFile(path) as file:
        rate = file.info.sample_rate
    expected = by_ffmpeg(path, rate, channels)
    if name == "wav_gsm":  # ffmpeg leaves out the padding of the last block
        assert 0 <= whole.shape[1] - expected.shape[1] <= 320
        whole = whole[:, : expected.shape[1]]
    assert whole.shape == expected.shape
    assert (whole - expected).abs().max() <= tolerance


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_and_crops_match_ffmpeg(tmp_path, name):
    check_encoder(tmp_path, name, crops=24)


@pytest.mark.endurance
@pytest.mark.parametrize("name", ENCODERS)
def test_many_crops_match_ffmpeg(tmp_path, name):
    check_encoder(tmp_path, name, crops=200)


def test_concatenated_files_are_read_to_the_end(tmp_path):
    for name in ("mp3_lame_vbr", "mp3_lame_cbr"):
        (tmp_path / name).mkdir()
        command, rate, channels, _ = ENCODERS[name]
        part = encode(tmp_path / name, command, rate, channels)
        with open(tmp_path / "joined.mp3", "ab") as file:
            file.write(part.read_bytes())
    whole = check_parts(tmp_path / "joined.mp3", crops=12)
    expected = by_ffmpeg(tmp_path / "joined.mp3", 44100, 2)
    assert whole.shape == expected.shape and whole.shape[1] > 2 * 3 * 44100
    assert (whole - expected).abs().max() <= MPEG
