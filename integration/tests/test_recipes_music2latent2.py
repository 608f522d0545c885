import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from partita import recipes
from partita.data import Augmentation, augment
from partita.objectives import TrainState
from partita.recipes.profile import recipe_profile
from partita_core import ChannelLayout, override
from torch._subclasses.fake_tensor import FakeTensorMode

CHUNK = 32_768
NAMES = ("music2latent2_base", "music2latent2_small", "music2latent2_tiny", "codicodec_base", "codicodec_tiny")
MONO = 'model.audio={"sample_rate":44100,"channels":1,"layouts":["mono"]}'


SMALL = [
    f"model.{part}.{change}"
    for part in ("encoder", "decoder")
    for change in ("n_fft=64", "stft_hop=32", "channels=[4,8,16,16]", "blocks=[1,1,1,1]", "layers=1", "heads=1")
] + ["model.encoder.head_dim=16", "model.decoder.head_dim=16", "model.decoder.upsampler_layers=1"]
"""A base at reduced size."""


def built(config):
    with FakeTensorMode():
        return config.model.build()


def parameters(module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("name", NAMES)
def test_chunk_of_743_milliseconds_has_512_latent_values(name):
    """32768 samples; the tiny ones are of half the rate."""
    config = recipes.recipe(name)
    model = built(config)
    spec, half = model.latent_spec, 2 if name.endswith("tiny") else 1
    assert spec.hop == CHUNK // half and spec.frame_rate == Fraction(44_100, CHUNK)
    assert spec.dim * spec.tokens_per_frame == 512 and not spec.ordered and spec.bounded
    assert model.audio_spec.layouts == (ChannelLayout.STEREO,)
    assert 2 * spec.hop / (spec.dim * spec.tokens_per_frame) == 128 / half
    with FakeTensorMode():
        objective = config.objective.build(model=model)
    # Four chunks of a crop are three pairs, so that most edges of chunks lie inside; small batches are of pairs.
    chunks = 2 if name.endswith("tiny") else 4
    assert config.data.crop_samples(44_100 // half, objective.crop_multiple) == chunks * spec.hop


@pytest.mark.parametrize("name", ["music2latent2_base", "music2latent2_small"])
def test_mono_is_one_override(name):
    model = built(override(recipes.recipe(name), [MONO]))
    spec = model.latent_spec
    assert model.audio_spec.channels == 1 and model.audio_spec.layouts == (ChannelLayout.MONO,)
    assert CHUNK / (spec.dim * spec.tokens_per_frame) == 64 and CHUNK / spec.tokens_per_frame == 4096


def test_base_has_the_published_sizes():
    """Patchifier 10.1 M, encoder transformer 32.1 M, upsampler 42.4 M and decoder 64 M, without registers."""
    model = built(recipes.music2latent2_base())
    assert parameters(model) == pytest.approx(147.0, abs=0.1)
    assert parameters(model.encoder.patchifier) == pytest.approx(10.1, abs=0.05)
    assert parameters(model.encoder.transformer) == pytest.approx(31.7, abs=0.1)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("music2latent2_small", 24, 26), ("music2latent2_tiny", 6, 6.5), ("codicodec_tiny", 6, 6.5)],
)
def test_sizes(name, least, most):
    assert least <= parameters(built(recipes.recipe(name))) <= most


def test_small_recipe_differs_from_base_as_documented():
    base, small = recipes.music2latent2_base(), recipes.music2latent2_small()
    assert small.trainer.optimizers == base.trainer.optimizers
    assert small.data == replace(base.data, augmentation=Augmentation())
    assert (small.objective.min_gap, base.objective.min_gap) == (1e-3, 0.0)
    assert (small.model.bottleneck.gain, base.model.bottleneck.gain) == (0.5, None)
    assert (small.model.encoder.norm_decay, base.model.encoder.norm_decay) == (0.99, None)


@pytest.mark.parametrize("name", ["music2latent2_base", "codicodec_base"])
def test_bases_contain_only_published_parts(name):
    """No norm of the latents, a plain tanh, a single loss without a limit of its weight, and unchanged audio."""
    config = recipes.recipe(name)
    model = built(config)
    assert model.encoder.batch_norm is None and model.bottleneck.gain is None and not model.bottleneck.loss_weights
    assert (
        not model.decoder.loss_weights and not config.model.encoder.magnitudes and config.model.encoder.direct is None
    )
    assert (config.model.encoder.tilt, config.model.decoder.tilt) == (0.0, 0.0)
    objective = config.objective
    assert (objective.min_gap, objective.max_gap, objective.uniform_share, objective.pointwise) == (0, None, 0, False)
    audio = 0.3 * torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    seen = augment(audio, model.audio_spec, config.data.augmentation, torch.Generator().manual_seed(1))
    assert torch.equal(seen.audio, audio) and seen.layout == seen.target_layout == ChannelLayout.STEREO


def test_mono_base_is_trained_on_a_random_channel():
    config = override(recipes.music2latent2_base(), [MONO])
    audio = torch.tensor([[0.25], [0.5]]).expand(2, 100)
    draw = torch.Generator().manual_seed(0)
    drawn = [float(augment(audio, config.model.audio, config.data.augmentation, draw).audio[0, 0]) for _ in range(50)]
    assert set(drawn) == {0.25, 0.5}


def test_base_is_trained_as_published():
    trainer = recipes.music2latent2_base().trainer
    radam = trainer.optimizers["generator"]
    assert radam.tag == "optimizer/radam" and radam.betas == (0.9, 0.999) and radam.weight_decay == 0
    assert trainer.ema_decay == 0.9999 and radam.clip == 1.0 and trainer.steps == 800_000
    assert radam.lr_at(TrainState(4_999, 800_000)) == pytest.approx(0.5e-4, rel=1e-3)
    assert radam.lr_at(TrainState(400_000, 800_000)) == pytest.approx((1e-4 + 1e-6) / 2)
    assert radam.lr_at(TrainState(800_000, 800_000)) == pytest.approx(1e-6)


def test_codicodec_has_128_codes_per_chunk():
    config = recipes.codicodec_tiny()
    model = built(config)
    spec = model.latent_spec
    assert spec.codebook_sizes == (11**4,) and spec.tokens_per_frame == 128 and spec.dim == 4
    assert spec.bit_rate == pytest.approx(128 * math.log2(14_641) / (CHUNK / 44_100)) == pytest.approx(2383.8, abs=0.1)
    assert model.decoder.representation.hop == 512 and config.model.decoder.companding == "component"
    assert config.model.encoder.registers == config.model.decoder.registers == 8
    assert config.model.quantizer.rounding_dropout == 0.75


def test_codicodec_base_has_the_published_sizes():
    """Patchifier 10.1 M, U-Net 11.0 M each way, 512 tokens per chunk, 128 latents and 8 registers."""
    config = recipes.codicodec_base()
    model = built(config)
    assert model.decoder.representation.hop == 1024 and model.decoder.chunk_frames == 32
    assert parameters(model.encoder.patchifier) == pytest.approx(10.1, abs=0.05)
    assert parameters(model.decoder.upsampler.depatchifier) == pytest.approx(10.1, abs=0.05)
    assert parameters(model.encoder.transformer) == pytest.approx(32.1, abs=0.4)
    assert parameters(model.decoder.upsampler.transformer) == pytest.approx(32.3, abs=0.6)
    assert parameters(model) == pytest.approx(148.5, rel=0.01)
    assert model.encoder.transformer.positions.shape[-2] == 512 + 128 + 8
    assert config.model.decoder.sampler.steps == 4 and config.trainer.steps == 2_000_000
    faster = override(config, ["model.audio.sample_rate=48000"])
    assert built(faster).latent_spec.frame_rate == Fraction(48_000, CHUNK)


def test_codicodec_base_is_initialized_with_zero_latents():
    model = override(recipes.codicodec_base(), SMALL).model.build().eval()
    audio = 0.3 * torch.randn(2, 2, model.latent_spec.hop, generator=torch.Generator().manual_seed(0))
    assert not model.encode(audio).values.any()


def test_final_step_sizes():
    """A hundredth for CoDiCodec and a thousandth for Music2Latent2: `e_K` is 2 and 3."""
    for name, last in (("codicodec_base", 0.01), ("music2latent2_base", 0.001)):
        objective = override(recipes.recipe(name), SMALL)
        objective = objective.objective.build(model=objective.model.build())
        student, teacher = objective.times(torch.full((1,), 0.5, dtype=torch.float64), 1.0)
        assert float(student - teacher) == pytest.approx(last, rel=1e-9)
        student, teacher = objective.times(torch.full((1,), 0.9, dtype=torch.float64), 0.0)
        assert float(student - teacher) == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize("name", ["codicodec_base", "music2latent2_base"])
def test_bases_train_two_steps(name):
    config = override(recipes.recipe(name), SMALL)
    torch.manual_seed(0)
    objective = config.objective.build(model=config.model.build().train())
    optimizer = config.trainer.optimizers["generator"].build(groups=objective.parameter_groups("generator"))
    audio = 0.1 * torch.randn(2, 2, objective.crop_multiple, generator=torch.Generator().manual_seed(2))
    layout = torch.ones(2, dtype=torch.int64)
    batch = {"audio": audio, "audio_lengths": torch.full((2,), audio.shape[-1])}
    batch |= {"layout": layout, "target_layout": layout}
    before = [parameter.detach().clone() for parameter in objective.parameters()]
    for step in range(2):
        output = objective(batch, TrainState(step, 10), "generator")
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        assert output.total.isfinite() and set(output.losses) == {"consistency"}
    moved = [bool((p != q).any()) for p, q in zip(objective.parameters(), before)]
    assert any(moved) and all(parameter.isfinite().all() for parameter in objective.parameters())


@pytest.mark.slow
def test_profile_without_training(monkeypatch):
    monkeypatch.setattr("partita.model_profile._CHUNKS", 2)
    found = recipe_profile(recipes.music2latent2_tiny())
    assert found["floats_per_second"] == pytest.approx(512 * 44_100 / CHUNK)
    assert found["macs_per_second"]["decoder"] > found["macs_per_second"]["encoder"] > 1e8
