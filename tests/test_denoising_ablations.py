"""Ablations of denoising decoders: without the network's output, without noise, with a wrong chunk before."""

from dataclasses import replace

import pytest
import torch
from partita_bottlenecks import IdentityConfig
from partita_core import AudioSpec, AutoencoderConfig, PartitaError
from partita_decoders import (
    Autoregressive,
    ConsistencyDecoderConfig,
    Independent,
    LinearDecoderConfig,
    LinearPathDecoderConfig,
    TwoStep,
)
from partita_encoders import LinearEncoderConfig

CHUNK, DIM = 48, 4


@pytest.fixture(scope="module")
def script(benchmark_module):
    return benchmark_module("denoising_ablations")


def build(sampler, mean=True, sigma_data=0.5):
    torch.manual_seed(0)
    network = replace(ConsistencyDecoderConfig.example(), noise_passes=False, sigma_data=sigma_data, sampler=sampler)
    decoder = LinearPathDecoderConfig(network) if mean else network
    config = AutoencoderConfig(AudioSpec(8000), DIM, LinearEncoderConfig(hop=24), IdentityConfig(), decoder)
    model = config.build().double().eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def decoded(model, chunks):
    audio = torch.randn(1, 1, chunks * CHUNK, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model.decode(model.encode(0.1 * audio), seed=3)


def test_without_output_the_mean_is_left(script):
    model = build(TwoStep(), sigma_data=1e-5)
    systems = script.ablations(model)
    assert list(systems) == ["output zeroed", "wrong chunk before", "mean alone"]
    mean = decoded(systems["mean alone"], 4)
    linear = AutoencoderConfig(
        AudioSpec(8000), DIM, LinearEncoderConfig(hop=24), IdentityConfig(), LinearDecoderConfig()
    ).build()
    torch.testing.assert_close(mean, decoded(linear.double().eval(), 4))
    torch.testing.assert_close(decoded(systems["output zeroed"], 4), mean, rtol=0, atol=1e-5)
    assert (decoded(model, 4) - mean).abs().max() > 1e-4
    assert list(script.ablations(build(TwoStep(), mean=False))) == ["output zeroed", "wrong chunk before"]


@pytest.mark.parametrize("sampler", [TwoStep(refine=False), TwoStep(), Autoregressive(), Independent()])
def test_wrong_chunk_changes_what_comes_after_the_first_pair(script, sampler):
    model = build(sampler)
    wrong = script.ablations(model)["wrong chunk before"]
    difference = (decoded(wrong, 6) - decoded(model, 6)).abs()
    assert difference[..., :CHUNK].max() == 0
    assert (difference[..., 4 * CHUNK :].max() > 1e-6) == (sampler != Independent())


def test_model_is_left_as_it_is(script):
    model = build(TwoStep())
    before = decoded(model, 3)
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    for system in script.ablations(model).values():
        decoded(system, 3)
    assert torch.equal(decoded(model, 3), before) and model.decoder.sampler == TwoStep()
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def test_decoder_that_does_not_denoise_raises(script):
    model = AutoencoderConfig(
        AudioSpec(8000), DIM, LinearEncoderConfig(hop=24), IdentityConfig(), LinearDecoderConfig()
    ).build()
    with pytest.raises(PartitaError, match="no denoising decoder"):
        script.ablations(model)
