"""Encoding files: in batches, while they change, and by several processes."""

import pytest
import torch
from partita.data import encode_corpus, encode_files, write_audio
from partita.data import file_encoding as encoding
from partita.distributed import check_world
from partita_core import Latents, PartitaError


@pytest.mark.parametrize("seconds", [12.0, 0.05])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("change", [(2, 800), (1, 900)])
def test_file_changed_after_its_header_was_read_is_left_out(codec, tmp_path, monkeypatch, seconds, first, change):
    codec.tile_seconds = seconds  # files longer than a tile are streamed
    for name in "abcd":
        write_audio(tmp_path / f"{name}.wav", torch.full((1, 800), 0.1), 8000)
    paths = sorted(tmp_path.glob("*.wav"))
    looked, original = [], encoding.audio_info

    def info(source):
        found = original(source)
        looked.append(source)
        if len(looked) == len(paths):
            write_audio(paths[0 if first else 2], torch.full(change, 0.1), 8000)
        return found

    monkeypatch.setattr(encoding, "audio_info", info)
    found = dict(encode_files(codec, lambda i: paths[i], len(paths)))
    said = str(found.pop(0 if first else 2))
    then, now = (f"{codec.latent_spec.frames(samples)} frames of {n} channels" for n, samples in ((1, 800), change))
    name = paths[0 if first else 2]
    assert said.startswith(f"{name}: has changed") and f"from {then} to {now}" in said
    assert len(found) == 3 and all(isinstance(latents, Latents) for latents in found.values())


def test_files_of_equal_length_are_encoded_in_batches(codec, tones, monkeypatch):
    seen = []
    original = codec.encode
    monkeypatch.setattr(codec, "encode", lambda audio, **kw: seen.append(len(audio)) or original(audio, **kw))
    paths = [*sorted((tones / "train").glob("*.wav")), tones / "none.wav"]
    found = dict(encode_files(codec, lambda i: paths[i], len(paths)))
    assert sorted(found) == list(range(len(paths))) and max(seen) > 1 and sum(seen) == len(paths) - 1
    assert str(found[6]) == f"{tones / 'none.wav'}: no such file"


def test_unconnected_processes_raise(codec, tones, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_world(1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_world(2)
    with pytest.raises(PartitaError, match="2 processes .* 1; .*ACCELERATE_USE_CPU=true"):
        encode_corpus(codec, tones, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("WORLD_SIZE")
    check_world(1)
