"""Recipes for models on the latents of a codec."""

import pytest
from partita.recipes import recipe
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import ConsistencyDecoderConfig
from partita_encoders import SummaryEncoderConfig

STEREO = AudioSpec(8000, 2, (ChannelLayout.STEREO,))


def test_unordered_tokens_are_quantized_without_rebottleneck(run, tmp_path):
    """A re-bottleneck has temporal context, which a set of tokens has not."""
    parts = SummaryEncoderConfig.example(), TanhConfig(), ConsistencyDecoderConfig.example()
    AutoencoderConfig(STEREO, 4, *parts).build().eval().save_pretrained(tmp_path / "set")
    assert recipe("vq_tiny", str(tmp_path / "set")).model == recipe("vq_tiny", str(run / "model")).model.quantizer


def test_recipe_of_the_other_kind_is_unknown():
    with pytest.raises(PartitaError, match="for the latents of a codec"):
        recipe("genae_tiny", "codec")
    with pytest.raises(PartitaError, match="unknown recipe 'vq_tiny'"):
        recipe("vq_tiny")
