"""A discriminator on latents."""

from dataclasses import dataclass
from typing import Self

from partita_core import Config, PartitaError, register
from partita_core.ranges import Layers, Samples, Width
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .complex_stft import LEAK, DiscriminatorOutput


@register("latent_discriminator/convolutional")
@dataclass(frozen=True)
class LatentDiscriminatorConfig(Config):
    """One small convolutional discriminator over latents.

    A role of its own beside the discriminators of audio, since it is built for a width of latents.

    Attributes:
        channels: filters of each hidden layer.
        layers: hidden layers.
        kernel: taps of every convolution, an odd number.
    """

    channels: Width = 128
    layers: Layers = 4
    kernel: Samples = 5

    def __post_init__(self) -> None:
        """Refuse an even kernel, which has no center."""
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise PartitaError(f"kernel is {self.kernel}; it must be odd")

    def build(self, *, dim: int) -> "LatentDiscriminator":
        """Builds it for latents of width `dim`."""
        return LatentDiscriminator(dim, channels=self.channels, layers=self.layers, kernel=self.kernel)

    @classmethod
    def example(cls) -> Self:
        """Two layers of four filters."""
        return cls(channels=4, layers=2, kernel=3)


class LatentDiscriminator(nn.Module):
    """Judges every few neighboring latents by weight-normalised 1-D convolutions with leaky ReLU.

    A patch discriminator, as those of audio codecs are, one dimension lower; Re-Bottleneck (Bralios et al., arXiv
    2507.07867) trains with latent adversarial and feature-matching losses.
    """

    def __init__(self, dim: int, *, channels: int, layers: int, kernel: int) -> None:
        """Builds it for latents of width `dim` and unit variance."""
        super().__init__()

        def conv(channels_in: int, channels_out: int) -> nn.Module:
            return weight_norm(nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2))

        self.hidden = nn.ModuleList(conv(dim if i == 0 else channels, channels) for i in range(layers))
        self.last = conv(channels, 1)

    def forward(self, latents: Tensor) -> list[DiscriminatorOutput]:
        """Judges `(batch, dim, tokens)`; the one entry has logits `(batch, 1, tokens)`."""
        x, features = latents, []
        for layer in self.hidden:
            x = nn.functional.leaky_relu(layer(x), LEAK)
            features.append(x)
        return [DiscriminatorOutput(self.last(x), tuple(features))]
