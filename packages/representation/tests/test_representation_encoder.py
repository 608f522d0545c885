import pytest
import torch
from partita_core import LatentSpec, PartitaError, TiledStream
from partita_representation import CausalRepresentationConfig, SwiGLUAdapterConfig, stack_frames
from torch.nn import functional as F

SPEC = LatentSpec(4, 24_000, 960, tokens_per_frame=3)


def test_a_frame_is_its_tokens_one_after_the_other():
    values = torch.arange(2 * 4 * 6.0).reshape(2, 4, 6)
    stacked = stack_frames(values, 3)
    assert stacked.shape == (2, 2, 12)
    assert torch.equal(stacked[1, 1], torch.cat([values[1, :, 3], values[1, :, 4], values[1, :, 5]]))


def test_defaults_are_those_of_the_small_size():
    encoder = CausalRepresentationConfig().build(latent_spec=LatentSpec(64, 24_000, 960))
    assert (encoder.dim, encoder.width, encoder.context) == (64, 512, (None, 0))
    block = encoder.transformer.blocks[0]
    assert len(encoder.transformer.blocks) == 8
    assert (block.heads, block.head_dim, block.mlp.gate.out_features) == (8, 64, 2048)


def test_features_have_unit_scale_whatever_the_latents_have():
    encoder = CausalRepresentationConfig.example().build(latent_spec=SPEC)
    for scale in (1e-2, 1, 100):
        features = encoder(scale * torch.randn(2, 4, 30))
        torch.testing.assert_close(features.square().mean(-1), torch.ones(2, 10), rtol=1e-2, atol=0)


def test_with_a_window_tiles_equal_the_whole():
    """Rotary positions are relative: without the state too, a tile with its context is enough."""
    torch.manual_seed(0)
    encoder = CausalRepresentationConfig.example().build(latent_spec=SPEC).double().eval()
    assert encoder.context == (6, 0)
    values = torch.randn(2, 4, 90, dtype=torch.float64)
    tiles = TiledStream(lambda x: encoder(x).mT, units_in=3, units_out=1, context=encoder.context, hop=1, width=4)
    found = tiles.push(values, last=True)
    torch.testing.assert_close(found.mT, encoder(values), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width": 20, "heads": 4}, "width is 20; it must be a multiple of twice the 4 heads"),
        ({"window": 0}, "window is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises(PartitaError, match=message):
        CausalRepresentationConfig(**settings)


@pytest.mark.parametrize("frames, embeddings", [(1, 1), (2, 1), (7, 4), (8, 4), (0, 0)])
def test_an_adapter_stacks_frames_and_fills_up_with_zeros(frames, embeddings):
    torch.manual_seed(0)
    adapter = SwiGLUAdapterConfig(hidden=5).build(width=6, out_dim=3)
    features = torch.randn(2, frames, 6)
    found = adapter(features)
    assert found.shape == (2, embeddings, 3)
    whole = F.pad(features, (0, 0, 0, 2 * embeddings - frames))
    for i in range(embeddings):
        pair = torch.cat([whole[:, 2 * i], whole[:, 2 * i + 1]], dim=-1)
        gate, up, down = (layer.weight.T for layer in (adapter.mlp.gate, adapter.mlp.up, adapter.mlp.down))
        torch.testing.assert_close(found[:, i], (F.silu(pair @ gate) * (pair @ up)) @ down)


def test_an_adapter_without_frames_is_refused():
    with pytest.raises(PartitaError, match="stack is 0; it must be at least 1"):
        SwiGLUAdapterConfig(stack=0)
