"""Autoencoder of F3: sizes, rates, every bottleneck, and streaming."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from partita import recipes
from partita.objectives import TrainState
from partita_core import Latents, StreamDecoder, StreamEncoder, components, override
from torch._subclasses.fake_tensor import FakeTensorMode

NAMES = ("f3_48khz", "f3_base", "f3_small", "f3_tiny")


def built(config):
    with FakeTensorMode():
        return config.model.build()


def millions(module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return recipes.f3_tiny().model.build().double().eval()


@pytest.mark.parametrize("name", NAMES)
def test_latents_have_64_dimensions_at_25_hz(name):
    config = recipes.recipe(name)
    model = built(config)
    spec = model.latent_spec
    assert spec.dim == 64 and spec.frame_rate == 25
    assert spec.frame_rate / 2 == Fraction(25, 2)  # for the language model, in patches of two
    assert config.data.crop_samples(spec.sample_rate, spec.hop) == 32 * spec.hop == 1.28 * spec.sample_rate
    assert (model.encode_context[1], model.decode_context[1]) == (0, 1)
    assert (config.objective.discriminator is None) == (name == "f3_tiny")


@pytest.mark.parametrize(
    "name, encoder, decoder", [("f3_base", 5.9, 23.4), ("f3_small", 1.5, 5.9), ("f3_48khz", 8.8, 34.7)]
)
def test_published_sizes(name, encoder, decoder):
    """Those of the specification; at 48 kHz stereo, with 64 latent channels instead of 256."""
    model = built(recipes.recipe(name))
    assert millions(model.encoder) == pytest.approx(encoder, rel=0.02)
    assert millions(model.decoder) == pytest.approx(decoder, rel=0.02)


def test_f3_tiny_size():
    assert 1.0 < millions(built(recipes.f3_tiny())) < 1.5


@pytest.mark.parametrize("bottleneck", [tag.split("/")[1] for tag in components("bottleneck/*")])
def test_every_bottleneck_is_one_override(bottleneck):
    config = override(recipes.f3_tiny(), [f"model.bottleneck={bottleneck}"])
    model = built(config)
    assert model.latent_spec.dim == 64 and type(model.bottleneck.config).__module__.endswith(bottleneck)


def test_f3_training_step():
    config = recipes.f3_tiny()
    torch.manual_seed(0)
    objective = config.objective.build(model=config.model.build().train())
    layout = torch.zeros(2, dtype=torch.int64)
    batch = {"audio": 0.1 * torch.randn(2, 1, 10_240), "audio_lengths": torch.full((2,), 10_240)}
    batch |= {"layout": layout, "target_layout": layout}
    out = objective(batch, TrainState(0, 10), "generator")
    out.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.model.parameters())
    # The latents have a fixed scale, plus noise of a random level.
    assert 1 < float(out.metrics["latent_rms"]) < 2**0.5


@torch.no_grad()
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_streaming_equals_decoding_at_once(tiny, dtype, tolerance):
    model = tiny.to(dtype)
    generator = torch.Generator().manual_seed(1)
    audio = 0.1 * torch.randn(1, 1, 20 * 640 + 123, generator=generator, dtype=torch.float64).to(dtype)
    latents = model.encode(audio)
    decoded = model.decode(latents)
    assert latents.values.shape == (1, 64, 21) and decoded.shape == audio.shape

    encoder, decoder = StreamEncoder(model, layout="mono", width=1), StreamDecoder(model, layout="mono", width=2)
    assert encoder.latency == 639 and decoder.latency == 640
    values, pieces, pushed = [], [], 0
    sizes = [1000, 1, 639, 5000, 0]
    blocks = audio.split([*sizes, audio.shape[-1] - sum(sizes)], dim=-1)
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        new = encoder.push(block, last=last)
        pieces.append(decoder.push(new, last=last))
        values.append(new.values)
        pushed += block.shape[-1]
        produced = sum(piece.shape[-1] for piece in pieces)
        assert produced == (pushed if last else max(0, pushed // 640 - 1) * 640)
    for got, expected in ((torch.cat(values, dim=-1), latents.values), (torch.cat(pieces, dim=-1), decoded)):
        error = (got - expected).abs().max() / expected.square().mean().sqrt()
        assert float(error) < tolerance


@torch.no_grad()
def test_tiles_equal_encoding_at_once(tiny):
    model = tiny.to(torch.float64)
    audio = 0.1 * torch.randn(2, 1, 30 * 640, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = model.encode(audio)
    heard = model.decode(whole)
    seconds, model.tile_seconds = model.tile_seconds, 0.2
    try:
        tiled = model.encode(audio)
        torch.testing.assert_close(tiled.values, whole.values, rtol=0, atol=1e-9)
        torch.testing.assert_close(model.decode(tiled), heard, rtol=0, atol=1e-9 * float(heard.square().mean().sqrt()))
    finally:
        model.tile_seconds = seconds


@torch.no_grad()
def test_latents_have_unit_scale_at_every_level(tiny):
    """Each frame has mean 0 and norm 8, at +30 and at -30 dB; digital silence is finite and not louder."""
    model = tiny.to(torch.float64)
    noise = torch.randn(1, 1, 12 * 640, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for gain in (0.1 * 10**1.5, 0.1, 0.1 * 10**-1.5):
        values = model.encode(gain * noise).values
        assert float(values.mean(1).abs().max()) < 1e-5
        hidden = model.encoder(gain * noise, torch.zeros(1, dtype=torch.int64)).std(dim=1, correction=0)
        torch.testing.assert_close(values.norm(dim=1), 8 * hidden / (hidden + 1e-5), rtol=1e-9, atol=0)
        assert 7.9 < float(values.norm(dim=1).min()) and float(values.norm(dim=1).max()) < 8
    silent = model.encode(torch.zeros_like(noise))
    assert silent.values.isfinite().all() and float(silent.values.norm(dim=1).max()) <= 8
    assert model.decode(silent).isfinite().all()
    assert isinstance(silent, Latents) and torch.equal(model.encode(noise).values, model.encode(noise).values)


def test_48_khz_model_encodes_mono_as_a_pair():
    config = recipes.f3_48khz()
    small = {"width": 2}
    torch.manual_seed(0)
    model = replace(
        config.model,
        encoder=replace(config.model.encoder, **small),
        decoder=replace(config.model.decoder, **small),
    ).build()
    model.eval()
    mono = 0.1 * torch.randn(1, 1, 4 * 1920 + 7, generator=torch.Generator().manual_seed(4))
    latents = model.encode(mono)
    pair = model.encode(mono.expand(1, 2, -1))
    torch.testing.assert_close(latents.values, pair.values, rtol=0, atol=1e-6)
    assert model.decode(latents).shape == mono.shape
