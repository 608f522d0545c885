import pytest
import torch
from partita_blocks import CausalTransformer, RMSNorm, rotary_angles, rotate
from torch import Tensor
from torch.nn import functional as F


def transformer(window: int | None, dtype: torch.dtype = torch.float64, layers: int = 2) -> CausalTransformer:
    torch.manual_seed(0)
    model = CausalTransformer(16, layers=layers, heads=2, head_dim=8, mlp_dim=24, window=window)
    return model.to(dtype).eval()


def streamed(model: CausalTransformer, x: Tensor, splits: list[int]) -> Tensor:
    state = model.init_state(len(x), device=x.device, dtype=x.dtype)
    pieces = []
    for piece in x.split(splits, dim=1):
        y, state = model.step(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=1)


def block_by_definition(block, x: Tensor, window: int | None) -> Tensor:
    """One layer by definition: a softmax per position and head over the visible positions."""
    q, k, v = block.qkv(block.attention_norm(x)).unflatten(-1, (3, 2, 8)).unbind(2)
    angles = rotary_angles(x.shape[1], 8, x.device)
    rows = []
    for i in range(x.shape[1]):
        first = 0 if window is None else max(0, i - window)
        heads = []
        for h in range(2):
            query, keys = rotate(q[:, i : i + 1, h], angles[i : i + 1]), rotate(k[:, : i + 1, h], angles[: i + 1])
            weights = (query @ keys[:, first:].mT / 8**0.5).softmax(-1)
            heads.append(weights @ v[:, first : i + 1, h])
        rows.append(torch.cat(heads, dim=-1))
    x = x + torch.cat(rows, dim=1) @ block.out.weight.T
    h = block.mlp_norm(x)
    return x + (F.silu(h @ block.mlp.gate.weight.T) * (h @ block.mlp.up.weight.T)) @ block.mlp.down.weight.T


@pytest.mark.parametrize("window", [None, 3])
def test_layers_match_their_definition(window):
    model = transformer(window)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    expected = x
    for block in model.blocks:
        expected = block_by_definition(block, expected, window)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert sum(isinstance(module, RMSNorm) for module in model.modules()) == 4


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("splits", [[40], [1] * 40, [3, 0, 7, 20, 0, 10], [25, 15], [0, 39, 1, 0]])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_streaming_equals_the_full_forward(window, splits, dtype, tolerance):
    model = transformer(window, dtype)
    x = torch.randn(2, 40, 16, dtype=dtype)
    full = model(x)
    difference = (streamed(model, x, splits) - full).abs().max()
    assert difference <= tolerance * full.square().mean().sqrt()


def test_state_is_bounded_by_the_window():
    model = transformer(3)
    x = torch.randn(2, 40, 16, dtype=torch.float64)
    state = model.init_state(2, device=x.device, dtype=x.dtype)
    _, (position, caches) = model.step(x, state)
    assert position.tolist() == [40] and len(caches) == 2
    assert all(tensor.shape == (2, 2, 3, 8) for cache in caches for tensor in cache)
    unbounded = transformer(None)
    _, (_, caches) = unbounded.step(x, unbounded.init_state(2, device=x.device, dtype=x.dtype))
    assert caches[0][0].shape == (2, 2, 40, 8)


def test_step_does_not_modify_the_state():
    model = transformer(3)
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    _, state = model.step(x, model.init_state(1, device=x.device, dtype=x.dtype))
    kept = [state[0].clone(), *(tensor.clone() for cache in state[1] for tensor in cache)]
    first, _ = model.step(x, state)
    assert torch.equal(model.step(x, state)[0], first)
    now = [state[0], *(tensor for cache in state[1] for tensor in cache)]
    assert all(torch.equal(a, b) for a, b in zip(kept, now))


@pytest.mark.parametrize("window", [None, 3])
def test_outputs_depend_on_the_left_context_only(window):
    model = transformer(window)
    x = torch.randn(1, 20, 16, dtype=torch.float64, requires_grad=True)
    model(x)[0, 9].sum().backward()
    used = x.grad[0].abs().sum(-1) > 0
    first = 0 if window is None else 9 - model.left_context
    assert used.nonzero().flatten().tolist() == list(range(first, 10))
    assert model.left_context == (None if window is None else 6)


def test_output_is_independent_of_the_absolute_position():
    """With a window, the same input later gives the same output."""
    model = transformer(3)
    x = torch.randn(1, 12, 16, dtype=torch.float64)
    _, (position, caches) = model.step(x, model.init_state(1, device=x.device, dtype=x.dtype))
    assert position.item() == 12
    fresh = model.init_state(1, device=x.device, dtype=x.dtype)
    late = (torch.tensor([10_000_000]), fresh[1])
    torch.testing.assert_close(model.step(x, late)[0], model(x), rtol=0, atol=1e-8)


def test_streaming_under_autocast_is_close():
    model = transformer(None, torch.float32)
    x = torch.randn(2, 20, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = streamed(model, x, [5, 15])
    torch.testing.assert_close(y.float(), model(x), rtol=0, atol=0.15)


@pytest.mark.slow
@torch.no_grad()
def test_step_exports_with_its_state():
    class Step(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x, position, *tensors):
            y, (position, caches) = self.model.step(x, (position, tuple(zip(tensors[::2], tensors[1::2]))))
            return y, position, *(tensor for cache in caches for tensor in cache)

    model = transformer(6, torch.float32)
    x = torch.randn(2, 30, 16)
    _, (position, caches) = model.step(x[:, :10], model.init_state(2, device=x.device, dtype=x.dtype))
    flat = [tensor for cache in caches for tensor in cache]
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        Step(model),
        (x[:, 10:15], position, *flat),
        dynamic_shapes={"x": {0: auto, 1: auto}, "position": None, "tensors": tuple({0: auto} for _ in flat)},
    ).module()
    y, position, *flat = program(x[:, 10:15], position, *flat)
    y2, *_ = program(x[:, 15:30], position, *flat)
    torch.testing.assert_close(torch.cat([y, y2], dim=1), model(x)[:, 10:], rtol=1e-4, atol=1e-5)
