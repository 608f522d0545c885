"""Autoencoders and `Codec.encode` and `decode`, beyond the conformance suite."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from partita_core import (
    AudioSpec,
    Autoencoder,
    ChannelLayout,
    PartitaError,
    StreamDecoder,
    convert,
)
from partita_testing.dummies import (
    CumulativeConfig,
    DenoisingConfig,
    NoisyConfig,
    RoundingConfig,
    StridedConfig,
    TransposedConfig,
    autoencoder,
    blocks,
)

MONO, STEREO, MID_SIDE = ChannelLayout


def noise(batch=2, channels=2, samples=50):
    return 0.3 * torch.randn(batch, channels, samples)


# ------------------------------------------------------------------ parts that do not fit


def parts(**changes):
    spec = AudioSpec(8000, 2, tuple(ChannelLayout))
    codec = autoencoder()
    built = {
        "encoder": codec.encoder,
        "bottleneck": codec.bottleneck,
        "decoder": codec.decoder,
        "quantizer": None,
    }
    builders = {
        "encoder": lambda config, dim: config.build(out_dim=dim, audio_spec=spec),
        "bottleneck": lambda config, dim: config.build(dim=dim),
        "quantizer": lambda config, dim: config.build(dim=dim),
        "decoder": lambda config, dim: config.build(latent_spec=replace(codec.latent_spec, dim=dim), audio_spec=spec),
    }
    return built | {name: builders[name](*change) for name, change in changes.items()}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder": (StridedConfig(), 3)}, "encoder's out_dim is 3.*bottleneck's in_dim is 4"),
        ({"decoder": (TransposedConfig(), 5)}, "the bottleneck's expanded_dim is 4, the decoder's in_dim is 5"),
        ({"quantizer": (RoundingConfig(), 6)}, "quantizer's dim is 6.* 4"),
        ({"encoder": (StridedConfig(2), 4)}, "encoder's tokens_per_frame is 2.*decoder's tokens_per_frame is 1"),
        (
            {"bottleneck": (RoundingConfig(), 4), "quantizer": (RoundingConfig(), 4)},
            "4 levels of codes already",
        ),
    ],
)
def test_parts_that_do_not_fit_raise(changes, message):
    with pytest.raises(PartitaError, match=message):
        Autoencoder(**parts(**changes))


def test_different_hops_raise_with_both_values():
    fitting = parts()
    fitting["decoder"].hop = 8
    with pytest.raises(PartitaError, match="the encoder's hop is 16, the decoder's hop is 8"):
        Autoencoder(**fitting)


def test_context_on_unordered_tokens_raises():
    fitting = parts()
    fitting["encoder"].ordered = False
    fitting["bottleneck"].context = (1, 0)
    with pytest.raises(PartitaError, match=r"NoisyBottleneck .*\(1, 0\)"):
        Autoencoder(**fitting)


def test_specs_are_derived_from_parts():
    codec = autoencoder(encoder=StridedConfig(2), quantizer=RoundingConfig(7))
    spec = codec.latent_spec
    assert (spec.dim, spec.sample_rate, spec.hop, spec.tokens_per_frame) == (4, 8000, 16, 2)
    assert (spec.ordered, spec.codebook_sizes, spec.bounded) == (False, (7,) * 4, True)
    assert (codec.encode_context, codec.decode_context) == ((1, 1), (1, 1))
    codec = autoencoder(encoder=CumulativeConfig(), bottleneck=RoundingConfig())
    assert codec.encode_context == (None, None) and not codec.latent_spec.bounded


# ------------------------------------------------------------------ one path


@pytest.mark.parametrize("changes", [{}, {"bottleneck": RoundingConfig()}, {"quantizer": RoundingConfig()}])
def test_training_path_equals_encode_and_decode(changes):
    codec = autoencoder(**changes)
    audio, layout = noise(2, 2, 64), torch.tensor([1, 2])
    reconstruction, output = codec(audio, layout)
    latents = codec.encode(audio, layout=[STEREO, MID_SIDE])
    torch.testing.assert_close(latents.values, output.values)
    torch.testing.assert_close(codec.decode(latents), reconstruction)


def test_target_layout_reaches_the_decoder():
    codec = autoencoder()
    audio, layout = noise(1, 2, 64), torch.tensor([1])
    other, _ = codec(audio, layout, torch.tensor([2]))
    latents = codec.encode(audio)
    torch.testing.assert_close(codec.decode(latents, layout="mid_side"), other)
    assert not torch.allclose(other, codec.decode(latents))


def test_decoder_input_is_expanded():
    codec = autoencoder()
    latents = codec.encode(noise())
    plain = codec.decode(latents)
    codec.bottleneck.expand = lambda values: 3 * values
    assert not torch.allclose(codec.decode(latents), plain)
    scaled = codec.decode(replace(latents, values=latents.values / 3))
    torch.testing.assert_close(scaled, plain)


def test_attached_quantizer_keeps_values():
    plain, attached = autoencoder(), autoencoder(quantizer=RoundingConfig())
    audio = noise()
    before, after = plain.encode(audio), attached.encode(audio)
    assert torch.equal(before.values, after.values) and before.codes is None
    assert after.space_id == before.space_id and after.codes_id not in (None, after.space_id)
    assert torch.equal(attached.decode(before), plain.decode(before))
    assert not torch.allclose(attached.decode(after.only_codes()), attached.decode(after))
    assert torch.equal(attached.decode(replace(after, codes=torch.zeros_like(after.codes))), plain.decode(before))


def test_fewer_levels_of_a_quantizing_bottleneck_change_values():
    codec = autoencoder(bottleneck=RoundingConfig())
    latents = codec.encode(noise(), num_quantizers=2)
    assert not latents.values[:, 2:].any() and latents.values[:, :2].any()
    assert (latents.codes[:, 2:] == -1).all()
    assert torch.equal(codec.decode(latents), codec.decode(latents.only_codes()))


def test_quantizers_quantize_in_training_unless_they_are_told_not_to():
    codec = autoencoder(bottleneck=RoundingConfig())
    audio, layout = noise(2, 2, 64), torch.tensor([1, 2])
    hidden = codec.encoder(audio, layout)
    for call in (codec, codec.own_losses):
        rounded, plain = (call(audio, layout, **settings) for settings in ({}, {"quantize": False}))
        if call is codec:
            assert not rounded[0].equal(plain[0])
            rounded, plain = rounded[1], plain[1]
        assert plain.values.equal(hidden) and rounded.values.equal(codec.bottleneck(hidden).values)
        assert not rounded.values.equal(plain.values)


def test_codes_without_a_quantizer_raise():
    codec = autoencoder()
    latents = codec.encode(noise())
    codes = torch.zeros(2, 4, latents.values.shape[-1], dtype=torch.int64)
    with pytest.raises(PartitaError, match="Autoencoder has no quantizer"):
        codec.decode(replace(latents, values=None, codes=codes))
    with pytest.raises(PartitaError, match="num_quantizers is 1; this model has 0 levels of codes"):
        codec.encode(noise(), num_quantizers=1)


# ------------------------------------------------------------------ layouts at the door


@pytest.mark.parametrize("channels, layout", [(1, MONO), (2, STEREO)])
def test_layout_defaults_to_mono_or_stereo(channels, layout):
    latents = autoencoder().encode(noise(2, channels))
    assert latents.layouts() == [layout, layout]


def test_mid_side_audio_is_mid_and_side():
    codec = autoencoder(STEREO)
    audio = noise(1)
    latents = codec.encode(convert(audio, STEREO, MID_SIDE), layout="mid_side")
    torch.testing.assert_close(latents.values, codec.encode(audio).values)
    decoded = codec.decode(latents)
    torch.testing.assert_close(decoded, convert(codec.decode(codec.encode(audio)), STEREO, MID_SIDE))
    torch.testing.assert_close(codec.decode(latents, layout="stereo"), codec.decode(codec.encode(audio)))


def test_stereo_is_decoded_as_mono():
    codec = autoencoder()
    latents = codec.encode(noise(2))
    assert codec.decode(latents, layout="mono").shape[1] == 1
    mixed = codec.decode(latents, layout=["mono", "stereo"])
    assert mixed.shape[1] == 2 and torch.equal(mixed[0, 0], mixed[0, 1])
    assert not torch.equal(mixed[1, 0], mixed[1, 1])


def test_mono_output_is_the_mean_of_channels():
    codec = autoencoder(STEREO)
    audio = noise(1, 1)
    decoded = codec.decode(codec.encode(audio))
    pair = codec.decode(codec.encode(audio.expand(1, 2, -1)))
    torch.testing.assert_close(decoded, pair.mean(1, keepdim=True))


def test_samples_after_the_end_are_ignored():
    codec, audio = autoencoder(), noise()
    louder = audio.clone()
    louder[:, :, 30:] += 5
    first, second = (codec.encode(x, lengths=[30, 20]) for x in (audio, louder))
    assert torch.equal(first.values, second.values)


@pytest.mark.parametrize("lengths", [torch.tensor([30, 20]), [30, 20], (30, 20)])
def test_lengths_are_accepted_in_any_form(lengths):
    latents = autoencoder().encode(noise(), lengths=lengths)
    assert latents.audio_lengths.tolist() == [30, 20] and latents.audio_lengths.dtype == torch.int64


@pytest.mark.parametrize(
    "audio, message",
    [
        (torch.zeros(2, 50), r"audio is \(2, 50\) torch.float32.* \(batch, channels, samples\)"),
        (torch.zeros(1, 2, 50, dtype=torch.int16), "floating"),
        (torch.zeros(0, 2, 50), "and at least one item"),
    ],
)
def test_invalid_audio_raises(audio, message):
    with pytest.raises(PartitaError, match=message):
        autoencoder().encode(audio)


def test_wrong_number_of_seeds_raises():
    codec = autoencoder()
    with pytest.raises(PartitaError, match="3 seeds for 2 items"):
        codec.decode(codec.encode(noise()), seed=[1, 2, 3])


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 10**20, [0, 10**20]])
def test_seeds_beyond_64_bits_raise(seed):
    codec = autoencoder()
    with pytest.raises(PartitaError, match="seed is .*integer from"):
        codec.decode(codec.encode(noise()), seed=seed)
    with pytest.raises(PartitaError, match="seed is .*integer from"):
        StreamDecoder(codec, layout="stereo", seed=seed)


# ------------------------------------------------------------------ precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_model_returns_float32(dtype):
    codec = autoencoder().to(dtype)
    latents = codec.encode(noise())
    decoded = codec.decode(latents)
    assert decoded.dtype == torch.float32
    reference = autoencoder()
    expected = reference.decode(reference.encode(noise()))
    assert decoded.shape == expected.shape and decoded.isfinite().all()


def test_audio_of_other_dtypes_is_accepted():
    codec, audio = autoencoder(), noise().double()
    assert torch.equal(codec.encode(audio).values, codec.encode(audio.float()).values)


# ------------------------------------------------------------------ names


def test_space_id_depends_on_encoder_and_bottleneck():
    codec = autoencoder(quantizer=RoundingConfig())
    space, codes = codec.space_id, codec.codes_id
    same = autoencoder(quantizer=RoundingConfig())
    with torch.no_grad():
        same.decoder.layout.weight.add_(1)
    assert (same.space_id, same.codes_id) == (space, codes)
    for part in ("encoder", "bottleneck"):
        other = autoencoder(quantizer=RoundingConfig())
        with torch.no_grad():
            next(getattr(other, part).parameters()).add_(1)
        assert other.space_id != space and other.codes_id != codes
    finer = autoencoder(quantizer=RoundingConfig(7))
    assert finer.space_id == space and finer.codes_id != codes
    assert autoencoder(bottleneck=NoisyConfig(noise=0.2)).space_id != space  # the Config enters the hash


def test_fine_tuned_decoder_accepts_stored_latents():
    codec, tuned = autoencoder(), autoencoder(decoder=DenoisingConfig())
    latents = codec.encode(noise())
    assert tuned.decode(latents).shape == (2, 2, 50)


def test_space_id_is_not_cached_in_training():
    codec = autoencoder()
    before = codec.space_id
    codec.train()
    assert codec.space_id == before
    with torch.no_grad():
        codec.bottleneck.gain.add_(1)
    during = codec.space_id
    assert during != before
    assert codec.eval().space_id == during


def test_optimize_keeps_results_and_ids():
    codec, plain = autoencoder(quantizer=RoundingConfig()), autoencoder(quantizer=RoundingConfig())
    names = plain.space_id, plain.codes_id
    assert codec.train().optimize() is codec and not codec.training
    assert (codec.space_id, codec.codes_id) == names
    assert not any(hasattr(module, "parametrizations") for module in codec.modules())
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    audio = noise()
    latents = codec.encode(audio)
    torch.testing.assert_close(latents.values, plain.encode(audio).values, rtol=0, atol=1e-5)
    torch.testing.assert_close(codec.decode(latents), plain.decode(latents), rtol=0, atol=1e-5)
    with pytest.raises(PartitaError, match="optimized model.*before optimize"):
        codec.save_pretrained("nowhere")


def test_optimizing_a_copy_does_not_change_the_original():
    """torch's removal of weight norm would change the original of a copy as well."""
    codec, audio = autoencoder(), noise()
    before = codec.encode(audio).values
    copy = deepcopy(codec).optimize()
    assert torch.equal(codec.encode(audio).values, before)
    torch.testing.assert_close(copy.encode(audio).values, before, rtol=0, atol=1e-6)
    assert type(copy.encoder.conv) is torch.nn.Conv1d and codec.train().encoder.conv.weight.requires_grad


def test_optimize_for_bf16_keeps_ids_and_latent_precision():
    codec, plain = autoencoder(quantizer=RoundingConfig()), autoencoder(quantizer=RoundingConfig())
    codec.optimize(precision="bf16")
    assert (codec.space_id, codec.codes_id) == (plain.space_id, plain.codes_id)
    halves = {p.dtype for part in (codec.encoder, codec.decoder) for p in part.parameters()}
    assert halves == {torch.bfloat16} and all(p.dtype == torch.float32 for p in codec.bottleneck.parameters())
    audio = noise()
    expected, latents = plain.encode(audio), codec.encode(audio)
    error = (latents.values - expected.values).square().mean() / expected.values.square().mean()
    assert latents.values.dtype == torch.float32 and 0 < error < 1e-3
    decoded = codec.decode(expected)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, plain.decode(expected), rtol=0, atol=0.05)
    streamed = StreamDecoder(codec, layout="stereo").push(expected[0], last=True)
    torch.testing.assert_close(streamed, decoded[:1], rtol=0, atol=1e-2)


def test_compiling_a_codec_without_parts_raises():
    with pytest.raises(PartitaError, match="BlockCodec has no parts"):
        blocks().optimize(compile=True)


def test_tile_is_shared_by_the_batch():
    """Memory does not grow with the batch: items of a batch get shorter tiles than a single one."""
    codec, seen = autoencoder(), []
    codec.encoder.register_forward_hook(lambda module, args, hidden: seen.append(hidden.shape[0] * hidden.shape[-1]))
    codec.tile_seconds = 12 * codec.latent_spec.hop / codec.audio_spec.sample_rate
    codec.encode(noise(1, samples=40 * codec.latent_spec.hop))
    alone = max(seen)
    seen.clear()
    codec.encode(noise(4, samples=40 * codec.latent_spec.hop))
    context = 2 * 4
    assert alone == 12 + 2 and max(seen) <= 12 + context


def test_tile_is_the_smaller_one_of_both_parts():
    """A wide decoder needs shorter tiles, which then reduce the memory of encoding too."""
    codec = autoencoder()
    assert codec.tile_seconds == 30.0
    codec.decoder.tile_seconds = 12 * codec.latent_spec.hop / codec.audio_spec.sample_rate
    codec = Autoencoder(codec.encoder, codec.bottleneck, codec.decoder).eval()
    seen = []
    codec.decoder.register_forward_hook(lambda module, args, audio: seen.append(audio.shape[-1] // codec.decoder.hop))
    codec.decode(codec.encode(noise(1, samples=40 * codec.latent_spec.hop)))
    assert codec.tile_frames == 12 and 12 <= max(seen) <= 12 + 2 * 4
