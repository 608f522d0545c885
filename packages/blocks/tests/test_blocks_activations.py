import math

import pytest
import torch
from partita_blocks import ACTIVATIONS, Snake, SnakeBeta, SnakeLite
from torch import Tensor


def plain_snake_lite(x: Tensor, beta: Tensor) -> Tensor:
    a = x * beta - math.pi * torch.round(x * beta / math.pi)
    u = a * a
    return x + u * (1 + u * (-1 / 3 + u * (2 / 45 - u / 315))) / beta


def test_snake_lite_is_close_to_snake():
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64).reshape(1, 1, -1)
    with torch.no_grad():
        error = (SnakeLite(1).double()(x) - Snake(1).double()(x)).abs()
    assert 0.0119 < error.max() < 0.0121
    assert error.square().mean().sqrt() < 0.003


def test_snake_formula():
    x = torch.tensor([[[0.0, math.pi / 2, -math.pi / 2, math.pi]]], dtype=torch.float64)
    expected = x + x.sin() ** 2
    torch.testing.assert_close(Snake(1).double()(x), expected)
    torch.testing.assert_close(SnakeBeta(1).double()(x), expected)


def test_snake_beta_frequency_and_amplitude_are_independent():
    layer = SnakeBeta(1).double()
    layer.log_alpha.data.fill_(math.log(2.0))
    layer.log_beta.data.fill_(math.log(4.0))
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, -1)
    torch.testing.assert_close(layer(x), x + (2 * x).sin() ** 2 / 4)


# With chunks of 32 elements: one chunk, several rows per chunk, several chunks per row.
@pytest.mark.parametrize("chunk", [2**19, 32])
@pytest.mark.parametrize("shape", [(2, 3, 50), (3, 3, 4)])
def test_snake_lite_gradients_match_the_formula(shape, chunk, monkeypatch):
    monkeypatch.setattr("partita_blocks.activations._CHUNK", chunk)
    torch.manual_seed(0)
    layer = SnakeLite(3).double()
    layer.log_beta.data.normal_()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64)
    beta = layer.log_beta.exp() + 1e-9
    torch.testing.assert_close(layer(x), plain_snake_lite(x, beta), rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((layer(x) * weight).sum(), [x, layer.log_beta])
    expected = torch.autograd.grad((plain_snake_lite(x, beta) * weight).sum(), [x, layer.log_beta])
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_snake_lite_in_chunks_equals_snake_lite_at_once(dtype, monkeypatch):
    torch.manual_seed(2)
    layer = SnakeLite(3)
    layer.log_beta.data.normal_()
    x = torch.randn(2, 50, 3).to(dtype).mT.requires_grad_()
    weight = torch.randn(2, 3, 50).to(dtype)

    def results() -> tuple[Tensor, ...]:
        return layer(x), *torch.autograd.grad(layer(x), [x, layer.log_beta], weight)

    at_once = results()
    monkeypatch.setattr("partita_blocks.activations._CHUNK", 32)
    monkeypatch.setattr("partita_blocks.activations._cpu_kernels", lambda: None)
    for one, other in zip(results(), at_once):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_second_derivative_of_snake_lite_raises():
    layer, x, weight = SnakeLite(2), torch.randn(1, 2, 5, requires_grad=True), torch.ones(1, 2, 5, requires_grad=True)
    (by_x,) = torch.autograd.grad(layer(x), x, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        by_x.sum().backward()


def test_snake_lite_gradient_matches_finite_differences():
    torch.manual_seed(1)
    layer = SnakeLite(2).double()
    # In the middle half between wrap points, so that no finite difference crosses one.
    x = (torch.rand(1, 2, 20, dtype=torch.float64) - 0.5) * 1.5 + math.pi * torch.randint(-2, 3, (1, 2, 20))
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(),), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_snake_lite_saves_little_more_than_its_input_for_backward(dtype):
    layer, x = SnakeLite(8), torch.randn(2, 8, 1000, dtype=dtype, requires_grad=True)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    assert sum(saved) < 1.1 * x.nbytes


def test_snake_lite_does_not_modify_its_input():
    layer, x = SnakeLite(4), torch.randn(1, 4, 10)
    before = x.clone()
    with torch.no_grad():
        without = layer(x)
    with_gradient = layer(x.requires_grad_())
    torch.testing.assert_close(x.detach(), before, rtol=0, atol=0)
    torch.testing.assert_close(with_gradient.detach(), without, rtol=0, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_half_precision_is_computed_in_float32(name):
    layer, x = ACTIVATIONS[name](3), torch.linspace(-30, 30, 300).reshape(1, 3, 100)
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x.bfloat16().float()), rtol=1e-2, atol=1e-2)
