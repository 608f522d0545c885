"""Random excerpts of files for statistics and evaluations."""

import pytest
import torch
from partita.data import is_silent, open_dataset, random_piece, random_pieces, write_audio
from partita_core import PartitaError

RATE = 8000
MONO = {"sample_rate": RATE, "mono": True, "silence_db": -60.0}


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def padded(audio: torch.Tensor, before: int) -> torch.Tensor:
    return torch.nn.functional.pad(audio, (before, 0))


def taken(dataset, seconds, samples=800, **changes):
    return list(random_pieces(dataset, seconds=seconds, samples=samples, seed=0, **MONO | changes))


def test_is_silent_ignores_offset():
    assert is_silent(torch.full((2, 100), 0.5), -60.0)
    assert is_silent(0.001 * noise(4000), -60.0) and not is_silent(noise(4000) + 0.5, -60.0)
    assert not is_silent(torch.zeros(1, 100), None)


def test_piece_is_slice_after_leading_silence(tmp_path):
    whole = padded(noise(8000), before=32_000)
    write_audio(tmp_path / "a.wav", whole, RATE)
    dataset, starts = open_dataset(tmp_path), []
    for seed in range(8):
        piece = random_piece(dataset, 0, samples=400, key=(seed,), **MONO)
        match = (whole[0].unfold(0, 400, 1) == piece.audio[0]).all(1).nonzero()
        assert len(match) == 1 and piece.name == "a.wav"
        starts.append(int(match))
    assert all(start > 31_600 for start in starts) and len(set(starts)) == 8
    again = random_piece(dataset, 0, samples=400, key=(3,), **MONO)
    assert torch.equal(again.audio[0], whole[0, starts[3] : starts[3] + 400])


def test_pieces_reach_requested_seconds_from_few_files(tmp_path):
    for name in "ab":
        write_audio(tmp_path / f"{name}.wav", noise(80_000), RATE)
    found = taken(open_dataset(tmp_path), seconds=12.0)
    assert sum(piece.audio.shape[-1] for piece in found) == 12 * RATE
    assert [piece.name for piece in found].count("a.wav") == 60


def test_pieces_are_limited_by_file_lengths(tmp_path):
    write_audio(tmp_path / "a.wav", noise(4000), RATE)
    write_audio(tmp_path / "b.wav", noise(500), RATE)
    found = taken(open_dataset(tmp_path), seconds=100.0)
    assert 4500 <= sum(piece.audio.shape[-1] for piece in found) < 4500 + 800


def test_silent_and_broken_files_are_left_out(tmp_path):
    write_audio(tmp_path / "a.wav", torch.zeros(1, 8000), RATE)
    (tmp_path / "b.wav").write_text("not audio")
    write_audio(tmp_path / "c.wav", noise(4000), RATE)
    assert {piece.name for piece in taken(open_dataset(tmp_path), seconds=1.0)} == {"c.wav"}
    (tmp_path / "c.wav").unlink()
    assert {piece.name for piece in taken(open_dataset(tmp_path), seconds=1.0)} == {"a.wav"}  # no other file is left
    (tmp_path / "a.wav").unlink()
    assert taken(open_dataset(tmp_path), seconds=1.0) == []


def test_silence_of_piece_is_measured_after_downmix(tmp_path):
    half = noise(8000)
    write_audio(tmp_path / "a.wav", torch.cat([half, -half]), RATE)
    dataset = open_dataset(tmp_path)
    assert is_silent(random_piece(dataset, 0, samples=400, key=(0,), **MONO).audio, -60.0)
    assert random_piece(dataset, 0, samples=400, key=(0,), **MONO | {"mono": False}).audio.shape == (2, 400)


def test_unreadable_piece_raises(tmp_path):
    (tmp_path / "b.wav").write_text("not audio")
    with pytest.raises(PartitaError, match=r"b\.wav: is not audio"):
        random_piece(open_dataset(tmp_path), 0, samples=400, key=(0,), **MONO)
