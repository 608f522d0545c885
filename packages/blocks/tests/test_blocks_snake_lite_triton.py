"""Triton kernels of SnakeLite, on a GPU if there is one, and with Triton's interpreter in a subprocess."""

import math
import os
import subprocess
import sys

import pytest
import torch
from partita_blocks import SnakeLite, activations
from torch import Tensor

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
SHAPES = [
    (2, 3, 2048),  # one tile per row
    (1, 2, 2049),  # one tile per row and one more element
    (2, 3, 37),  # several rows per tile
    (3, 50, 5),  # the last tile has unused rows
    (1, 1, 1),
    (5, 1, 4100),
]
# Tolerances of the output and of the gradients. The interpreter truncates to bfloat16 instead of rounding.
BFLOAT16 = 2**-7 if INTERPRETED else 2**-8
TOLERANCE = {torch.float32: (2e-6, 1e-5), torch.bfloat16: (BFLOAT16, 1.1 * BFLOAT16), torch.float16: (2**-11, 2**-10)}

needs_kernels = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.fixture
def kernels(monkeypatch):
    from partita_blocks.native import _snake_lite_triton

    if INTERPRETED:
        monkeypatch.setattr(activations, "_fused", lambda x, beta: _snake_lite_triton)
    return _snake_lite_triton


def problem(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[SnakeLite, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = SnakeLite(shape[1])
    layer.log_beta.data.normal_(0, 0.5)
    x, grad = (4 * torch.randn(shape)).to(dtype), torch.randn(shape)
    # Within rounding of a wrap point the slope may be that of either side.
    turns = x.double() * layer.log_beta.detach().double().exp() / math.pi
    grad[(turns - turns.floor() - 0.5).abs() < 1e-4] = 0
    return layer.to(DEVICE), x.to(DEVICE).requires_grad_(), grad.to(DEVICE, dtype)


def expected(layer: SnakeLite, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output and gradients in float64, by the formula on a CPU."""
    reference = SnakeLite(x.shape[1]).double()
    reference.load_state_dict(layer.state_dict())
    wide = x.detach().double().cpu().requires_grad_()
    y = reference(wide)
    return y.detach(), *torch.autograd.grad(y, [wide, reference.log_beta], grad.double().cpu())


def assert_near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    error = (found.detach().double().cpu() - wanted).abs()
    assert (error <= tolerance * (1 + wanted.abs())).all(), error.max()


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the subprocess")
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, __file__]
    options = ["--import-mode=importlib", "-W", "ignore::pytest.PytestUnknownMarkWarning"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


class TestKernels:
    pytestmark = needs_kernels

    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_output_and_gradients_match_float64(self, kernels, shape, dtype):
        layer, x, grad = problem(shape, dtype)
        y = layer(x)
        by_x, by_log_beta = torch.autograd.grad(y, [x, layer.log_beta], grad)
        assert y.dtype == by_x.dtype == dtype and by_log_beta.dtype == torch.float32
        for one, other, tolerance in zip((y, by_x), expected(layer, x, grad), TOLERANCE[dtype]):
            assert_near(one, other, tolerance)
        # A sum of up to 2 * 10^4 terms in float32, for any dtype of x.
        assert_near(by_log_beta, expected(layer, x, grad)[2], 2e-5)

    def test_non_contiguous_inputs(self, kernels):
        layer, x, _ = problem((2, 3, 40), torch.float32)
        strided = x.detach().mT.contiguous().mT.requires_grad_()
        (by_x,) = torch.autograd.grad(layer(strided).sum(), strided)  # the gradient of a sum is an expanded scalar
        (other,) = torch.autograd.grad(layer(x).sum(), x)
        torch.testing.assert_close(layer(strided), layer(x), rtol=0, atol=0)
        torch.testing.assert_close(by_x, other, rtol=0, atol=0)

    def test_gradients_are_deterministic(self, kernels):
        layer, x, grad = problem((2, 3, 4100), torch.float32)
        first = torch.autograd.grad(layer(x), [x, layer.log_beta], grad)
        second = torch.autograd.grad(layer(x), [x, layer.log_beta], grad)
        assert all(torch.equal(one, other) for one, other in zip(first, second))

    def test_large_inputs_pass_unchanged(self, kernels):
        layer, _, _ = problem((1, 2, 1), torch.float32)
        x = torch.tensor([3e7, -1e8, 1e20, -1e30], device=DEVICE).expand(1, 2, 4).contiguous().requires_grad_()
        y = layer(x)
        torch.testing.assert_close(y, x.detach().expand_as(y), rtol=1e-6, atol=0)
        (by_x,) = torch.autograd.grad(y.sum(), x)
        assert (by_x.abs() < 3).all()

    def test_under_autocast_and_functional_call(self, kernels):
        layer, x, grad = problem((2, 3, 50), torch.bfloat16)
        with torch.autocast(DEVICE, torch.bfloat16):
            y = torch.func.functional_call(layer, {"log_beta": layer.log_beta.detach()}, (x,))
            (by_x,) = torch.autograd.grad(y, x, grad)
        wanted = expected(layer, x, grad)
        assert y.dtype == torch.bfloat16
        assert_near(y, wanted[0], TOLERANCE[x.dtype][0])
        assert_near(by_x, wanted[1], TOLERANCE[x.dtype][1])

    def test_second_derivative_raises(self, kernels):
        layer, x, grad = problem((1, 3, 20), torch.float32)
        (by_x,) = torch.autograd.grad(layer(x), x, grad.requires_grad_(), create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            by_x.sum().backward()


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no GPU")
class TestChoice:
    def test_gpu_tensors_use_the_kernels(self, kernels):
        x, beta = torch.randn(1, 2, 3, device="cuda"), torch.ones(2, 1, device="cuda")
        fused = activations._fused
        assert fused(x, beta) is kernels and fused(x.half(), beta) is kernels and fused(x.bfloat16(), beta) is kernels
        assert fused(x.double(), beta) is None and fused(x, beta.double()) is None and fused(x[..., :0], beta) is None

    def test_more_than_two_to_the_31_elements(self, kernels):
        if torch.cuda.mem_get_info()[0] < 24 * 2**30:
            pytest.skip("needs 24 GiB of GPU memory")
        layer = SnakeLite(2).to("cuda")
        x = torch.zeros(1, 2, 2**30 + 8, dtype=torch.bfloat16, device="cuda")
        x[:, :, -8:] = torch.arange(1, 9)
        with torch.no_grad():
            y = layer(x)
            torch.testing.assert_close(y[:, :, -8:], layer(x[:, :, -8:].contiguous()), rtol=0, atol=0)
            assert y[:, :, :-8].abs().max() == 0
