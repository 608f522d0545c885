"""Files whose latents overflow are left out and reported, without affecting their neighbors."""

import warnings

import numpy as np
import pytest
import soundfile
import torch
from partita.data import CorpusSpec, encode_corpus, encode_source, open_dataset, stored_latents
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, Latents, LatentSpec, PartitaError, lookup


@pytest.fixture
def codec(tmp_path):
    """A codec whose latents overflow for audio far beyond full scale."""
    encoder, bottleneck, decoder = (
        lookup(tag).example() for tag in ("encoder/genae", "bottleneck/identity", "decoder/genae")
    )
    audio = AudioSpec(8000, layouts=("mono", "stereo", "mid_side"))
    AutoencoderConfig(audio, 4, encoder, bottleneck, decoder).build().save_pretrained(tmp_path / "model")
    model = Autoencoder.from_pretrained(tmp_path / "model")
    model.encoder.head.parametrizations.weight.original0.data.mul_(1e32)
    return model


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, peak in {"a": 0.1, "b": 2e9, "c": 0.2}.items():
        samples = (peak * np.random.default_rng(0).uniform(-1, 1, 160)).astype(np.float32)
        soundfile.write(folder / f"{name}.wav", samples, 8000, subtype="FLOAT")
    return folder


def test_encode_source_of_overflowing_latents_raises(codec, files):
    with pytest.raises(PartitaError, match=r"b\.wav: .* not finite"):
        encode_source(codec, files / "b.wav")
    encode_source(codec, files / "a.wav").check()


def test_corpus_leaves_out_overflowing_files(codec, files, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    done = encode_corpus(codec, files, tmp_path / "corpus")
    assert (done.files, done.encoded, len(done.broken)) == (3, 2, 1) and "b.wav: " in done.broken[0]
    rows = open_dataset(tmp_path / "corpus", "train")
    assert [row["file_name"] for row in rows] == ["a.wav", "c.wav"]
    for latents in stored_latents(rows):
        latents.check()


def test_pack_beyond_float16_raises():
    spec = CorpusSpec(
        latent=LatentSpec(1, 8000, 16), space_id=None, codes_id=None, dtype="float16", codes_dtype=None, gain=False
    )

    def latents(value):
        return Latents(torch.full((1, 1, 1), value), None, torch.tensor([9]), torch.tensor([0]), spec.latent)

    assert spec.latents(spec.pack(latents(6e4), "x.wav")).values.item() == pytest.approx(6e4, rel=1e-3)
    with (
        warnings.catch_warnings(),
        pytest.raises(PartitaError, match="x.wav: some of the stored latents are not finite"),
    ):
        warnings.simplefilter("error")
        spec.pack(latents(7e4), "x.wav")
