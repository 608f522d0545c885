"""Outputs of bottlenecks and of training objectives."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ._checks import as_seeds
from .noise import keyed_noise


class BottleneckOutput(NamedTuple):
    """Output of a bottleneck.

    Attributes:
        values: latents `(batch, dim, frames * K)` that the decoder is trained on (before `expand`).
        codes: `(batch, num_quantizers, frames * K)` int64, or None for a continuous bottleneck.
        losses: loss terms of the bottleneck, unweighted scalars by name; see `Bottleneck.loss_weights`.
        metrics: detached scalars for the log.
    """

    values: Tensor
    codes: Tensor | None
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Posterior(NamedTuple):
    """Gaussian distribution of each latent value; encoding returns its mean.

    Attributes:
        mean: means `(batch, dim, frames * K)`.
        std: standard deviations, of the same shape.
    """

    mean: Tensor
    std: Tensor

    def sample(self, seeds: Tensor | Sequence[int] | int) -> Tensor:
        """Draw a sample of the shape of the mean.

        Args:
            seeds: noise seed, one for the batch or one per item. Each item's noise depends on its own seed alone.
        """
        batch, dim, tokens = self.mean.shape
        noise = keyed_noise(as_seeds(seeds, batch), "posterior", shape=(tokens, dim))
        return self.mean + self.std * noise.mT.to(self.mean)


class StepOutput(NamedTuple):
    """Output of one phase of an objective.

    Attributes:
        total: weighted scalar loss to backpropagate, at least float32.
        losses: unweighted terms by name, detached, for the log.
        metrics: further detached scalars for the log.
        samples: detached outputs of this phase for the next one, or None.
    """

    total: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
    samples: Tensor | None
