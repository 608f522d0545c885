"""A tiny denoiser, features for it, and a sampler's stream over them."""

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, DenoisingDecoder, LatentSpec
from partita_testing.dummies import DenoisingConfig
from torch import Tensor


@pytest.fixture
def seeds() -> Tensor:
    return torch.tensor([5, 6])


@pytest.fixture
def tiny() -> DenoisingDecoder:
    torch.manual_seed(0)
    spec = AudioSpec(8000, 2, (ChannelLayout.MONO, ChannelLayout.STEREO))
    return DenoisingConfig().build(latent_spec=LatentSpec(4, 8000, 16), audio_spec=spec).eval()


@pytest.fixture
def features():
    """Features for `tiny`."""

    def random(chunks: int, seed: int = 1, batch: int = 2) -> tuple[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (torch.tanh(torch.randn(batch, chunks, 6, generator=generator)),)

    return random


@pytest.fixture
def sampled(seeds):
    """All chunks of a sampler's stream."""

    @torch.no_grad()
    def run(sampler, decoder, given, splits=None, seeds=seeds) -> Tensor:
        stream = sampler.start(decoder, seeds)
        pieces = list(zip(*(f.split(splits or [f.shape[1]], dim=1) for f in given)))
        return torch.cat([stream.push(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)], dim=-1)

    return run


@pytest.fixture
def noted(tiny):
    """The calls of `tiny`: noise levels of one item, and the features."""
    calls: list[tuple[list[float], Tensor]] = []
    tiny.register_forward_pre_hook(lambda _, inputs: calls.append((inputs[1][0].tolist(), inputs[2][0].clone())))
    return calls
