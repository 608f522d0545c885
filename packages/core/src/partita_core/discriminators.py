"""Role of discriminators, which classify signals as real or generated."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from .typed_module import TypedModule


class DiscriminatorOutput(NamedTuple):
    """Output of one discriminator.

    Attributes:
        logits: any shape that begins with the batch; high for signals that are classified as real.
        features: outputs of the hidden layers, batch first, for feature matching.
    """

    logits: Tensor
    features: tuple[Tensor, ...]


class Discriminator(TypedModule, ABC):
    """One or several discriminators of real and generated signals.

    The constructor takes `audio_channels: int = 1` first (a discriminator of latents: `dim: int`), and its settings by
    keyword. All channels of an item are one input: stereo is not classified one channel at a time.

        discriminators = MultiPeriodDiscriminators(audio_channels=2)
        real, fake = discriminators(target), discriminators(prediction.detach())
        hinge_discriminator_loss(real, fake).backward()
    """

    @abstractmethod
    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify audio `(batch, channels, samples)` or latents `(batch, dim, tokens)` of any length.

        Weights may be bfloat16, and autocast may be on: spectra are computed in at least float32.

        Returns:
            One output per discriminator; the numbers of outputs and of features are constant.
        """
