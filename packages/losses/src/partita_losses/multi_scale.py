"""Discriminators of the waveform at several sample rates (MelGAN, HiFi-GAN)."""

import math

from partita_core import Discriminator, DiscriminatorOutput, config_of, register, upcast
from partita_core.ranges import Layers, Width
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ._discriminators import classify

SLOPE = 0.1
# Output width over that of the first layer, kernel, stride and groups of each hidden layer.
LAYERS = ((1, 15, 1, 1), (1, 41, 2, 4), (2, 41, 2, 16), (4, 41, 4, 16), (8, 41, 4, 16), (8, 41, 1, 16), (8, 5, 1, 1))


@register("discriminator/multi_scale", example={"scales": 2, "channels": 4})
class MultiScaleDiscriminators(Discriminator):
    """One discriminator of the waveform per scale; each scale has half the sample rate of the one before.

    From MelGAN (Kumar et al., 2019, arXiv 1910.06711, section 2.3) with the layers of HiFi-GAN (Kong et al., 2020,
    arXiv 2010.05646): grouped, strided 1-D convolutions with leaky ReLU on audio that is averaged over 4 samples at
    every second one. All scales have weight normalization; HiFi-GAN has spectral normalization at the first. All
    channels of the audio are input channels.

    Args:
        audio_channels: channels of the audio.
        scales: number of discriminators; the first one takes the audio itself.
        channels: filters of the first layer; the last hidden layers have 8 times as many.
    """

    def __init__(self, audio_channels: int = 1, *, scales: Layers = 3, channels: Width = 128) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(4, 2, padding=2)
        self.scales = nn.ModuleList(_Scale(audio_channels, channels) for _ in range(scales))

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify `(batch, channels, samples)`; logits of scale i, from 0, are `(batch, 1, samples / 2^(6 + i))`."""
        outputs, x = [], upcast(signal)
        for i, scale in enumerate(self.scales):
            x = self.pool(x) if i else x
            outputs.append(scale(x))
        return outputs


MultiScaleDiscriminatorsConfig = config_of(MultiScaleDiscriminators)


class _Scale(nn.Module):
    def __init__(self, audio_channels: int, channels: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList()
        width = audio_channels
        for ratio, kernel, stride, groups in LAYERS:
            out = ratio * channels
            groups = math.gcd(groups, width, out)  # fewer where the layers are narrow
            conv = nn.Conv1d(width, out, kernel, stride=stride, groups=groups, padding=kernel // 2)
            self.hidden.append(weight_norm(conv))
            width = out
        self.last = weight_norm(nn.Conv1d(width, 1, 3, padding=1))

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        return classify(self.hidden, self.last, audio, slope=SLOPE)
