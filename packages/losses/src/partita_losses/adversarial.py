"""Adversarial losses: pure functions of what discriminators say.

Each takes the outputs of all discriminators and returns one scalar, at least float32: the mean over discriminators of
the mean over a discriminator's logits (or, for features, over its layers), each logit of equal weight.
"""

from collections.abc import Sequence

import torch
from partita_core import PartitaError, process_mean, upcast
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
    _check_number(real, fake)
    found = [(1 - upcast(r.logits)).relu().mean() + (1 + upcast(f.logits)).relu().mean() for r, f in zip(real, fake)]
    return torch.stack(found).mean()


def hinge_generator_loss(fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """The generator's part of the hinge loss, `-fake`."""
    return torch.stack([-upcast(output.logits).mean() for output in fake]).mean()


def feature_matching_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """The distance of hidden features, relative to the real ones' size: `mean |real - fake| / mean |real|` a layer.

    Both means are over batch, channels, frames and bands, and the size is that in all processes. The real features are
    constants, and so is their size: a loud item counts more than a quiet one, no layer counts more than another
    (EnCodec, arXiv 2210.13438, section 3.4).

    Args:
        real: the outputs for recordings.
        fake: the outputs for samples of the model.

    Raises:
        PartitaError: the two have different numbers of discriminators.
    """
    _check_number(real, fake)
    distances, sizes, shares = [], [], []
    for r, f in zip(real, fake):
        for wanted, given in zip(r.features, f.features):
            wanted, given = upcast(wanted.detach()), upcast(given)
            distances.append((wanted - given).abs().mean())
            sizes.append(wanted.abs().mean().clamp_min(1e-8))
            shares.append(1 / (len(real) * len(r.features)))
    relative = process_mean(torch.stack(distances), torch.stack(sizes))
    return (relative * relative.new_tensor(shares)).sum()


def _check_number(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> None:
    if len(real) != len(fake):
        raise PartitaError(f"{len(real)} discriminators saw the recordings, {len(fake)} the samples; use the same")
