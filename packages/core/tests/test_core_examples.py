"""Examples in docstrings, run with small models."""

import doctest

import pytest
import torch
from partita_core import Autoencoder, ChannelLayout, Codec, Latents, LatentSpec, Sampler, Stream, StreamDecoder
from partita_testing.dummies import DenoisingConfig, OneStep, autoencoder


def mono_autoencoder() -> Autoencoder:
    return autoencoder(ChannelLayout.MONO)


def codec_and_audio():
    return {"codec": mono_autoencoder(), "audio": 0.1 * torch.randn(2, 1, 8000), "Latents": Latents}


def parts_and_audio():
    model = mono_autoencoder()
    parts = {"encoder": model.encoder, "bottleneck": model.bottleneck, "decoder": model.decoder}
    return parts | {"audio": 0.1 * torch.randn(2, 1, 8000), "Autoencoder": Autoencoder}


def model_and_latents():
    latents, layout = torch.randn(1, 4, 7), torch.tensor([int(ChannelLayout.MONO)])
    return {"model": mono_autoencoder(), "latents": latents, "layout": layout, "torch": torch}


def denoising_codec():
    codec = autoencoder(ChannelLayout.MONO, decoder=DenoisingConfig())
    names = {"OneStep": OneStep, "StreamDecoder": StreamDecoder, "torch": torch}
    return names | {"codec": codec, "latents": codec.encode(0.1 * torch.randn(1, 1, 8000))}


EXAMPLES = {
    Codec: codec_and_audio,
    Latents: codec_and_audio,
    Autoencoder: parts_and_audio,
    Stream: model_and_latents,
    LatentSpec: lambda: {"LatentSpec": LatentSpec},
    Sampler: denoising_codec,
}


@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
def test_example_of_docstring_runs(cls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(cls.__doc__, EXAMPLES[cls](), cls.__name__, None, 0)
    with torch.no_grad():
        results = doctest.DocTestRunner(verbose=False).run(test)
    assert results.attempted >= 3 and not results.failed
