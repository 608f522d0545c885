import pytest
import torch
from partita_core import LatentSpec, PartitaError, TiledStream
from partita_representation import (
    RQMTP,
    CausalRepresentation,
    CausalRepresentationConfig,
    RQMTPConfig,
    SwiGLUAdapter,
    SwiGLUAdapterConfig,
    stack_frames,
)
from torch.nn import functional as F

SPEC = LatentSpec(4, 24_000, 960, tokens_per_frame=3)


def test_stack_frames_concatenates_the_tokens_of_a_frame():
    values = torch.arange(2 * 4 * 6.0).reshape(2, 4, 6)
    stacked = stack_frames(values, 3)
    assert stacked.shape == (2, 2, 12)
    assert torch.equal(stacked[1, 1], torch.cat([values[1, :, 3], values[1, :, 4], values[1, :, 5]]))


def test_default_sizes():
    encoder = CausalRepresentation(LatentSpec(64, 24_000, 960))
    assert (encoder.dim, encoder.width, encoder.context) == (64, 512, (None, 0))
    block = encoder.transformer.blocks[0]
    assert len(encoder.transformer.blocks) == 8
    assert (block.heads, block.head_dim, block.mlp.gate.out_features) == (8, 64, 2048)


def test_features_have_unit_scale_at_any_scale_of_the_latents():
    encoder = CausalRepresentationConfig.example().build(latent_spec=SPEC)
    for scale in (1e-2, 1, 100):
        features = encoder(scale * torch.randn(2, 4, 30))
        torch.testing.assert_close(features.square().mean(-1), torch.ones(2, 10), rtol=1e-2, atol=0)


def test_tiles_with_context_equal_the_full_forward():
    """Rotary positions are relative, so a tile with its context is enough even without the state."""
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
        ({"width": 20, "heads": 4}, "width 20 .* 8.* 4 heads"),
        ({"window": 0}, "window is 0"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(PartitaError, match=message):
        CausalRepresentation(SPEC, **settings)


def test_constructors_and_configs_build_the_same():
    torch.manual_seed(0)
    encoder = CausalRepresentation(SPEC, width=16, layers=1, heads=2)
    adapter, supervision = SwiGLUAdapter(16, 6, hidden=5), RQMTP(SPEC, encoder, codes=32)
    torch.manual_seed(0)
    from_config = CausalRepresentationConfig(width=16, layers=1, heads=2).build(latent_spec=SPEC)
    others = (
        from_config,
        SwiGLUAdapterConfig(hidden=5).build(width=16, out_dim=6),
        RQMTPConfig(codes=32).build(latent_spec=SPEC, representation=from_config, adapter=None, language_model=None),
    )
    for module, other in zip((encoder, adapter, supervision), others):
        assert module.config == other.config
        torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("frames, embeddings", [(1, 1), (2, 1), (7, 4), (8, 4), (0, 0)])
def test_adapter_stacks_frames_and_pads_with_zeros(frames, embeddings):
    torch.manual_seed(0)
    adapter = SwiGLUAdapter(6, 3, hidden=5)
    features = torch.randn(2, frames, 6)
    found = adapter(features)
    assert found.shape == (2, embeddings, 3)
    padded = F.pad(features, (0, 0, 0, 2 * embeddings - frames))
    for i in range(embeddings):
        pair = torch.cat([padded[:, 2 * i], padded[:, 2 * i + 1]], dim=-1)
        gate, up, down = (layer.weight.T for layer in (adapter.mlp.gate, adapter.mlp.up, adapter.mlp.down))
        torch.testing.assert_close(found[:, i], (F.silu(pair @ gate) * (pair @ up)) @ down)


def test_adapter_with_stack_zero_raises():
    with pytest.raises(PartitaError, match="stack is 0"):
        SwiGLUAdapter(6, 3, stack=0)
