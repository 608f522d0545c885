"""Adversarial losses: pure functions of the outputs of discriminators.

Each function returns one scalar, at least float32: the mean over discriminators of the mean over a discriminator's
logits (or, for features, over its layers). Every logit of a discriminator has equal weight.

    objective = ADVERSARIAL_LOSSES["hinge"]
    loss = objective.discriminator(discriminators(target), discriminators(prediction.detach()))
    loss = objective.generator(discriminators(prediction))
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from partita_core import DiscriminatorOutput, PartitaError, process_mean, upcast
from torch import Tensor


def hinge_discriminator_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Hinge loss of the discriminators, `relu(1 - real) + relu(1 + fake)` (Lim and Ye, 2017, arXiv 1705.02894).

    Its value is 2 for discriminators that return zero, the best at chance, and 0 for perfect ones.

    Args:
        real: outputs for recordings.
        fake: outputs for detached samples of the model.

    Raises:
        PartitaError: the numbers of outputs differ, or there are none.
    """
    _check_number(real, fake)
    return _mean([(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(_logits(real), _logits(fake))])


def hinge_generator_loss(fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Generator's part of the hinge loss, `-fake`."""
    return _mean([-f.mean() for f in _logits(fake)])


def least_squares_discriminator_loss(
    real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]
) -> Tensor:
    """Least-squares loss of the discriminators, `(1 - real)^2 + fake^2` (LSGAN, Mao et al., 2017, arXiv 1611.04076).

    Its value is 0.5 for discriminators that return 0.5, the best at chance, and 0 for perfect ones.

    Args:
        real: outputs for recordings.
        fake: outputs for detached samples of the model.

    Raises:
        PartitaError: the numbers of outputs differ, or there are none.
    """
    _check_number(real, fake)
    return _mean([(1 - r).square().mean() + f.square().mean() for r, f in zip(_logits(real), _logits(fake))])


def least_squares_generator_loss(fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Generator's part of the least-squares loss, `(1 - fake)^2`."""
    return _mean([(1 - f).square().mean() for f in _logits(fake)])


class AdversarialLoss(NamedTuple):
    """Pair of adversarial losses.

    Attributes:
        discriminator: loss of the discriminators, a function of their outputs for recordings and for samples.
        generator: loss of the generator, a function of the outputs for samples.
        chance: value of `discriminator` at chance: the minimum over logits that are the same for all signals.
    """

    discriminator: Callable[[Sequence[DiscriminatorOutput], Sequence[DiscriminatorOutput]], Tensor]
    generator: Callable[[Sequence[DiscriminatorOutput]], Tensor]
    chance: float


ADVERSARIAL_LOSSES = {
    "hinge": AdversarialLoss(hinge_discriminator_loss, hinge_generator_loss, chance=2.0),
    "least_squares": AdversarialLoss(least_squares_discriminator_loss, least_squares_generator_loss, chance=0.5),
}
"""Adversarial losses by name."""


def feature_matching_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Relative distance of hidden features: `mean |real - fake| / mean |real|`, averaged over layers.

    Both means are over batch, channels, frames and bands, the denominator's over all processes too. Gradients do not
    reach the real features or their mean. A loud item counts more than a quiet one, but no layer more than another
    (EnCodec, arXiv 2210.13438, section 3.4).

    Args:
        real: outputs for recordings.
        fake: outputs for samples of the model.

    Raises:
        PartitaError: the numbers of outputs differ, or there are no features.
    """
    _check_number(real, fake)
    distances, sizes, shares = [], [], []
    for r, f in zip(real, fake):
        for target, prediction in zip(r.features, f.features):
            target, prediction = upcast(target.detach()), upcast(prediction)
            distances.append((target - prediction).abs().mean())
            sizes.append(target.abs().mean().clamp_min(1e-8))
            shares.append(1 / (len(real) * len(r.features)))
    if not distances:
        raise PartitaError("there are no features of hidden layers to match; drop the feature matching loss")
    relative = process_mean(torch.stack(distances), torch.stack(sizes))
    return (relative * relative.new_tensor(shares)).sum()


def _logits(outputs: Sequence[DiscriminatorOutput]) -> list[Tensor]:
    if not outputs:
        raise PartitaError("there are no discriminator outputs; pass one per discriminator")
    return [upcast(output.logits) for output in outputs]


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()


def _check_number(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> None:
    if len(real) != len(fake):
        raise PartitaError(
            f"{len(real)} discriminator outputs for recordings, {len(fake)} for samples; use the same discriminators"
        )
