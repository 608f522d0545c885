"""Discriminator of latents."""

from partita_core import Discriminator, DiscriminatorOutput, PartitaError, config_of, register
from partita_core.ranges import Layers, Samples, Width
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ._discriminators import classify

SLOPE = 0.2


@register("latent_discriminator/convolutional", example={"channels": 4, "layers": 2, "kernel": 3})
class LatentDiscriminator(Discriminator):
    """One patch discriminator: weight-normalized 1-D convolutions over neighboring latents, with leaky ReLU.

    Like the discriminators of audio codecs, with one dimension less; Re-Bottleneck (Bralios et al., arXiv 2507.07867)
    trains with latent adversarial and feature-matching losses. It is a separate role from the discriminators of audio,
    because it is built for a width of latents.

    Args:
        dim: width of the latents, which are expected to have about unit variance.
        channels: filters of each hidden layer.
        layers: number of hidden layers.
        kernel: taps of every convolution, an odd number.

    Raises:
        PartitaError: `kernel` is even.
    """

    def __init__(self, dim: int, *, channels: Width = 128, layers: Layers = 4, kernel: Samples = 5) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise PartitaError(f"kernel is {kernel}; it must be odd")

        def conv(channels_in: int, channels_out: int) -> nn.Module:
            return weight_norm(nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2))

        self.hidden = nn.ModuleList(conv(dim if i == 0 else channels, channels) for i in range(layers))
        self.last = conv(channels, 1)

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify latents `(batch, dim, tokens)`; the logits are `(batch, 1, tokens)`."""
        return [classify(self.hidden, self.last, signal, slope=SLOPE)]


LatentDiscriminatorConfig = config_of(LatentDiscriminator)
