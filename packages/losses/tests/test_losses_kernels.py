"""Kernels of the spectral losses on a CPU: values and gradients equal those of torch's operations in float64."""

from collections.abc import Callable

import pytest
import torch
from partita_blocks import STFT, why_no_kernels
from partita_blocks.native import _spectra_cpu
from partita_losses import MultiResolutionSTFT, MultiScaleMel

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=f"no kernels: {why_no_kernels()}")

RATE = 16_000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels take signals of any length."""
    monkeypatch.setattr(_spectra_cpu, "_MIN_SAMPLES", 1)


@pytest.fixture
def calls(monkeypatch) -> set[str]:
    """Names of the kernel functions that are called."""
    found: set[str] = set()
    for name in ("make_frames", "add_frames", "magnitudes", "scale_spectrum", "view_sums", "view_slopes"):
        monkeypatch.setattr(_spectra_cpu, name, recorded(getattr(_spectra_cpu, name), found))
    return found


def recorded(call: Callable[..., torch.Tensor], names: set[str]) -> Callable[..., torch.Tensor]:
    """`call`, which adds its name to `names`."""

    def run(*args, **kwargs) -> torch.Tensor:
        names.add(call.__name__)
        return call(*args, **kwargs)

    return run


def signals(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction and a target of three levels, with silence in one of each."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(3, channels, 3000, generator=generator) * torch.tensor([1e-3, 0.1, 0.5]).view(-1, 1, 1)
    prediction = target + 0.3 * target.abs().mean((1, 2), keepdim=True) * torch.randn(target.shape, generator=generator)
    target[0, :, 1000:1500] = 0
    prediction[2, :, 2000:] = 0
    return prediction, target


@pytest.mark.parametrize("lengths", [None, [3000, 3000, 3000], [3000, 2500, 900]])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ["stft", "mel"])
def test_losses_with_kernels_equal_float64(name, channels, lengths, calls):
    if name == "stft":
        sizes = {"n_ffts": (256, 64, 96), "win_lengths": (251, 61, 90), "hops": (61, 17, 20)}
        loss = MultiResolutionSTFT(RATE, channels, **sizes)
        expected = {"make_frames", "add_frames", "view_sums", "view_slopes"}
    else:
        loss = MultiScaleMel(RATE, num_mels=(10, 50), win_lengths=(64, 256))
        expected = {"make_frames", "add_frames", "magnitudes", "scale_spectrum"}
    prediction, target = signals(channels)

    def run(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        x = prediction.to(dtype).requires_grad_()
        value = loss(x, target.to(dtype), lengths=lengths)
        return value, torch.autograd.grad(value.sum(), x)[0]

    exact = run(torch.float64)
    assert not calls  # float64 takes torch's operations
    value, gradient = run(torch.float32)
    assert calls == expected
    torch.testing.assert_close(value.double(), exact[0], rtol=1e-5, atol=1e-6)
    for one, other in zip(gradient.double(), exact[1]):
        # Signs of differences that are rounding errors may differ.
        assert float((one - other).norm()) < 1e-3 * float(other.norm())


@pytest.mark.parametrize("n_fft", [32, 33])
@pytest.mark.parametrize("padding", ["center", "same", "none"])
@pytest.mark.parametrize("samples", [40, 500])
def test_stft_and_adjoint_with_kernels_equal_those_without(n_fft, padding, samples, calls, monkeypatch):
    stft = STFT(n_fft=n_fft, hop=9, win_length=30, padding=padding, nyquist=n_fft % 2 == 1 or padding != "same")
    audio = torch.randn(2, 3, samples, generator=torch.Generator().manual_seed(0))
    spectrum = stft(audio)
    gradient = stft.adjoint(spectrum, samples)
    assert calls == {"make_frames", "add_frames"}
    monkeypatch.setattr(_spectra_cpu, "serves", lambda x: False)
    torch.testing.assert_close(stft(audio), spectrum, rtol=0, atol=1e-5)
    wanted = stft.adjoint(spectrum, samples)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_stft_of_an_input_with_gradient_is_differentiable(calls):
    audio = torch.randn(1, 200, requires_grad=True)
    STFT(n_fft=32, hop=8)(audio).abs().sum().backward()
    assert audio.grad is not None and not calls


def test_loss_of_non_finite_prediction_is_not_finite():
    prediction, target = signals(1)
    prediction[1, 0, 700] = torch.nan
    for loss in (MultiResolutionSTFT(RATE, n_ffts=(64,), win_lengths=(61,), hops=(17,)), MultiScaleMel(RATE)):
        value = loss(prediction, target)
        assert value.isfinite().tolist() == [True, False, True]
