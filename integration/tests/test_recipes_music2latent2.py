import math
from fractions import Fraction

import pytest
from partita import recipes
from partita.evaluation import bit_rate
from partita.figures import recipe_figures
from partita.training import ConsistencyTrainingConfig, TrainState
from partita_core import ChannelLayout, override
from torch._subclasses.fake_tensor import FakeTensorMode

CHUNK = 32_768
NAMES = ("music2latent2_base", "music2latent2_small", "music2latent2_tiny", "codicodec_tiny")
MONO = 'model.audio={"sample_rate":44100,"channels":1,"layouts":["mono"]}'


def built(config):
    with FakeTensorMode():
        return config.model.build()


def parameters(module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("name", NAMES)
def test_512_numbers_stand_for_a_chunk_of_743_milliseconds(name):
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
def test_mono_is_one_override_and_compresses_64_times_and_4096_in_time(name):
    model = built(override(recipes.recipe(name), [MONO]))
    spec = model.latent_spec
    assert model.audio_spec.channels == 1 and model.audio_spec.layouts == (ChannelLayout.MONO,)
    assert CHUNK / (spec.dim * spec.tokens_per_frame) == 64 and CHUNK / spec.tokens_per_frame == 4096


def test_the_base_is_of_the_size_counted_for_its_successor():
    """Patchifier 10.1 M, encoder transformer 32.1 M, upsampler 42.4 M and decoder 64 M, without its registers."""
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


def test_base_and_small_differ_in_size_only():
    base, small = recipes.music2latent2_base(), recipes.music2latent2_small()
    assert small.objective == base.objective == ConsistencyTrainingConfig() and small.data == base.data
    assert small.trainer.optimizers == base.trainer.optimizers


def test_the_base_is_trained_as_published():
    trainer = recipes.music2latent2_base().trainer
    radam = trainer.optimizers["generator"]
    assert radam.name == "radam" and radam.betas == (0.9, 0.999) and radam.weight_decay == 0
    assert trainer.ema_decay == 0.9999 and radam.clip == 1.0 and trainer.steps == 800_000
    assert radam.lr_at(TrainState(4_999, 800_000)) == pytest.approx(0.5e-4, rel=1e-3)
    assert radam.lr_at(TrainState(400_000, 800_000)) == pytest.approx((1e-4 + 1e-6) / 2)
    assert radam.lr_at(TrainState(800_000, 800_000)) == pytest.approx(1e-6)


def test_codicodec_makes_128_codes_of_a_chunk():
    config = recipes.codicodec_tiny()
    model = built(config)
    spec = model.latent_spec
    assert spec.codebook_sizes == (11**4,) and spec.tokens_per_frame == 128 and spec.dim == 4
    assert bit_rate(spec) == pytest.approx(128 * math.log2(14_641) / (CHUNK / 44_100)) == pytest.approx(2383.8, abs=0.1)
    assert model.decoder.representation.hop == 512 and config.model.decoder.companding == "component"
    assert config.model.encoder.registers == config.model.decoder.registers == 8
    assert config.model.quantizer.rounding_dropout == 0.75


def test_figures_are_known_without_training(monkeypatch):
    monkeypatch.setattr("partita.figures._CHUNKS", 2)
    found = recipe_figures(recipes.music2latent2_tiny().model)
    assert found["numbers_per_second"] == pytest.approx(512 * 44_100 / CHUNK)
    assert found["macs_per_second"]["decoder"] > found["macs_per_second"]["encoder"] > 1e8
