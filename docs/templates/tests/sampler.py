import pytest
import torch
from partita_core import AudioSpec, LatentSpec, PartitaError
from partita_newcomer import Newcomer
from partita_testing.dummies import DenoisingConfig


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return DenoisingConfig().build(latent_spec=LatentSpec(4, 8000, 16), audio_spec=AudioSpec(8000)).eval()


@torch.no_grad()
def test_newcomer_calls_the_decoder_once_per_chunk(decoder):
    levels = []
    decoder.register_forward_pre_hook(lambda _, inputs: levels.append([round(x, 3) for x in inputs[1][0].tolist()]))
    latents = torch.randn(1, 4, 3 * decoder.frames_per_chunk)
    audio = decoder.generate(latents, torch.zeros(1, dtype=torch.int64), sampler=Newcomer(context_sigma=0.25))
    assert audio.shape == (1, 1, latents.shape[-1] * decoder.hop)
    assert levels == [[80.0], [0.25, 80.0], [0.25, 80.0]]


def test_newcomer_context_sigma_is_limited_by_the_schedule(decoder):
    with pytest.raises(PartitaError, match="100.0.*80.0"):
        Newcomer(context_sigma=100.0).start(decoder, torch.zeros(1, dtype=torch.int64))
