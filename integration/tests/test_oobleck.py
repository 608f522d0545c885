"""The native Oobleck autoencoder has the same output as diffusers' AutoencoderOobleck with the same weights."""

import warnings

import pytest
import torch
from partita import recipes
from partita.interop import oobleck_from_diffusers
from partita.recipes.profile import recipe_profile
from partita_core import ChannelLayout, PartitaError

WIDTHS = {"encoder_hidden_size": 8, "decoder_channels": 4, "decoder_input_channels": 4}
SMALL = {"downsampling_ratios": [2, 6], "channel_multiples": [1, 3], "decoder_channels": 6}
SHAPES = {"mono": {**SMALL, "audio_channels": 1}, "stereo": SMALL, "the strides of Stable Audio Open": {}}


def theirs(**settings):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's older weight norm, which diffusers uses, announces its end
        model = diffusers.AutoencoderOobleck(**{**WIDTHS, **settings})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("alpha", "beta", "weight_g")):  # else all activations, and all gains, were alike
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_converted_weights_give_equal_latents_and_audio(shape):
    reference = theirs(**SHAPES[shape])
    model = oobleck_from_diffusers(reference)
    hop, channels = reference.hop_length, reference.config.audio_channels
    assert model.latent_spec.hop == hop and model.audio_spec.sample_rate == reference.config.sampling_rate
    audio = 0.3 * torch.randn(2, channels, 12 * hop)
    layout = torch.full((2,), int(model.audio_spec.layouts[0]))

    def expect(found: torch.Tensor, wanted: torch.Tensor) -> None:
        assert wanted.std() > 1e-3  # else anything would do
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max().clamp(max=1)))

    expect(model.encoder(audio, layout), reference.encoder(audio))
    posterior = reference.encode(audio).latent_dist
    output = model.bottleneck(model.encoder(audio, layout))
    expect(output.values, posterior.mode())
    torch.testing.assert_close(output.metrics["posterior_std"], posterior.std.mean())
    torch.testing.assert_close(output.losses["kl"], posterior.kl())
    latents = torch.randn(2, model.latent_spec.dim, 9)
    expect(model.decoder(latents, layout), reference.decode(latents).sample)
    expect(model.decode(model.encode(audio)), reference(audio).sample)


@torch.no_grad()
def test_mono_and_mid_side_in_a_stereo_model():
    model = oobleck_from_diffusers(theirs(**SMALL))
    mono = 0.3 * torch.randn(1, 1, 500)
    decoded = model.decode(model.encode(mono))
    assert decoded.shape == mono.shape
    pair = model.decode(model.encode(mono.expand(1, 2, -1)))
    torch.testing.assert_close(decoded, pair.mean(1, keepdim=True))
    mid_side = torch.cat([mono, torch.zeros_like(mono)], dim=1)
    coded = model.decode(model.encode(mid_side, layout=ChannelLayout.MID_SIDE))
    torch.testing.assert_close(coded, torch.stack([pair.mean(1), (pair[:, 0] - pair[:, 1]) / 2], dim=1))


def test_conversion_keeps_the_dtype_and_can_be_saved(tmp_path):
    model = oobleck_from_diffusers(theirs(**SMALL).double())
    assert next(model.parameters()).dtype == torch.float64
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).space_id == model.space_id


def test_conversion_needs_mean_and_scale_per_channel():
    with pytest.raises(PartitaError, match="8 .* 3 latent channels need 6"):
        oobleck_from_diffusers(theirs(**SMALL, decoder_input_channels=3))


@pytest.mark.slow
def test_oobleck_tiny_matches_genae_tiny_in_size_and_training():
    baseline, genae = recipes.oobleck_tiny(), recipes.genae_tiny()
    for part in ("objective", "data", "trainer"):
        assert getattr(baseline, part) == getattr(genae, part)
    sizes = [recipe_profile(run)["parameters"]["total"] for run in (baseline, genae)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_oobleck_base_has_the_published_size():
    found = recipe_profile(recipes.oobleck_base())
    assert found["hop"] == 2048 and found["frame_rate"] == pytest.approx(21.53, abs=0.01)
    assert found["parameters"]["total"] == pytest.approx(156.1e6, rel=0.002)  # diffusers' AutoencoderOobleck()
    assert found["macs_per_second"]["encoder"] == pytest.approx(54.29e9, rel=0.02)
