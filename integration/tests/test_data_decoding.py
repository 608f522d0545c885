from dataclasses import replace

import pytest
import soundfile
import torch
from partita.data import decode_pieces, write_audio
from partita.recipes import genae_tiny
from partita_core import PartitaError, UnboundedError, measure_latents


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    codec = genae_tiny().model.build().eval()
    codec.tile_seconds = 1.0
    return codec


@pytest.fixture(scope="module")
def latents(codec):
    return codec.encode(0.1 * torch.randn(1, 2, 200_000, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "layout", [None, *(pytest.param(name, marks=pytest.mark.slow) for name in ("mono", "mid_side"))]
)
def test_decoded_pieces_equal_full_decode(codec, latents, layout):
    pieces = list(decode_pieces(codec, latents, layout=layout))
    assert len(pieces) > 3 and max(piece.shape[-1] for piece in pieces) < 3 * 44_100
    joined, whole = torch.cat(pieces, dim=-1), codec.decode(latents, layout=layout)[0]
    assert joined.shape == whole.shape == ((1 if layout == "mono" else 2), 200_000)
    assert (joined - whole).abs().max() < 1e-4 * whole.std()
    measured = replace(latents, spec=measure_latents(codec, [latents])).normalize()
    again = torch.cat(list(decode_pieces(codec, measured, layout=layout)), dim=-1)
    assert (again - whole).abs().max() < 1e-4 * whole.std()


def test_short_latents_are_decoded_in_one_piece(codec):
    latents = codec.encode(torch.rand(1, 1, 30_000) - 0.5)
    (piece,) = decode_pieces(codec, latents)
    assert torch.equal(piece, codec.decode(latents)[0]) and piece.shape == (1, 30_000)


def test_model_without_finite_context_is_not_tiled(codec, latents, monkeypatch):
    def refuse(*args, **kwargs):
        raise UnboundedError("it sees all")

    monkeypatch.setattr(codec, "decode_stream", refuse)
    (piece,) = decode_pieces(codec, latents)
    assert piece.shape == (2, 200_000)


def test_several_items_and_foreign_latents_raise(codec, latents):
    two = codec.encode(torch.zeros(2, 1, 5000))
    with pytest.raises(PartitaError, match="these are latents of 2 recordings"):
        next(decode_pieces(codec, two))
    with pytest.raises(PartitaError, match="space_id '0123456789abcdef'"):
        next(decode_pieces(codec, replace(latents, space_id="0123456789abcdef")))


def test_write_audio_takes_pieces_and_is_atomic(tmp_path):
    audio = 0.1 * torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    assert write_audio(tmp_path / "a.wav", iter([audio[:, :1000], audio[:, :0], audio[:, 1000:]]), 8000) == 5000
    assert torch.equal(torch.from_numpy(soundfile.read(tmp_path / "a.wav", dtype="float32")[0].T), audio)

    def broken():
        yield audio
        raise PartitaError("no more")

    for pieces, said in (
        (broken(), "no more"),
        (iter([audio, audio[:1]]), "cannot be written"),
        (iter([]), "no audio"),
    ):
        with pytest.raises(PartitaError, match=said):
            write_audio(tmp_path / "a.wav", pieces, 8000)
        assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]
        assert soundfile.info(tmp_path / "a.wav").frames == 5000
