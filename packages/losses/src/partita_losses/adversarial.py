"""Adversarial losses: pure functions of what discriminators say.

Each takes the outputs of all discriminators and returns one scalar, at least float32: the mean over discriminators of
the mean over a discriminator's logits (or, for features, over its layers), each logit of equal weight.
"""

from collections.abc import Callable, Sequence

import torch
from partita_core import PartitaError, upcast
from torch import Tensor

from .complex_stft import DiscriminatorOutput


def hinge_discriminator_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """The hinge loss of the discriminators, `relu(1 - real) + relu(1 + fake)` (Lim and Ye, 2017, arXiv 1705.02894).

    Args:
        real: the outputs for recordings.
        fake: the outputs for detached samples of the model.

    Raises:
        PartitaError: the two have different numbers of discriminators.
    """
    return _mean_over(real, fake, lambda r, f: (1 - upcast(r.logits)).relu().mean() + _margin(f))


def hinge_generator_loss(fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """The generator's part of the hinge loss, `-fake`."""
    return torch.stack([-upcast(output.logits).mean() for output in fake]).mean()


def feature_matching_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """The distance of hidden features, relative to the real ones' size: `mean |real - fake| / mean |real|` a layer.

    Both means are over batch, channels, frames and bands. The real features are constants, and so is their size: a
    loud item counts more than a quiet one, no layer counts more than another (EnCodec, arXiv 2210.13438, section 3.4).

    Args:
        real: the outputs for recordings.
        fake: the outputs for samples of the model.

    Raises:
        PartitaError: the two have different numbers of discriminators.
    """
    return _mean_over(real, fake, _feature_distance)


def _margin(fake: DiscriminatorOutput) -> Tensor:
    return (1 + upcast(fake.logits)).relu().mean()


def _feature_distance(real: DiscriminatorOutput, fake: DiscriminatorOutput) -> Tensor:
    distances = []
    for r, f in zip(real.features, fake.features):
        r, f = upcast(r.detach()), upcast(f)
        distances.append((r - f).abs().mean() / r.abs().mean().clamp_min(1e-8))
    return torch.stack(distances).mean()


def _mean_over(
    real: Sequence[DiscriminatorOutput],
    fake: Sequence[DiscriminatorOutput],
    distance: Callable[[DiscriminatorOutput, DiscriminatorOutput], Tensor],
) -> Tensor:
    if len(real) != len(fake):
        raise PartitaError(f"{len(real)} discriminators saw the recordings, {len(fake)} the samples; use the same")
    return torch.stack([distance(r, f) for r, f in zip(real, fake)]).mean()
