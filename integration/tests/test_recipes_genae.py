import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from partita import recipes
from partita_core import ChannelLayout
from torch._subclasses.fake_tensor import FakeTensorMode

MINUTE = 60 * 44_100
LAYOUTS = [ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE]


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name.startswith("genae")])
def test_recipes_build(name):
    config = recipes.recipe(name)
    with FakeTensorMode():
        model = config.model.build()
    crop = config.data.crop_samples(model.audio_spec.sample_rate, model.latent_spec.hop)
    assert crop == pytest.approx(config.data.crop_seconds * model.audio_spec.sample_rate, rel=0.05)


@pytest.mark.slow
def test_genae_36hz(ok):
    found = json.loads(ok("info", "genae_36hz", "--json")[0])
    assert found["hop"] == 1200 and found["frame_rate"] == 36.75 and found["frames_60s"] == 2205
    assert found["layouts"] == ["mono", "stereo", "mid_side"] and found["latent_dim"] == 64
    config, base = recipes.genae_36hz(), recipes.genae_base()
    with FakeTensorMode():
        model = config.model.build()
    assert model.encoder.mel.hop == 120
    assert model.latent_spec.frame_rate == Fraction(147, 4)
    model = replace(
        config.model,
        encoder=replace(config.model.encoder, strides=base.model.encoder.strides),
        decoder=replace(config.model.decoder, strides=base.model.decoder.strides),
    )
    assert replace(config, model=model) == base  # but for the strides nothing differs


@pytest.mark.slow
def test_genae_small(ok):
    found = json.loads(ok("info", "genae_small", "--json")[0])
    assert found["hop"] == 3360 and found["latent_dim"] == 64 and found["frames_60s"] == 788
    assert 10e6 <= found["parameters"]["total"] <= 15e6
    config = recipes.genae_small()
    assert 1.5 <= config.data.crop_seconds <= 2 and config.trainer.precision == "bf16"
    assert config.objective == recipes.genae_base().objective


def test_genae_base_has_788_frames_per_minute_in_every_layout():
    model_config = recipes.genae_base().model
    with FakeTensorMode(), torch.no_grad():
        model = model_config.build().eval()
        frames = model.latent_spec.frames(MINUTE)
        audio = torch.zeros(3, 2, frames * model.latent_spec.hop)
        values, codes = model.encode_frames(audio, torch.tensor([int(layout) for layout in LAYOUTS]), None)
        assert values.shape == (3, 64, 788) and codes is None
        restored = model.decode_frames(values, None, torch.tensor([0, 1, 2]), None, None)
        assert restored.shape == audio.shape
    # 1.64 times fewer than with a hop of 2048, Stable Audio Open's.
    assert round(replace(model.latent_spec, hop=2048).frames(MINUTE) / frames, 2) == 1.64


def test_genae_base_encodes_and_decodes_a_minute():
    """The same through `encode` and `decode`, with the strides of `genae_base` and tiny widths."""
    config = recipes.genae_base().model
    tiny = {"channels": (4,) * 5, "attention_dim": 8, "attention_layers": 1, "heads": 1, "head_dim": 8}
    tiny |= {"dilations": (1,)}
    torch.manual_seed(0)
    model = replace(
        config, encoder=replace(config.encoder, mel_stage=0, **tiny), decoder=replace(config.decoder, **tiny)
    ).build()
    model.eval()
    audio = 0.1 * torch.randn(3, 2, MINUTE, generator=torch.Generator().manual_seed(0))
    latents = model.encode(audio, layout=LAYOUTS)
    assert latents.frames.tolist() == [788] * 3 and latents.values.shape == (3, 64, 788)
    assert model.decode(latents).shape == (3, 2, MINUTE)
