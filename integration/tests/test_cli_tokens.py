"""`partita tokenize` and `partita detokenize`, on a model of a few thousand parameters with random codebooks."""

import numpy as np
import pytest
import soundfile
import torch
from partita_core import Autoencoder, override, read_tensors, write_tensors
from partita_quantizers import ResidualVQConfig, Tokens

RATE, HOP = 8000, 24


def save_quantized(backbone, folder, *, size, seed):
    """The model `backbone` with four levels of random codes."""
    torch.manual_seed(seed)
    quantizer = ResidualVQConfig(num_quantizers=4, codebook_size=size, codebook_dim=None).build(dim=4)
    Autoencoder(backbone.encoder, backbone.bottleneck, backbone.decoder, quantizer).eval().save_pretrained(folder)


@pytest.fixture(scope="module")
def models(config, tmp_path_factory):
    """A folder with `model`, and models with incompatible tokens."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    backbone = config().model.build().eval()
    backbone.save_pretrained(folder / "continuous")
    save_quantized(backbone, folder / "model", size=16, seed=1)
    save_quantized(backbone, folder / "other", size=16, seed=2)
    save_quantized(backbone, folder / "large", size=17, seed=1)
    return folder


def write(path, samples, channels=2):
    audio = np.random.default_rng(samples).standard_normal((samples, channels)) * 0.1
    soundfile.write(path, audio, RATE, subtype="FLOAT")
    return path


def read(path):
    return soundfile.read(path, dtype="float32")[0]  # the header of the file holds the time of writing


# Each number of levels with each size, and each of both with each layout.
@pytest.mark.parametrize(
    ("samples", "channels", "levels", "layout"),
    [
        (samples, channels, levels, ("flat", "delay")[(i + j) % 2])
        for i, (samples, channels) in enumerate([(1, 1), (24, 2), (5000, 2)])
        for j, levels in enumerate([None, 1, 3])
    ],
)
def test_detokenize_equals_decode_of_codes(models, ok, tmp_path, samples, channels, levels, layout):
    file, ids = write(tmp_path / "in.wav", samples, channels), tmp_path / "ids.safetensors"
    some = [] if levels is None else ["--num-quantizers", levels]
    ok("tokenize", models / "model", file, "-o", ids, "--layout", layout, *some)
    ok("detokenize", models / "model", ids, "-o", tmp_path / "a.wav")
    ok("reconstruct", models / "model", file, "-o", tmp_path / "b.wav", "--num-quantizers", levels or 4)
    assert soundfile.info(tmp_path / "a.wav").frames == samples
    assert np.array_equal(read(tmp_path / "a.wav"), read(tmp_path / "b.wav"))


def test_token_file_is_self_describing(models, ok, tmp_path):
    file = write(tmp_path / "in.wav", 1000, 1)
    out, _ = ok("tokenize", models / "model", file, "-o", tmp_path / "ids.safetensors")
    assert f"{4 * 42 + 2} ids (flat) of {3 + 4 * 16}" in out
    tokens = Tokens.load(tmp_path / "ids.safetensors")
    model = Autoencoder.from_pretrained(models / "model")
    audio = torch.from_numpy(soundfile.read(file, dtype="float32")[0])[None, None]
    expected = model.encode(audio)
    assert torch.equal(tokens.to_latents().codes, expected.codes)
    assert tokens.audio_lengths.tolist() == [1000] and tokens.channel_layout.tolist() == [0]
    assert (tokens.spec, tokens.space_id, tokens.codes_id) == (model.latent_spec, model.space_id, model.codes_id)
    assert tokens.space.codebook_sizes == (16,) * 4


def test_detokenize_fewer_levels(models, ok, refused, tmp_path):
    file, ids = write(tmp_path / "in.wav", 1000), tmp_path / "ids.safetensors"
    ok("tokenize", models / "model", file, "-o", ids, "--num-quantizers", 3)
    ok("detokenize", models / "model", ids, "-o", tmp_path / "a.wav", "--num-quantizers", 2)
    ok("reconstruct", models / "model", file, "-o", tmp_path / "b.wav", "--num-quantizers", 2)
    assert np.array_equal(read(tmp_path / "a.wav"), read(tmp_path / "b.wav"))
    line = refused("detokenize", models / "model", ids, "-o", tmp_path / "c.wav", "--num-quantizers", 4)
    assert "num_quantizers is 4; this sequence of ids has 3 levels" in line


def test_invalid_tokenize_arguments(models, refused, tmp_path):
    file, ids = write(tmp_path / "in.wav", 100), tmp_path / "ids.safetensors"
    assert "continuous latents, but tokens need codes" in refused("tokenize", models / "continuous", file, "-o", ids)
    assert "4 levels" in refused("tokenize", models / "model", file, "-o", ids, "--num-quantizers", 5)
    assert "diagonal" in refused("tokenize", models / "model", file, "-o", ids, "--layout", "diagonal")
    assert ".safetensors" in refused("tokenize", models / "model", file, "-o", tmp_path / "ids.wav")
    assert "is a folder" in refused("tokenize", models / "model", tmp_path, "-o", ids)


def test_invalid_detokenize_arguments(models, ok, refused, tmp_path, config):
    file, ids, out = write(tmp_path / "in.wav", 100), tmp_path / "ids.safetensors", tmp_path / "out.wav"
    ok("tokenize", models / "model", file, "-o", ids)
    ok("encode", models / "model", file, "-o", tmp_path / "z.safetensors")
    override(config().model, ["latent_dim=8", "quantizer=residual"]).build().save_pretrained(tmp_path / "foreign")
    assert "has continuous latents" in refused("detokenize", models / "continuous", ids, "-o", out)
    assert "codes_id" in refused("detokenize", models / "other", ids, "-o", out)
    assert "of codebooks (16, 16, 16, 16)" in refused("detokenize", models / "large", ids, "-o", out)
    assert "of codebooks" in refused("detokenize", tmp_path / "foreign", ids, "-o", out)
    assert "not a token file" in refused("detokenize", models / "model", tmp_path / "z.safetensors", "-o", out)
    assert "no such file" in refused("detokenize", models / "model", tmp_path / "none.safetensors", "-o", out)
    (tmp_path / "cut.safetensors").write_bytes(ids.read_bytes()[:-9])
    assert "damaged" in refused("detokenize", models / "model", tmp_path / "cut.safetensors", "-o", out)
    tensors, metadata = read_tensors(ids)
    tensors["ids"][0, 3] = 5  # an id of level 0 in place of level 2
    write_tensors(tmp_path / "wrong.safetensors", tensors, metadata)
    line = refused("detokenize", models / "model", tmp_path / "wrong.safetensors", "-o", out)
    assert "wrong.safetensors: item 0, position 3: id 5" in line and "level 2 (35..50)" in line
    assert ".wav" in refused("detokenize", models / "model", ids, "-o", tmp_path / "out.flac")
