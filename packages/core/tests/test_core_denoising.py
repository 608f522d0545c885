"""Denoising decoders: batch decoding equals streaming."""

import pytest
import torch
from partita_core import ChannelLayout, NoiseSchedule, PartitaError, StreamDecoder, UnboundedError, measure_latents
from partita_testing._common import random_splits
from partita_testing.dummies import DenoisingConfig, Lapped, OneStep, StridedConfig, autoencoder


def codec_of(tokens=1):
    return autoencoder(encoder=StridedConfig(tokens), decoder=DenoisingConfig())


@torch.no_grad()
def pushed(stream, hidden, splits, unit):
    pieces = hidden.split([unit * size for size in splits], dim=-1)
    return torch.cat([stream.push(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)], dim=-1)


SPLITS = [[11], [1] * 11, [2, 9], [3, 0, 8, 0], *(random_splits(11, seed) for seed in range(4))]


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("tokens", [1, 2])
def test_streamed_equals_batch_exactly(splits, tokens):
    """Integer weights, since rounding of a matrix product depends on how many chunks are conditioned at once."""
    decoder = codec_of(tokens).decoder
    with torch.no_grad():
        decoder.features.weight.mul_(64).round_().div_(64)
        decoder.features.bias.mul_(64).round_().div_(64)
    hidden = torch.randint(-16, 17, (2, 4, 11 * tokens)) / 8
    layout, seeds = torch.tensor([0, 2]), torch.tensor([5, 6])
    with torch.no_grad():
        whole = decoder.generate(hidden, layout, seeds=seeds)
    assert whole.shape == (2, 2, 11 * 16)
    assert torch.equal(pushed(decoder.stream(layout, seeds=seeds), hidden, splits, tokens), whole)


@pytest.mark.parametrize("splits", SPLITS)
def test_streamed_equals_batch(splits):
    decoder = codec_of().decoder.double()
    hidden, layout, seeds = torch.randn(2, 4, 11).double(), torch.tensor([0, 2]), torch.tensor([5, 6])
    with torch.no_grad():
        whole = decoder.generate(hidden, layout, seeds=seeds)
    streamed = pushed(decoder.stream(layout, seeds=seeds, dtype=hidden.dtype), hidden, splits, 1)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-13)


def test_latency_is_the_sum_of_chunk_and_transform():
    stream = codec_of(2).decoder.stream(torch.tensor([1]))
    # Up to three of the four tokens of a chunk are delayed; the sampler and the inverse transform have no delay.
    assert stream.latency == 3 * 8
    given = out = 0
    for i in range(9):
        out += stream.push(torch.randn(1, 4, 2), last=i == 8).shape[-1]
        given += 16
        assert out >= given - stream.latency
    assert out == given


def test_output_depends_on_seed():
    codec = codec_of()
    latents = codec.encode(0.3 * torch.randn(2, 2, 150))
    first = codec.decode(latents, seed=1)
    assert torch.equal(codec.decode(latents, seed=1), first)
    assert torch.equal(codec.decode(latents, seed=[1, 1]), first)
    assert not torch.allclose(codec.decode(latents, seed=2), first)
    mixed = codec.decode(latents, seed=torch.tensor([1, 2]))
    assert torch.equal(mixed[0], first[0]) and not torch.allclose(mixed[1], first[1])


def test_given_sampler_replaces_the_default():
    codec = codec_of()
    latents = codec.encode(0.3 * torch.randn(1, 2, 150))
    assert torch.equal(codec.decode(latents, sampler=OneStep()), codec.decode(latents))
    quieter = codec.decode(latents, sampler=OneStep(sigma=0.1))
    assert not torch.allclose(quieter, codec.decode(latents))
    with pytest.raises(PartitaError, match="'loud' is not a sampler"):
        codec.decode(latents, sampler="loud")


def test_sampler_of_unbounded_latency_decodes_at_the_end():
    codec = codec_of()
    latents = codec.encode(0.3 * torch.randn(1, 2, 150))
    sampler = OneStep(latency=None)
    assert torch.equal(codec.decode(latents, sampler=sampler), codec.decode(latents))
    decoder = StreamDecoder(codec, layout="stereo", sampler=sampler)
    assert decoder.push(latents[0]).shape == (1, 2, 0)


def test_tiled_decoding_equals_full_decoding_exactly():
    codec = codec_of()
    latents = codec.encode(0.3 * torch.randn(1, 2, 16 * 40))
    whole = codec.decode(latents)
    codec.tile_seconds = 0.01
    assert torch.equal(codec.decode(latents), whole)


def test_chunk_that_is_not_a_multiple_of_the_transform_raises():
    decoder = codec_of().decoder
    decoder.representation = Lapped(12)
    with pytest.raises(PartitaError, match="32 samples.* 12"):
        decoder.stream(torch.tensor([1]))


def test_stream_decoder_accepts_normalized_latents():
    codec = codec_of()
    audio = 0.3 * torch.randn(1, 2, 160)
    codec.latent_spec = measure_latents(codec, [codec.encode(audio)])
    latents = codec.encode(audio)
    decoder = StreamDecoder(codec, layout="stereo")
    torch.testing.assert_close(decoder.push(latents.normalize(), last=True), codec.decode(latents), rtol=0, atol=1e-5)


def test_layouts_reach_the_conditioning():
    codec = codec_of()
    latents = codec.encode(0.3 * torch.randn(1, 2, 64))
    as_stereo, as_mid_side = (codec.decode(latents, layout=layout) for layout in ("stereo", "mid_side"))
    assert not torch.allclose(as_stereo, as_mid_side)
    assert codec.decode(latents, layout=ChannelLayout.MONO).shape == (1, 1, 64)


def test_denoising_decoder_can_be_streamed():
    try:
        StreamDecoder(codec_of(), layout="mono")
    except UnboundedError:
        pytest.fail("a denoising decoder can be streamed")


def test_noise_levels_and_times_are_inverse_and_equal_known_values():
    schedule = NoiseSchedule()
    times = {
        0.8: 24.4,
        0.75: 17.5,
        2 / 3: 9.72,
        0.6: 5.84,
        0.5: 2.52,
        0.4: 0.965,
        1 / 3: 0.470,
        0.25: 0.170,
        0.2: 0.085,
    }
    for time, sigma in times.items():
        assert schedule.sigma(time) == pytest.approx(sigma, rel=6e-3)
    assert schedule.sigma(0.0) == pytest.approx(0.002) and schedule.sigma(1.0) == pytest.approx(80)
    levels = schedule.sigma(torch.linspace(0, 1, 9, dtype=torch.float64))
    torch.testing.assert_close(schedule.time(levels), torch.linspace(0, 1, 9, dtype=torch.float64))


def test_noise_levels_out_of_order_raise():
    with pytest.raises(PartitaError, match="sigma_min.* 1.0.* sigma_max.* 0.5"):
        NoiseSchedule(sigma_min=1.0, sigma_max=0.5)
