"""Recipes for models on the latents of a codec."""

import pytest
from partita.model_loading import load_model
from partita.recipes import recipe
from partita.training import train
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, PartitaError, override
from partita_decoders import ConsistencyDecoderConfig
from partita_encoders import SummaryEncoderConfig

STEREO = AudioSpec(8000, 2, (ChannelLayout.STEREO,))


def test_unordered_tokens_are_quantized_without_rebottleneck(run, tmp_path):
    """A re-bottleneck has temporal context, which a set of tokens has not."""
    parts = SummaryEncoderConfig.example(), TanhConfig(), ConsistencyDecoderConfig.example()
    AutoencoderConfig(STEREO, 4, *parts).build().eval().save_pretrained(tmp_path / "set")
    assert recipe("vq_tiny", str(tmp_path / "set")).model == recipe("vq_tiny", str(run / "model")).model.quantizer


def test_quantizer_without_networks_is_trained(run, tones, tmp_path):
    """Its optimizer has no parameters; the codebooks are running averages, which move."""
    small = ["model.codebook_size=16", "model.num_quantizers=3", "model.decay=0.5", "data.num_workers=0"]
    config = override(recipe("vq_pocket", str(run / "model")), [*small, "data.crop_seconds=0.2", "trainer.steps=3"])
    train(config, data=tones, output=tmp_path / "vq", progress=False, checkpoint_every=1, keep=9)
    first, last = (load_model(tmp_path / "vq" / "checkpoints" / f"step_0000000{step}") for step in (1, 3))
    for before, after in zip(first.quantizer.levels, last.quantizer.levels, strict=True):
        moved = [name for name, value in after.state_dict().items() if not value.equal(before.state_dict()[name])]
        assert moved and all(value.isfinite().all() for value in after.state_dict().values())


def test_recipe_of_the_other_kind_is_unknown():
    with pytest.raises(PartitaError, match="for the latents of a codec"):
        recipe("genae_tiny", "codec")
    with pytest.raises(PartitaError, match="unknown recipe 'vq_tiny'"):
        recipe("vq_tiny")
