"""A balancer of losses by their gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, PartitaError, is_distributed, register, suggest, upcast
from partita_core.ranges import Positive, Proportion
from torch import Tensor, distributed, nn

SMALLEST_NORM = 1e-12


@register("balancer/gradient")
@dataclass(frozen=True)
class GradientBalancerConfig(Config):
    """Losses weighed by their gradients on the samples (EnCodec).

    Attributes:
        decay: of the running mean of the norms, a step.
        norm: that the gradient of one item's samples has in all, over the number of items.
    """

    decay: Proportion = 0.999
    norm: Positive = 1.0

    def build(self, *, names: tuple[str, ...]) -> "GradientBalancer":
        """Builds the balancer of the losses called `names`."""
        return GradientBalancer(names=names, decay=self.decay, norm=self.norm)

    @classmethod
    def example(cls) -> Self:
        """One with a short memory."""
        return cls(decay=0.9)


class GradientBalancer(nn.Module):
    """Gives each loss the share of the gradient that its weight says, whatever its scale.

    From EnCodec (Defossez et al., 2022, arXiv 2210.13438, section 3.4). With g_i the gradient of loss i by the samples
    and m_i the running mean of its norm, the gradient that reaches the samples of a batch of B items is
    `norm / B * sum_i (w_i / sum_j w_j) * g_i / m_i`. Norms are those of one item, averaged over the batch and over all
    processes; the running mean is corrected for its start, so that the first step is balanced too. In EnCodec there is
    no B: a larger batch, or fewer processes, there weighs the balanced losses more beside all others, which are means.
    A step with a gradient that is not finite moves no running mean.

    The gradients by the samples are taken inside; what is returned needs one ordinary `backward`, which goes through
    the model once. It belongs in the `forward` that made the samples.
    """

    running: Tensor
    seen: Tensor

    def __init__(self, *, names: tuple[str, ...], decay: float, norm: float) -> None:
        """Takes what is fixed for a run.

        Args:
            names: of the losses.
            decay: of the running mean of the norms, a step.
            norm: that the gradient of one item's samples has in all, over the number of items.
        """
        super().__init__()
        self.names, self.decay, self.norm = tuple(names), decay, norm
        self.register_buffer("running", torch.zeros(len(self.names)))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], samples: Tensor) -> Tensor:
        """The weighted sum of the losses, whose gradient by the samples is balanced.

        Nothing but `samples` receives a gradient. Where they need none, as in evaluation, the plain sum is returned.

        Args:
            losses: scalars by name, each a function of `samples`.
            weights: by the same names; not negative, and not all zero.
            samples: `(batch, ...)`, from which the losses were computed.

        Returns:
            A scalar, at least float32.

        Raises:
            PartitaError: names differ from those the balancer was built for, or a loss does not depend on `samples`.
        """
        for given in (losses, weights):
            for name in {*given} ^ {*self.names}:
                state = "unknown to" if name in given else "missing from what was given to"
                raise PartitaError(f"loss {name!r} is {state} the balancer; {suggest(name, self.names)}")
        value = torch.stack([weights[name] * upcast(losses[name].detach()) for name in self.names]).sum()
        if not (torch.is_grad_enabled() and samples.requires_grad):
            return value
        gradients = self._gradients(losses, samples)
        means = self._update(torch.stack([g.flatten(1).norm(dim=1).mean() for g in gradients]))
        share = self.norm / len(samples) / sum(weights[name] for name in self.names)
        combined = torch.zeros_like(gradients[0])
        for name, gradient, mean in zip(self.names, gradients, means.unbind()):
            combined += gradient * (share * weights[name] / mean.clamp_min(SMALLEST_NORM))
        carrier = (upcast(samples) * combined).sum()
        return value + (carrier - carrier.detach())

    def _gradients(self, losses: Mapping[str, Tensor], samples: Tensor) -> list[Tensor]:
        gradients = []
        for name in self.names:
            # Losses share graphs (two may come from one discriminator), so none is freed before the last.
            found = None
            if losses[name].requires_grad:
                retain = name != self.names[-1]
                (found,) = torch.autograd.grad(losses[name], samples, retain_graph=retain, allow_unused=True)
            if found is None:
                raise PartitaError(f"loss {name!r} does not depend on the samples; leave it out of the balancer")
            gradients.append(upcast(found))
        return gradients

    @torch.no_grad()
    def _update(self, norms: Tensor) -> Tensor:
        """The running means with `norms` in them; kept in training only. Norms that are not finite leave them alone."""
        if is_distributed():
            distributed.all_reduce(norms)
            norms = norms / distributed.get_world_size()
        norms, finite = norms.to(self.running.dtype), norms.isfinite().all()
        running = torch.where(finite, torch.lerp(norms, self.running, self.decay), self.running)
        seen = torch.where(finite, torch.lerp(torch.ones_like(self.seen), self.seen, self.decay), self.seen)
        if self.training:
            self.running.copy_(running)
            self.seen.copy_(seen)
        return running / seen.clamp_min(torch.finfo(seen.dtype).tiny)  # nothing seen: the first step was not finite
