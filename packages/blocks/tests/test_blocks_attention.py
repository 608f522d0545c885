import pytest
import torch
from partita_blocks import RMSNorm, WindowedTransformer, rotary_angles, rotate, windowed_attention
from torch import Tensor


def dense_attention(q: Tensor, k: Tensor, v: Tensor, angles: Tensor, window: int, prefix: tuple | None) -> Tensor:
    """Attention by definition: all pairs, masked, plus the prefix without rotation."""
    scale, position = q.shape[-1] ** -0.5, torch.arange(q.shape[2])
    logits = rotate(q, angles) @ rotate(k, angles).transpose(-1, -2) * scale
    logits = logits.masked_fill((position[:, None] - position).abs() > window, float("-inf"))
    if prefix is None:
        return logits.softmax(-1) @ v
    prefix_logits = q @ prefix[0].transpose(-1, -2) * scale
    return torch.cat([prefix_logits, logits], -1).softmax(-1) @ torch.cat([prefix[1], v], 2)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 37])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_windowed_attention_equals_masked_dense_attention(length, extra):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, length, 8, dtype=torch.float64).unbind()
    prefix = tuple(torch.randn(2, 2, 2, extra, 8, dtype=torch.float64).unbind()) if extra else None
    angles = rotary_angles(length, 8, q.device)
    found = windowed_attention(q, k, v, angles=angles, window=4, prefix=prefix)
    torch.testing.assert_close(found, dense_attention(q, k, v, angles, 4, prefix), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("traced", [2, 13])
def test_exported_program_runs_at_any_length(traced):
    model = transformer()  # window 3

    def inputs(batch: int, frames: int) -> tuple[Tensor, Tensor]:
        return torch.randn(batch, 16, frames, dtype=torch.float64), torch.arange(batch)

    free = torch.export.Dim.AUTO
    program = torch.export.export(model, inputs(2, traced), dynamic_shapes=({0: free, 2: free}, {0: free})).module()
    for frames in (1, 2, 3, 4, 5, 6, 7, 9, 12, 40):
        given = inputs(3, frames)
        torch.testing.assert_close(program(*given), model(*given), rtol=1e-12, atol=1e-12)


def test_cost_is_linear_in_length():
    from torch.utils.flop_counter import FlopCounterMode

    def cost(length: int) -> int:
        q = torch.zeros(1, 2, length, 8)
        with FlopCounterMode(display=False) as counter:
            windowed_attention(q, q, q, angles=rotary_angles(length, 8, q.device), window=4, prefix=None)
        return counter.get_total_flops()

    assert cost(4000) == 10 * cost(400)


def test_rotated_products_depend_on_the_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, dtype=torch.float64)
    angles = rotary_angles(30, 8, q.device)
    near = [float(rotate(q, angles[i]) @ rotate(k, angles[i + 5])) for i in range(20)]
    assert max(near) - min(near) < 1e-12
    assert abs(near[0] - float(rotate(q, angles[0]) @ rotate(k, angles[6]))) > 1e-3


def transformer(conditions: int = 3, layers: int = 2) -> WindowedTransformer:
    torch.manual_seed(0)
    model = WindowedTransformer(16, layers=layers, heads=2, head_dim=8, window=3, mlp_ratio=2, conditions=conditions)
    return model.double().eval()


def test_tiles_with_context_equal_the_full_forward():
    model = transformer()
    x, index = torch.randn(1, 16, 40, dtype=torch.float64), torch.tensor([1])
    first, last = model.reach(15, 20)
    assert (first, last) == (9, 26)
    tile = model(x[:, :, first : last + 1], index)
    torch.testing.assert_close(tile[:, :, 6:12], model(x, index)[:, :, 15:21], rtol=1e-12, atol=1e-12)


def test_conditions_are_per_item():
    model = transformer()
    x = torch.randn(1, 16, 10, dtype=torch.float64).expand(3, -1, -1)
    y = model(x, torch.tensor([0, 1, 2]))
    for item in range(3):
        torch.testing.assert_close(y[item : item + 1], model(x[:1], torch.tensor([item])), rtol=1e-12, atol=1e-12)
    assert (y[0] - y[1]).abs().max() > 1e-4


def test_conditions_are_small_at_first():
    """A wrong scale would let the condition dominate the first attention."""
    torch.manual_seed(0)
    transformer = WindowedTransformer(64, layers=2, heads=8, head_dim=32, window=4, mlp_ratio=1, conditions=3)
    assert float(transformer.table.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_without_layers_is_the_identity():
    model = transformer(layers=0)
    x = torch.randn(2, 16, 5, dtype=torch.float64)
    assert model(x, torch.tensor([0, 2])) is x
    assert not list(model.parameters())


def test_rms_norm_under_autocast_equals_float32():
    x = torch.randn(2, 5, 16)
    norm = RMSNorm(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, norm(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)


def test_without_conditions_no_index_is_needed():
    model = transformer(conditions=0)
    x = torch.randn(1, 16, 40, dtype=torch.float64)
    tile = model(x[:, :, 9:27])
    torch.testing.assert_close(tile[:, :, 6:12], model(x)[:, :, 15:21], rtol=1e-12, atol=1e-12)
    assert model.table is None
    with pytest.raises(AssertionError, match="`index`"):
        transformer()(x)
