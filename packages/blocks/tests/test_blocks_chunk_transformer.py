import pytest
import torch
from partita_blocks import ChunkTransformer, chunk_causal_attention


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def build(tokens=5, chunks=2, condition_dim=None, dropout=0.0, perturbed=True, zero_init=True):
    sizes = {"layers": 2, "heads": 2, "head_dim": 6, "condition_dim": condition_dim, "dropout": dropout}
    module = ChunkTransformer(8, tokens=tokens, chunks=chunks, **sizes, zero_init=zero_init).double()
    with torch.no_grad():
        for parameter in module.parameters() if perturbed else ():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_attention_equals_a_dense_mask(chunks):
    q, k, v = noise(2, 3, 4 * chunks, 6), noise(2, 3, 4 * chunks, 6), noise(2, 3, 4 * chunks, 6)
    chunk = torch.arange(4 * chunks) // 4
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=chunk[:, None] >= chunk)
    torch.testing.assert_close(chunk_causal_attention(q, k, v, chunks), expected)


def test_chunks_do_not_depend_on_later_chunks():
    module = build(chunks=3)
    x = noise(2, 15, 8).requires_grad_()
    y = module(x)
    for first in (5, 10):
        changed = torch.cat([x[:, :first], noise(2, 15 - first, 8)], dim=1)
        assert torch.equal(module(changed)[:, :first], y[:, :first])
    y[:, 5:10].sum().backward()
    assert (x.grad[:, :10] != 0).any(-1).all() and not x.grad[:, 10:].any()


def test_fewer_chunks_equal_the_first_of_more():
    module = build(chunks=2)
    x = noise(2, 10, 8)
    torch.testing.assert_close(module(x[:, :5]), module(x)[:, :5], rtol=0, atol=1e-12)


def test_initial_output_is_a_norm_of_tokens_and_positions():
    module = build(perturbed=False)
    x = noise(1, 10, 8)
    expected = torch.nn.functional.layer_norm(x + module.positions, (8,), eps=1e-4)
    torch.testing.assert_close(module(x), expected)


def test_positions_distinguish_tokens():
    module = build(chunks=1)
    order = torch.tensor([1, 0, 2, 3, 4])
    x = noise(1, 5, 8)
    assert (module(x[:, order])[:, order] - module(x)).abs().max() > 1e-2
    with torch.no_grad():
        module.positions.zero_()
    torch.testing.assert_close(module(x[:, order])[:, order], module(x))


def test_conditions_are_per_chunk():
    module = build(chunks=2, condition_dim=4)
    x, condition = noise(1, 10, 8), noise(1, 2, 4)
    y = module(x, condition)
    other = torch.cat([condition[:, :1], noise(1, 1, 4)], dim=1)
    assert torch.equal(module(x, other)[:, :5], y[:, :5])
    assert (module(x, other)[:, 5:] - y[:, 5:]).abs().max() > 1e-2


def test_scale_of_queries_and_keys_has_no_effect():
    """Growing weights cannot saturate the attention."""
    module = build(chunks=1)
    x = noise(1, 5, 8)
    expected = module(x)
    with torch.no_grad():
        for block in module.blocks:
            block.qkv.weight[: 2 * 12] *= 100
    torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)


def test_parameter_count_per_layer():
    module = ChunkTransformer(
        64, tokens=1, chunks=1, layers=1, heads=4, head_dim=16, condition_dim=None, dropout=0.0, zero_init=True
    )
    matrices = sum(p.numel() for p in module.blocks.parameters() if p.dim() == 2)
    assert matrices == 10 * 64**2


def test_dropout_is_off_in_eval():
    module = build(dropout=0.5)
    x = noise(1, 10, 8)
    assert not torch.equal(module(x), module(x))
    assert torch.equal(module.eval()(x), module(x))
