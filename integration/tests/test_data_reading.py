"""Files that libsndfile alone reads incorrectly: estimated lengths, truncated or concatenated streams, wrong names."""

import errno
import os
import resource
import struct
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from partita.data import audio_info, read_audio, write_audio
from partita.data.audio.mpeg import MPEGAudio
from partita.data.audio.ogg import OggAudio
from partita.data.audio.reader import AudioFile
from partita.data.audio.recent import RecentFiles
from partita.data.audio.segments import Decoder, Splice, WholeFile
from partita_core import PartitaError

RATE, FRAME = 44100, 1152


def noise(samples: int, channels: int = 2) -> np.ndarray:
    return 0.2 * np.random.default_rng(0).standard_normal((samples, channels))


def stored(audio: np.ndarray, form: str, subtype: str | None = None, rate: int = RATE, **settings) -> bytes:
    file = BytesIO()
    soundfile.write(file, audio, rate, format=form, subtype=subtype, **settings)
    return file.getvalue()


def source(data: bytes) -> dict:
    return {"path": "a", "bytes": data}


@pytest.fixture(scope="module")
def mp3() -> bytes:
    """Variable bit rate: low in the first second, and three times as high after it."""
    audio = noise(3 * RATE)
    audio[:RATE] = 0
    return stored(audio, "MP3", bitrate_mode="VARIABLE", compression_level=0.3)


def without_header_frame(data: bytes) -> bytes:
    """An MP3 file of a stream, without a frame that gives its length."""
    assert data[36:40] in (b"Xing", b"Info")
    bits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[data[2] >> 4]
    return data[144 * bits * 1000 // RATE + (data[2] >> 1 & 1) :]


def test_mp3_without_length_header_counts_frames(mp3):
    data = without_header_frame(mp3)
    estimate = soundfile.info(BytesIO(data)).frames
    whole, with_header = read_audio(source(data))[0], read_audio(source(mp3))[0]
    assert with_header.shape[1] == 3 * RATE
    assert whole.shape[1] % FRAME == 0 and 3 * RATE <= whole.shape[1] < 3 * RATE + 3 * FRAME
    assert abs(estimate - whole.shape[1]) > RATE  # libsndfile's estimate
    # The header frame gives the encoder delay.
    skipped = 1105
    assert torch.equal(whole[:, skipped : skipped + 3 * RATE], with_header)


def test_concatenated_mp3_files_have_total_length(mp3):
    one = audio_info(source(without_header_frame(mp3))).frames
    joined = audio_info(source(mp3 + mp3)).frames
    # The second header frame is silent, and only the padding at the start of the first file is left out.
    assert joined == 2 * one + FRAME - 1105
    tagged = audio_info(source(mp3 + b"ID3\x03\0\0\0\0\x01\x00" + bytes(128) + mp3)).frames
    assert tagged == joined


def test_mp3_with_changing_rate_raises(mp3):
    other = stored(noise(20000), "MP3", rate=48000)
    with pytest.raises(PartitaError, match="44100 Hz with 2 channels .*48000 Hz with 2 channels"):
        audio_info(source(mp3 + other))


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"APETAGEX" + bytes(500), bytes(3000)])
def test_bytes_after_last_mp3_frame_are_ignored(mp3, tail):
    assert audio_info(source(mp3 + tail)) == audio_info(source(mp3))


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_mp3_raises(mp3, share):
    frames = -(-(3 * RATE + 1105) // FRAME)
    with pytest.raises(PartitaError, match=rf"a: is truncated \(\d+ of ({frames}|{frames + 1}|\d+ bytes)"):
        audio_info(source(mp3[: int(share * len(mp3))]))
    bare = without_header_frame(mp3)
    with pytest.raises(PartitaError, match=r"a: is truncated \(\d+ of \d+ bytes of its last frame"):
        audio_info(source(bare[:-7]))


def test_mp3_crop_reads_only_needed_frames(mp3, monkeypatch):
    read, original = [], MPEGAudio._read
    monkeypatch.setattr(MPEGAudio, "_read", lambda self, index: read.append(index) or original(self, index))
    with AudioFile(source(mp3)) as file:
        read.clear()
        file.read(2 * RATE, 2000)
    assert len(read) <= 24 and min(read) > 2 * RATE // FRAME - 20


def test_flac_of_unknown_length_is_decoded_once(tmp_path, monkeypatch):
    audio = noise(30001)
    data = bytearray(stored(audio, "FLAC"))
    data[21], data[22:26] = data[21] & 0xF0, bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    counts, original = [], Decoder.discard
    monkeypatch.setattr(Decoder, "discard", lambda self, count, block: counts.append(1) or original(self, count, block))
    whole, _ = read_audio(tmp_path / "a.flac")
    assert whole.shape == (2, 30001)
    part, _ = read_audio(tmp_path / "a.flac", 29000, 1001)
    assert torch.equal(part, whole[:, 29000:])
    skips = sum(counts)
    audio_info(tmp_path / "a.flac")
    assert sum(counts) == skips == 3  # once to the end, twice no samples


def test_crop_of_coding_without_exact_seek():
    data = stored(noise(16000, 1), "WAV", "GSM610", rate=8000)
    whole, _ = read_audio(source(data))
    assert torch.equal(read_audio(source(data), 7001, 3000)[0], whole[:, 7001:10001])


def pages(data: bytes) -> list[bytearray]:
    """The pages of an Ogg file."""
    found, at = [], 0
    while at < len(data):
        size = 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])
        found.append(bytearray(data[at : at + size]))
        at += size
    return found


def joined(parts: list[bytearray]) -> bytes:
    """Pages with valid checksums, computed bit by bit."""
    for page in parts:
        page[22:26], crc = bytes(4), 0
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
        page[22:26] = struct.pack("<I", crc)
    return b"".join(parts)


def moved(data: bytes, by: int, first: int = 0) -> bytes:
    """An Ogg file from audio page number `first` on, with all positions shifted."""
    parts = pages(data)
    headers = 2 if b"OpusHead" in data[:64] else next(i for i, page in enumerate(parts) if page[6:14] != bytes(8))
    for page in parts[headers:]:
        page[6:14] = struct.pack("<q", struct.unpack("<q", page[6:14])[0] + by)
    return joined(parts[:headers] + parts[headers + first :])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_with_late_start_position(subtype):
    """As in files copied from WebM, or recorded broadcasts."""
    data = stored(noise(48000), "OGG", subtype, rate=48000)
    whole, late = read_audio(source(data))[0], source(moved(data, 10_000))
    assert whole.shape == (2, 48000) and torch.equal(read_audio(late)[0], whole)
    for start in (0, 100, 20_000, 46_999):
        assert torch.equal(read_audio(late, start, 1001)[0], whole[:, start : start + 1001])


def test_vorbis_cut_at_start_begins_at_position_0():
    data = stored(noise(3 * 48000), "OGG", "VORBIS", rate=48000)
    whole, _ = read_audio(source(data))
    audio = [page for page in pages(data) if struct.unpack("<q", page[6:14])[0] > 0]
    end = struct.unpack("<q", audio[1][6:14])[0]  # of the second page, which becomes the first
    cut = source(moved(data, 500 - end, first=1))
    got, _ = read_audio(cut)
    # 500 samples of that page remain.
    assert got.shape[1] == 3 * 48000 - end + 500
    assert torch.equal(got, whole[:, -got.shape[1] :])
    assert torch.equal(read_audio(cut, 100, 700)[0], got[:, 100:800])


def test_concatenated_ogg_streams_raise():
    data = stored(noise(20000), "OGG", "VORBIS")
    with pytest.raises(PartitaError, match="several streams"):
        audio_info(source(data + data))


def test_damaged_ogg_page_raises():
    data = bytearray(stored(noise(3 * RATE), "OGG", "VORBIS"))
    data[-1] ^= 0xFF
    with AudioFile(source(bytes(data))) as file:
        file.read(0, 1000)
        with pytest.raises(PartitaError, match=r"a: is damaged \(the Ogg page at byte \d+ is damaged\)"):
            file.read(3 * RATE - 1000, 1000)


def test_ogg_samples_are_counted_by_packets():
    """The last position determines only where the end is cut."""
    data = stored(noise(30000), "OGG", "VORBIS")
    stream = OggAudio(BytesIO(data), len(data))
    with stream.open(0, 30000)[0] as decoder:
        assert decoder.discard(1 << 20, 1 << 12) == stream._ends[-1] >= 30000 == stream.frames


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("a.mp3", b"\xff\xf1\x50\x80" + bytes(500), "it is AAC"),
        ("a.mp3", b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + b"\xff\xf1\x50\x80" + bytes(500), "it is AAC"),
        ("a.wav", b"\0\0\0\x20ftypM4A " + bytes(500), "it is MP4"),
        ("a.opus", b"\x1aE\xdf\xa3" + bytes(500), "it is Matroska or WebM"),
        ("a.au", b"a letter, not a song\n" * 50, "Format not recogni[sz]ed"),
        ("a.snd", b"a letter, not a song\n" * 50, "Format not recogni[sz]ed"),
    ],
)
def test_unsupported_formats_are_named_by_their_bytes(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PartitaError, match=rf"{name}: is not audio that can be read \({reason}"):
        audio_info(tmp_path / name)


def test_fifo_raises(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(PartitaError, match="a.wav: is not a regular file"):
        audio_info(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "file", [WholeFile(BytesIO(bytes(range(100)))), Splice([60, 40], lambda i: bytes(range(60 * i, 60 + 40 * i)))]
)
def test_callback_file_has_every_position(file):
    """Damaged headers ask for any; an exception within libsndfile would only be printed."""
    assert file.seek(-1000) == file.seek(-101, os.SEEK_END) == 0 and file.read(3) == bytes([0, 1, 2])
    assert (
        file.seek(-50, os.SEEK_CUR) == 0 and file.seek(-41, os.SEEK_END) == 59 and file.read() == bytes(range(59, 100))
    )
    assert file.seek(2**62) == 2**62 and file.read(3) == b""
    assert file.seek(2**62, os.SEEK_CUR) == 2**63 - 1 and file.read(3) == b"" and file.error is None


class FailingDisk(BytesIO):
    """Bytes of which those behind `last` cannot be read."""

    last = 0

    def readinto(self, buffer):
        if self.tell() + len(buffer) > self.last:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer)


@pytest.mark.parametrize("last", [0, 20_000])
def test_error_of_disk_is_raised(last):
    disk = FailingDisk(stored(noise(60_000), "WAV", "PCM_16"))
    disk.last = last
    with pytest.raises(OSError, match="Input/output error"), Decoder(WholeFile(disk)) as decoder:
        decoder.discard(60_000, 1000)
    assert disk.closed


@pytest.mark.parametrize("peak, read", [(2.0**31, True), (2.0**32, False), (1e38, False)])
def test_samples_beyond_max_amplitude_raise(peak, read):
    audio = np.zeros((1000, 1), np.float32)
    audio[700] = -peak
    data = source(stored(audio, "WAV", "FLOAT"))
    if read:
        assert read_audio(data)[0].abs().max() == peak
    else:
        with pytest.raises(PartitaError, match=rf"a: holds a sample of {peak:.3g}, ".replace("+", r"\+")):
            read_audio(data)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_write_error_has_system_message(tmp_path, suffix):
    """A limit of the file size, which the system reports like a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    audio = torch.from_numpy(noise(60000).T.copy()).float()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(PartitaError, match=r"cannot be written \(File too large\)"):
            write_audio(tmp_path / f"a{suffix}", audio, RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_recent_files_keep_last_within_budget():
    recent = RecentFiles(10, len)
    for key, value in ((("a",), "aaaa"), (("b",), "bbb"), (("a",), "aa"), (("c",), "cccccc")):
        recent.put(key, value)
    assert [recent.get((name,)) for name in "abc"] == ["aa", None, "cccccc"]  # 2 + 3 + 6 exceed the budget by one
    recent.put(("d",), "d" * 20)
    assert recent.get(("d",)) == "d" * 20 and recent.get(("c",)) is None
