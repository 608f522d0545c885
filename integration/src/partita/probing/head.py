"""Linear probe: layer norm and one linear layer on pooled features, and its training."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from partita_core import hashed_seed
from partita_core.ranges import Count, Positive, Ranged
from torch import Tensor, nn
from torch.nn import functional as F


class Examples(NamedTuple):
    """Pooled features `(items, width)` and their classes `(items,)` int64."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ProbeSettings(Ranged):
    """Settings of probe training.

    Attributes:
        epochs: passes over the training items.
        lr: learning rate of Adam.
        batch_size: items per step; small, because labeled sets are small and narrow features need some hundred steps.
        seeds: number of probes per source, with different initial weights and orders of the items.
    """

    epochs: Count = 10
    lr: Positive = 1e-3
    batch_size: Count = 8
    seeds: Count = 3


class LinearProbe(nn.Module):
    """Layer norm and one linear layer on pooled features, like the heads of X-ARES.

    Pooling has no parameters, so it is done once before training; see `pooled_features`.

    Args:
        width: width of the features.
        classes: number of classes.
    """

    def __init__(self, width: int, *, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits `(items, classes)` of pooled features `(items, width)`."""
        return self.linear(self.norm(features))


def fit_probe(
    train: Examples, validation: Examples | None, *, classes: int, settings: ProbeSettings, seed: int
) -> LinearProbe:
    """Train a probe with Adam on the cross-entropy.

    Equal seeds give equal probes; sources of equal width have the same initial weights and orders of items.

    Args:
        train: training items.
        validation: items that select the best epoch (by accuracy, then cross-entropy); None for the last epoch.
        classes: number of classes.
        settings: settings of the training.
        seed: random seed of the weights and the order.

    Returns:
        The probe, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed("probe", seed))
        probe = LinearProbe(train.features.shape[1], classes=classes)
    order = torch.Generator().manual_seed(hashed_seed("order", seed))
    optimizer = torch.optim.Adam(probe.parameters(), lr=settings.lr)
    best, kept = None, {}
    for _ in range(settings.epochs):
        for items in torch.randperm(len(train.labels), generator=order).split(settings.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(probe(train.features[items]), train.labels[items]).backward()
            optimizer.step()
        if validation is not None:
            with torch.no_grad():
                logits = probe(validation.features)
            correct = (logits.argmax(1) == validation.labels).sum().item()
            score = correct, -F.cross_entropy(logits, validation.labels).item()
            if best is None or score > best:
                best, kept = score, {name: tensor.clone() for name, tensor in probe.state_dict().items()}
    if kept:
        probe.load_state_dict(kept)
    return probe
