"""A discriminator of two layers."""

from partita_core.discriminators import Discriminator, DiscriminatorOutput
from partita_core.ranges import Width
from partita_core.settings import config_of, register
from torch import Tensor, nn


@register("discriminator/two_layers")
class StridedDiscriminator(Discriminator):
    """Two strided convolutions with a leaky ReLU between them."""

    def __init__(self, audio_channels: int = 1, *, channels: Width = 4) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(audio_channels, channels, 5, stride=2, padding=2)
        self.last = nn.Conv1d(channels, 1, 3, padding=1)

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """See `Discriminator`."""
        x = nn.functional.leaky_relu(self.hidden(signal.to(self.hidden.weight.dtype)), 0.1)
        return [DiscriminatorOutput(self.last(x), (x,))]


StridedDiscriminatorConfig = config_of(StridedDiscriminator)
