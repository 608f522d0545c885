"""Kernels for training on a CPU: values and gradients equal torch's in float64, in every memory format."""

from collections.abc import Callable

import pytest
import torch
from partita_blocks import Conv1d, Conv2d, ConvTranspose1d, elu, group_norm, silu, why_no_kernels
from partita_blocks.native import _convolution_cpu, _pointwise_cpu, serving
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

needs_kernels = pytest.mark.skipif(why_no_kernels() is not None, reason=f"no kernels: {why_no_kernels()}")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels take tensors of any size."""
    monkeypatch.setattr(serving, "MIN_SIZE", 1)
    monkeypatch.setattr("partita_blocks.planar_conv._MIN_LENGTH", 1)
    monkeypatch.setattr("partita_blocks.planar_conv._FEW_CHANNELS", 10**6)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the kernel functions that are called."""
    found: list[str] = []
    for module, names in (
        (_convolution_cpu, ("convolve", "convolve_transposed")),
        (_pointwise_cpu, ("elu", "silu", "group_norm")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, recorded(getattr(module, name), found))
    return found


def recorded(call: Callable[..., Tensor], names: list[str]) -> Callable[..., Tensor]:
    """`call`, which adds its name to `names`."""

    def run(*args, **kwargs) -> Tensor:
        names.append(call.__name__)
        return call(*args, **kwargs)

    return run


def assert_same(call: Callable[..., Tensor], reference: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare values and all gradients with those of a reference in float64, by their own scale."""
    inputs = tuple(x.requires_grad_() for x in inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y, expected = call(*inputs), reference(*exact)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = [y, *torch.autograd.grad(y, inputs, grad)]
    wanted = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape and one.dtype == torch.float32
        scale = other.abs().max().clamp_min(1e-6)
        torch.testing.assert_close(one.double() / scale, other / scale, rtol=0, atol=1e-5)


CONVOLUTIONS_1D = {
    "plain": ({"in_channels": 3, "out_channels": 5, "kernel_size": 7, "padding": 3}, 50),
    "dilated": ({"in_channels": 3, "out_channels": 2, "kernel_size": 7, "padding": 27, "dilation": 9}, 61),
    "depthwise": ({"in_channels": 6, "out_channels": 6, "kernel_size": 7, "padding": 3, "groups": 6}, 40),
    "dilated depthwise": ({"in_channels": 6, "out_channels": 6, "kernel_size": 3, "dilation": 3, "groups": 6}, 40),
    "grouped, strided": ({"in_channels": 4, "out_channels": 6, "kernel_size": 8, "stride": 4, "groups": 2}, 50),
    "stride not in kernel": ({"in_channels": 2, "out_channels": 3, "kernel_size": 7, "stride": 3, "padding": 2}, 50),
    "kernel below stride": ({"in_channels": 2, "out_channels": 3, "kernel_size": 2, "stride": 3}, 31),
    "no bias": ({"in_channels": 1, "out_channels": 9, "kernel_size": 3, "bias": False}, 3),
    "several tiles": ({"in_channels": 33, "out_channels": 17, "kernel_size": 5, "padding": 2}, 5000),
}


@needs_kernels
@pytest.mark.parametrize("name", CONVOLUTIONS_1D)
def test_convolution_equals_torch(name, calls):
    torch.manual_seed(0)
    settings, length = CONVOLUTIONS_1D[name]
    layer, reference = Conv1d(**settings), nn.Conv1d(**settings)
    parameters = [p.detach() for p in layer.parameters()]

    def reference_call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(reference, dict(zip(dict(reference.named_parameters()), parameters)), x)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return layer._conv_forward(x, *parameters, *([None] * (2 - len(parameters))))

    assert_same(call, reference_call, torch.randn(2, settings["in_channels"], length), *parameters)
    assert calls == ["convolve"]


@needs_kernels
@pytest.mark.parametrize(("stride", "length"), [(3, 20), (4, 20), (2, 3000)])
def test_transposed_convolution_equals_torch(stride, length, calls):
    torch.manual_seed(0)
    layer = ConvTranspose1d(6, 5, 2 * stride, stride, -(-stride // 2), output_padding=stride % 2)
    reference = nn.ConvTranspose1d(6, 5, 2 * stride, stride, -(-stride // 2), output_padding=stride % 2).double()
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, length)
    assert layer(x).shape == (2, 5, stride * length)
    assert_same(layer, reference, x)
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    wanted = torch.autograd.grad(reference(x.double()).square().sum(), list(reference.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    assert set(calls) == {"convolve_transposed"}


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((3, 3), 1, (0, 1), (9, 7)),
        ((7, 7), 1, (0, 3), (30, 60)),
        ((3, 4), (1, 2), (0, 1), (9, 8)),
        ((4, 2), (4, 2), 0, (8, 8)),
    ],
)
def test_two_dimensional_convolution_equals_torch(kernel, stride, padding, size, memory_format, calls):
    torch.manual_seed(0)
    layer = Conv2d(4, 5, kernel, stride, padding)
    x = torch.randn(2, 4, *size).contiguous(memory_format=memory_format)
    weight, bias = (p.detach() for p in layer.parameters())

    def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    assert_same(layer._conv_forward, reference, x, weight, bias)
    y = layer(x)
    (grad,) = torch.autograd.grad(y.sum(), x)  # an expanded gradient
    assert y.is_contiguous(memory_format=memory_format) and grad.stride() == x.stride()
    assert calls == ["convolve", "convolve"]


@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_convolution_is_a_matrix_product(bias, monkeypatch):
    torch.manual_seed(0)
    layer = weight_norm(Conv1d(6, 4, 1, bias=bias))
    reference = weight_norm(nn.Conv1d(6, 4, 1, bias=bias)).double()
    reference.load_state_dict(layer.state_dict())  # the same names and shapes
    assert isinstance(layer, nn.Conv1d)
    monkeypatch.setattr(F, "conv1d", None)  # not called
    x = torch.randn(3, 6, 50)
    y = layer(x)
    monkeypatch.undo()
    torch.testing.assert_close(y.double(), reference(x.double()), rtol=1e-6, atol=1e-6)
    found = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
    wanted = torch.autograd.grad(reference(x.double()).square().sum(), list(reference.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


@needs_kernels
@pytest.mark.parametrize("threads", [2, 3])
def test_convolution_kernels_do_not_depend_on_threads_batch_or_length(threads):
    torch.manual_seed(0)
    layer, x = Conv1d(5, 6, 7, padding=3), torch.randn(3, 5, 4000)

    def run(x: Tensor) -> list[Tensor]:
        y = layer(x)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(x)
        torch.set_num_threads(threads)
        several = run(x)
    finally:
        torch.set_num_threads(before)
    # The gradient of the bias is a sum of torch's.
    assert all(torch.equal(a, b) for a, b in zip(one[:2], several[:2]))
    assert torch.equal(layer(x[1:2]), layer(x)[1:2])
    assert torch.equal(layer(x[..., :1000])[..., :990], layer(x)[..., :990])


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("call", "reference"), [(elu, F.elu), (silu, F.silu)])
def test_activation_equals_torch(call, reference, memory_format, calls):
    x = torch.linspace(-100, 100, 2 * 3 * 7 * 11).view(2, 3, 7, 11).contiguous(memory_format=memory_format)
    assert_same(call, reference, x)
    y = call(x)
    assert y.stride() == x.stride() and calls == [call.__name__] * 2
    (grad,) = torch.autograd.grad(y, x, torch.ones(2, 3, 7, 11).contiguous())  # in another format
    torch.testing.assert_close(grad, torch.autograd.grad(reference(x).sum(), x)[0], rtol=1e-5, atol=1e-5)
    assert call(torch.full((1, 2), torch.nan, requires_grad=True)).isnan().all()


@needs_kernels
@pytest.mark.parametrize("channels", [8, 16, 48])
@pytest.mark.parametrize("scaled", [False, True])
def test_group_norm_equals_torch(channels, scaled, calls):
    torch.manual_seed(0)
    x = (3 * torch.randn(2, channels, 12, 14) + 50).contiguous(memory_format=torch.channels_last)
    parameters = [torch.randn(channels), *([torch.randn(2, channels)] if scaled else [])]

    def call(x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
        return group_norm(x, weight, scale, groups=channels // 4, eps=1e-5)

    def reference(x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
        y = F.group_norm(x, channels // 4, weight, eps=1e-5)
        return y if scale is None else y * scale[..., None, None]

    assert_same(call, reference, x, *parameters)
    assert calls == ["group_norm"]


@needs_kernels
def test_kernels_serve_only_training_in_float32_on_a_cpu(calls, monkeypatch):
    layer, x = Conv1d(2, 3, 5), torch.randn(1, 2, 20)
    with torch.no_grad():
        layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    Conv1d(2, 3, 5).double()(x.double())
    Conv1d(2, 3, 5, padding="same")(x)
    Conv1d(2, 3, 5, padding=2, padding_mode="circular")(x)
    torch.func.vmap(layer, randomness="same")(x[None])
    elu(x), silu(x)  # pyright: ignore[reportUnusedExpression]
    with pytest.raises(RuntimeError, match="2 channels"):
        layer(torch.randn(1, 3, 20))
    with pytest.raises(RuntimeError, match="Kernel size"):
        layer(torch.randn(1, 2, 4))
    assert calls == []
    monkeypatch.setattr(serving, "kernels", lambda: None)
    layer(x).sum().backward()
    assert calls == [] and layer.weight.grad is not None


@needs_kernels
def test_second_derivatives_raise(calls):
    x = torch.randn(1, 2, 30, requires_grad=True)
    (grad,) = torch.autograd.grad(Conv1d(2, 3, 5)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
