"""A discriminator of the waveform."""

from partita_core import Discriminator, DiscriminatorOutput, config_of, register
from partita_core.ranges import Layers, Width
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


@register("discriminator/newcomer", example={"layers": 2, "channels": 4})
class Newcomer(Discriminator):
    """One discriminator of the waveform with strided convolutions; all channels of the audio are input channels.

    Args:
        audio_channels: channels of the audio.
        layers: number of hidden layers, each with a stride of 4.
        channels: width of the hidden layers.
    """

    def __init__(self, audio_channels: int = 1, *, layers: Layers = 4, channels: Width = 64) -> None:
        super().__init__()
        widths = [audio_channels, *[channels] * layers]
        hidden = (nn.Conv1d(a, b, 15, stride=4, padding=7) for a, b in zip(widths, widths[1:]))
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Conv1d(channels, 1, 3, padding=1)

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify `(batch, channels, samples)`; the logits are `(batch, 1, samples / 4^layers)`, rounded up."""
        x, features = signal.to(self.last.weight.dtype), []
        for layer in self.hidden:
            x = leaky_relu(layer(x), 0.1)
            features.append(x)
        return [DiscriminatorOutput(self.last(x), tuple(features))]


NewcomerConfig = config_of(Newcomer)
