import copy
import math

import pytest
import torch
from partita_blocks import SnakeLite, activations, why_no_kernels
from partita_blocks.native import build, kernels
from torch import Tensor

needs_kernels = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))
SHAPES = [
    (1, 1, 1),
    (2, 3, 50),
    (3, 5, 257),
    (2, 3, 8192),  # exactly one block of the kernel
    (2, 2, 20_011),  # several blocks and an odd remainder
]


@pytest.fixture
def small(monkeypatch):
    """Use the kernels for tensors of any size."""
    monkeypatch.setattr(activations, "_CHUNK", 0)


def problem(*shape: int) -> tuple[SnakeLite, Tensor, Tensor]:
    """Layer, input, and gradient of the output, zero near wrap points, where rounding decides the side."""
    torch.manual_seed(0)
    layer = SnakeLite(shape[1])
    layer.log_beta.data.normal_(0, 0.5)
    x, grad = 4 * torch.randn(shape), torch.randn(shape)
    turns = x.double() * layer.log_beta.detach().double().exp() / math.pi
    grad[(turns - turns.floor() - 0.5).abs() < 1e-4] = 0
    return layer, x.requires_grad_(), grad


def results(layer: SnakeLite, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Output, and gradients of input and betas."""
    y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, [x, layer.log_beta], grad)]


def formula(layer: SnakeLite, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Reference of `results` in float64, straight from the formula."""
    log_beta, wide = (t.detach().double().requires_grad_() for t in (layer.log_beta, x))
    beta = log_beta.exp() + 1e-9
    a = wide * beta - math.pi * torch.round(wide * beta / math.pi)
    u = a * a
    y = wide + u * (1 + u * (-1 / 3 + u * (2 / 45 - u / 315))) / beta
    return [y.detach(), *torch.autograd.grad(y, [wide, log_beta], grad.double())]


def assert_near(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other, tolerance in zip(found, expected, (2e-6, 1e-5, 5e-5)):
        assert one.dtype == torch.float32 and one.shape == other.shape
        error = (one - other).abs() / (1 + other.abs())
        assert error.max() <= tolerance


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


# ------------------------------------------------------------------ results


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_match_float64(small, shape):
    layer, x, grad = problem(*shape)
    assert activations._fused(x, layer.log_beta) is not None
    assert_near(results(layer, x, grad), formula(layer, x, grad))


@needs_kernels
def test_every_length_up_to_several_vectors(small):
    layer, x, grad = problem(2, 3, 70)
    for length in range(1, 71):
        short = x.detach()[..., :length].requires_grad_(), grad[..., :length]
        assert_near(results(layer, *short), formula(layer, *short))


@needs_kernels
@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 17, 31, 33])
def test_kernels_do_not_write_past_the_end(length):
    library = kernels()
    assert library is not None
    x, beta, y, by_beta = torch.ones(64), torch.ones(1), torch.full((64,), -7.0), torch.empty(1)
    library.partita_snake_lite(x.data_ptr(), beta.data_ptr(), y.data_ptr(), 1, 1, length, 1)
    assert (y[:length] > 1).all() and (y[length:] == -7).all()
    y.fill_(-7)
    tensors = (x, beta, x, y, by_beta)
    library.partita_snake_lite_backward(*(t.data_ptr() for t in tensors), 1, 1, length, 1)
    assert (y[:length] > 1).all() and (y[length:] == -7).all()


@needs_kernels
@pytest.mark.parametrize("shape", [(2, 3, 20_011), (30, 7, 33)])
def test_result_is_independent_of_the_threads(small, shape):
    layer, x, grad = problem(*shape)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(layer, x, grad))
    finally:
        torch.set_num_threads(before)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@needs_kernels
def test_non_contiguous_inputs(small):
    layer, x, grad = problem(2, 3, 40)
    strided = x.detach().mT.contiguous().mT.requires_grad_()
    assert_same(results(layer, strided, grad.mT.contiguous().mT), results(layer, x, grad))
    (by_x,) = torch.autograd.grad(layer(x).sum(), x)  # the gradient of a sum is an expanded scalar
    torch.testing.assert_close(by_x, results(layer, x, torch.ones_like(x))[1], rtol=0, atol=0)


@needs_kernels
def test_chunks_match_the_kernel(monkeypatch):
    layer, x, grad = problem(2, 3, 2000)
    monkeypatch.setattr(activations, "_CHUNK", 512)
    fused = results(layer, x, grad)
    monkeypatch.setattr("partita_blocks.native.kernels", lambda: None)
    assert activations._fused(x, layer.log_beta) is None
    chunks = results(layer, x, grad)
    assert_near(chunks, formula(layer, x, grad))
    for one, other in zip(fused, chunks):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_large_inputs_pass_unchanged(small):
    layer, _, _ = problem(1, 2, 1)
    x = torch.tensor([3e7, -1e8, 1e20, -1e30]).expand(1, 2, 4).contiguous().requires_grad_()
    y, by_x, _ = results(layer, x, torch.ones(1, 2, 4))
    torch.testing.assert_close(y, x.detach(), rtol=1e-6, atol=0)
    assert (by_x.abs() < 3).all()


@needs_kernels
def test_copies_functional_call_and_autocast(small):
    layer, x, grad = problem(2, 3, 50)
    expected = results(layer, x, grad)
    assert_same(results(copy.deepcopy(layer), x, grad), expected)
    parameters = {"log_beta": layer.log_beta.detach()}
    assert torch.equal(torch.func.functional_call(SnakeLite(3), parameters, (x,)), expected[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(results(layer, x, grad), expected)
    with torch.inference_mode():
        assert torch.equal(layer(x), expected[0])


def test_wrong_number_of_channels_raises(small):
    with pytest.raises(RuntimeError, match="size"), torch.no_grad():
        SnakeLite(3)(torch.ones(1, 5, 8))


@needs_kernels
@pytest.mark.slow
def test_avx2_kernels_match_float64(small, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "cpu_features", lambda: {"avx2", "fma"})
    library = build._load()
    monkeypatch.setattr("partita_blocks.native._snake_lite_cpu.loaded_kernels", lambda: library)
    for shape in SHAPES:
        layer, x, grad = problem(*shape)
        assert_near(results(layer, x, grad), formula(layer, x, grad))


# ------------------------------------------------------------------ choice


def test_small_tensors_do_not_load_kernels(monkeypatch):
    def load() -> None:
        raise AssertionError

    monkeypatch.setattr(activations, "_CHUNK", 100)
    monkeypatch.setattr(activations, "_cpu_kernels", load)
    layer, x, grad = problem(2, 5, 10)
    results(layer, x, grad)
    with pytest.raises(AssertionError), torch.no_grad():
        layer(torch.zeros(1, 5, 21))


@needs_kernels
def test_unsupported_tensors_have_no_kernels(small):
    x, beta = torch.randn(1, 2, 3), torch.ones(2, 1)
    fused = activations._fused
    assert fused(x, beta) is not None
    assert fused(x.bfloat16(), beta) is None and fused(x.half(), beta) is None and fused(x.double(), beta) is None
    assert fused(x, beta.double()) is None and fused(x, beta.to("meta")) is None
    assert fused(x[..., :0], beta) is None and fused(x[0], beta) is None
