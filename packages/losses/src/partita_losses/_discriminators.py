"""Building blocks of convolutional discriminators."""

from collections.abc import Iterable

import torch
from einops import rearrange
from partita_blocks import STFT
from partita_core import DiscriminatorOutput
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class ComplexSpectrum(nn.Module):
    """Spectrum with real and imaginary parts as channels; white noise of unit variance has unit variance per bin."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.stft = STFT(n_fft=n_fft, win_length=n_fft, hop=hop, padding="center", nyquist=True)
        self.scale = self.stft.energy**-0.5

    def forward(self, audio: Tensor) -> Tensor:
        """Transform `(batch, channels, samples)` to `(batch, 2 * channels, frames, bins)`, at least float32."""
        spectrum = torch.view_as_real(self.stft(audio)) * self.scale
        # Channels last in memory: half the time of a backward pass on a CPU.
        x = rearrange(spectrum, "batch channels bins frames parts -> batch frames bins (channels parts)")
        return rearrange(x, "batch frames bins channels -> batch channels frames bins")


def stft_conv(
    in_channels: int, out_channels: int, kernel: tuple[int, int], *, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Weight-normalized convolution over (frames, bins), strided over bins and dilated over frames, which it keeps."""
    padding = (dilation * (kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=(1, stride), dilation=(dilation, 1), padding=padding)
    return weight_norm(conv)


def run_layers(layers: Iterable[nn.Module], x: Tensor, *, slope: float) -> list[Tensor]:
    """Outputs of the layers, each after a leaky ReLU; the first layer takes `x` in the type of its weights."""
    features: list[Tensor] = []
    for layer in layers:
        if not features:
            x = x.to(next(layer.parameters()).dtype)
        x = nn.functional.leaky_relu(layer(x), slope)
        features.append(x)
    return features


def classify(layers: Iterable[nn.Module], last: nn.Module, x: Tensor, *, slope: float) -> DiscriminatorOutput:
    """Run the hidden layers and the last one, whose output is the logits."""
    features = run_layers(layers, x, slope=slope)
    return DiscriminatorOutput(last(features[-1]), tuple(features))
