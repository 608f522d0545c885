"""Denoising about a linear mean: exact at the smallest level, continuous over chunks, equal in streams."""

from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, LatentSpec, PartitaError
from partita_decoders import (
    Autoregressive,
    ConsistencyDecoderConfig,
    Independent,
    LinearMeanDecoder,
    LinearPathDecoderConfig,
    Overlap,
    Parallel,
    TwoStep,
)
from partita_testing._common import random_splits

NETWORK = replace(
    ConsistencyDecoderConfig.example(),
    registers=0,
    direct=4,
    local=True,
    latents_in_decoder=False,
    envelope_weight=None,
)
# Chunks of 48 samples are four frames of latents.
DIM, HOP, UNIT, CHUNK = 8, 12, 4, 48
LAYOUT = torch.zeros(2, dtype=torch.int64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(perturbed=True, dtype=torch.float64, level="channel", **changed):
    network = replace(NETWORK, **{"envelope_weight": 1.0, "refines": True} | changed)
    config = LinearPathDecoderConfig(network, numbers=5, level=level)
    decoder = config.build(latent_spec=LatentSpec(DIM, 8000, HOP), audio_spec=AudioSpec(8000)).to(dtype).eval()
    with torch.no_grad():
        for parameter in decoder.parameters() if perturbed else ():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def latents(frames, dtype=torch.float64):
    return torch.randn(2, DIM, frames, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_smallest_level_returns_the_input_bit_for_bit(dtype):
    decoder = build(dtype=dtype)
    features = decoder.condition(latents(2 * UNIT, dtype), LAYOUT)
    x = torch.randn(2, 2, 12, 16, dtype=dtype)
    lowest, high = torch.full((2, 2), 0.002, dtype=dtype), torch.ones(2, 2, dtype=dtype)
    assert torch.equal(decoder(x, lowest, features), x)
    mixed = decoder(x, torch.cat([lowest[:, :1], high[:, 1:]], dim=1), features)
    assert torch.equal(mixed[..., :8], x[..., :8])
    assert not (mixed[..., 8:] == x[..., 8:]).any()


@torch.no_grad()
def test_denoiser_shifts_with_the_mean():
    decoder = build(refines=False)
    *own, mean = decoder.condition(latents(2 * UNIT), LAYOUT)
    x, sigma, shift = torch.randn(2, 2, 12, 16).double(), torch.rand(2, 2).double() + 0.1, torch.randn(2, 2, 2, 12, 8)
    moved = decoder(x + shift.double().movedim(1, 3).flatten(3), sigma, (*own, mean + shift))
    expected = decoder(x, sigma, (*own, mean)) + shift.movedim(1, 3).flatten(3)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "sampler", [TwoStep(), Autoregressive(steps=3, new_noise=False), Overlap(), Parallel(steps=2), Independent()]
)
@torch.no_grad()
def test_every_sampler_decodes_to_the_mean_without_a_network(sampler):
    """The mean is that of the whole recording: it is continuous over chunks, where decoding per chunk is not."""
    decoder = build(noise_passes=False, sigma_data=1e-5)
    decoder.start_at_zero()
    hidden = latents(5 * UNIT)
    linear = decoder.linear(hidden, LAYOUT)
    decoded = decoder.generate(hidden, LAYOUT, sampler=sampler)
    torch.testing.assert_close(decoded, linear, rtol=0, atol=2e-3)
    chunks = [decoder.generate(chunk, LAYOUT, sampler=sampler) for chunk in hidden.split(UNIT, dim=-1)]
    assert (torch.cat(chunks, dim=-1) - linear).abs().max() > 0.3


@pytest.mark.parametrize(
    "sampler", [TwoStep(), Autoregressive(new_noise=False), Overlap(), Parallel(steps=2, batch=1), Independent()]
)
@pytest.mark.parametrize("refines", [True, False])
@torch.no_grad()
def test_streamed_equals_whole(sampler, refines):
    decoder, hidden, seeds = build(refines=refines), latents(5 * UNIT + 1), torch.tensor([5, 6])
    whole = decoder.generate(hidden, LAYOUT, sampler=sampler, seeds=seeds)
    for seed in range(3):
        splits = random_splits(hidden.shape[-1], seed)
        stream = decoder.stream(LAYOUT, sampler=sampler, seeds=seeds, dtype=torch.float64)
        pieces = [stream.push(piece, last=i == len(splits) - 1) for i, piece in enumerate(hidden.split(splits, dim=-1))]
        torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_stream_has_one_more_chunk_of_latency_and_conditions_each_chunk_once():
    decoder = build()
    assert decoder.condition_context == (1, 1)
    stream, alone = (part.stream(LAYOUT, sampler=Independent()) for part in (decoder, decoder.network))
    assert stream.latency == alone.latency + CHUNK
    sizes = []
    decoder.network.upsampler.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    decoder.generate(latents(6 * UNIT), LAYOUT, sampler=Independent())
    # One more than there are chunks, to find the shape of an empty output.
    assert set(sizes) == {(2, UNIT, DIM)} and len(sizes) <= 7


@torch.no_grad()
def test_bounded_context_of_the_mean_is_that_of_its_transforms():
    decoder = build()
    hidden = latents(6 * UNIT)
    changed = hidden.clone()
    changed[:, 0, 3 * UNIT - 1] += 1
    before, after = (decoder.condition(x, LAYOUT)[-1] for x in (hidden, changed))
    moved = (before - after).abs().flatten(3).amax((0, 2, 3)) > 1e-9
    assert moved.tolist() == [False, False, True, True, False, False]


def test_network_with_context_of_its_own_raises():
    decoder = build()
    with pytest.raises(PartitaError, match=r"LinearMeanDecoder.* \(1, 1\)"):
        LinearMeanDecoder(decoder, decoder.linear)


def test_losses_and_deviation_are_those_of_the_difference():
    decoder = build(refines=False)
    hidden, clean = latents(2 * UNIT).requires_grad_(), torch.randn(2, 2, 12, 16).double()
    features = decoder.condition(hidden, LAYOUT)
    own, mean = features[:-1], features[-1].movedim(1, 3).flatten(3)
    loss = decoder.losses(features, clean)["envelope"]
    torch.testing.assert_close(loss, decoder.network.losses(own, clean - mean.detach())["envelope"])
    torch.testing.assert_close(decoder.deviation(features), decoder.network.deviation(own))
    # The loss of an envelope is smallest where the difference is one, so it must not move the mean.
    (mean_gradient,) = torch.autograd.grad(loss.sum(), features[-1], retain_graph=True, allow_unused=True)
    assert mean_gradient is None and decoder.loss_weights == {"envelope": 1.0}


@torch.no_grad()
def test_mean_refines_the_features_and_the_envelope():
    decoder = build()
    hidden, mean = latents(UNIT), torch.randn(2, 1, 2, 12, 8).double()
    first, second = (decoder.network.condition(hidden, LAYOUT, m) for m in (mean, mean + 1))
    assert [bool((a - b).abs().max() > 1e-6) for a, b in zip(first, second)] == [True, False, False, False, True]
    with pytest.raises(PartitaError, match="linear_path"):
        decoder.network.condition(hidden, LAYOUT)


@torch.no_grad()
def test_local_map_reaches_the_columns_of_its_latents_only():
    decoder = build(perturbed=False).network
    hidden = latents(UNIT)
    changed = hidden.clone()
    changed[..., 3] += 1
    attention_off(decoder.upsampler)
    coarse = [decoder.upsampler(x.transpose(1, 2))[-1] for x in (hidden, changed)]
    difference = (coarse[0] - coarse[1]).abs().amax((0, 1))  # (rows, columns)
    assert difference.shape == (3, 2) and (difference[:, 0] == 0).all() and (difference[:, 1] > 1e-6).all()
    with pytest.raises(PartitaError, match="3 latents.* 2 columns"):
        NETWORK.build(latent_spec=LatentSpec(DIM, 8000, 16), audio_spec=AudioSpec(8000))


def attention_off(upsampler):
    upsampler.transformer = torch.nn.Identity()


@torch.no_grad()
def test_denoiser_of_least_error_stops_noise_at_high_levels():
    x, sigma = torch.randn(2, 2, 12, 8).double(), torch.full((2, 1), 50.0).double()
    hidden = latents(UNIT)
    for passes in (True, False):
        decoder = build(perturbed=False, refines=False, noise_passes=passes).network
        features = decoder.condition(hidden, LAYOUT)
        d = decoder.deviation(features)
        expected = x * d / (2500 - 4e-6 + d**2).sqrt() if passes else x * d**2 / ((50 - 0.002) ** 2 + d**2)
        torch.testing.assert_close(decoder(x, sigma, features), expected)
