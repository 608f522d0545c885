"""The consistency decoder under bfloat16 autocast: accuracy of the difference of two neighboring noise levels."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, LatentSpec
from partita_decoders import ConsistencyDecoderConfig
from torch import nn

AUDIO = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
STEP = 0.001  # time between student and teacher at the end of training


@cache
def decoder(**changes):
    config = replace(
        ConsistencyDecoderConfig.example(), channels=(16, 32, 32), envelope_weight=None, layers=3, **changes
    )
    torch.manual_seed(0)
    latents = LatentSpec(dim=4, sample_rate=8000, hop=48, tokens_per_frame=2, ordered=False)
    built = config.build(latent_spec=latents, audio_spec=AUDIO).eval()
    for module in built.modules():  # trained models have no zero layers
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.5 * module.weight[0].numel() ** -0.5)
    return built


def difference(built, sigma: float, *, bf16: bool) -> torch.Tensor:
    """Difference of student and teacher, with the same features for both."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 4, 4, generator=generator).tanh()
    schedule = built.schedule
    rho, low, high = schedule.rho, schedule.sigma_min, schedule.sigma_max
    time = (sigma ** (1 / rho) - low ** (1 / rho)) / (high ** (1 / rho) - low ** (1 / rho))
    levels = schedule.sigma(torch.tensor([time, time - STEP], dtype=torch.float64)).float()
    made = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=False):
        features = built.condition(hidden, torch.ones(2, dtype=torch.int64))
        clean = 0.5 * torch.randn(2, 4, 12, 16, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        for level in levels:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                made.append(built(clean + level * noise, level.expand(2, 2), features).double())
    return made[0] - made[1]


def relative_error(built, sigma: float) -> float:
    exact = difference(built, sigma, bf16=False)
    return float((difference(built, sigma, bf16=True) - exact).norm() / exact.norm())


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_float32_ends_halve_the_rounding_error(sigma, monkeypatch):
    """With bfloat16 at both ends, the rounding error is 0.08, 0.26 and 3.1 of the difference."""
    built = decoder()
    error = relative_error(built, sigma)
    monkeypatch.setattr("partita_decoders._denoiser._not_autocast", lambda x: nullcontext())
    assert error < 0.5 * relative_error(built, sigma)


def test_autocast_dtypes_of_the_denoiser():
    built, seen = decoder(), {}

    def record(name):
        def hook(module, inputs, output):
            seen[name] = output.dtype

        return hook

    denoiser = built.denoiser
    parts = {"stem": denoiser.stem, "head": denoiser.head, "embedding": denoiser.embedding.third}
    parts |= {"branch": denoiser.patchifier.levels[0][0].inner, "block": denoiser.patchifier.levels[0][0]}
    parts |= {"transformer": denoiser.transformer.blocks[-1], "mlp": denoiser.transformer.blocks[-1].mlp_out}
    handles = [part.register_forward_hook(record(name)) for name, part in parts.items()]
    with torch.autocast("cpu", torch.bfloat16):
        features = built.condition(torch.zeros(1, 4, 4), torch.ones(1, dtype=torch.int64))
        built(torch.zeros(1, 4, 12, 16), torch.ones(1, 2), features)
    for handle in handles:
        handle.remove()
    half = {"branch", "mlp"}
    assert seen == {name: torch.bfloat16 if name in half else torch.float32 for name in parts}
