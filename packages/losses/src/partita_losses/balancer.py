"""Balancer of losses by their gradients."""

from collections.abc import Mapping

import torch
from partita_core import PartitaError, TypedModule, config_of, is_distributed, register, suggest, upcast
from partita_core.ranges import Positive, Proportion
from torch import Tensor, distributed

SMALLEST_NORM = 1e-12


@register("balancer/gradient", example={"decay": 0.9})
class GradientBalancer(TypedModule):
    """Balancer that turns loss weights into shares of the gradient, whatever the scale of each loss.

    In a plain weighted sum a loss with large gradients dominates, and weights have to be tuned again whenever a loss
    changes. Here the gradient of each loss with respect to the samples is divided by its typical norm before it is
    weighted: with the weights 1 and 3 the second loss contributes three quarters of the gradient (EnCodec, Defossez
    et al., 2022, arXiv 2210.13438, section 3.4).

    With g_i the gradient of loss i with respect to the samples, m_i the running mean of its norm and w_i its weight,
    the gradient that reaches the samples of a batch of B items is

        norm / B * sum_i (w_i / sum_j w_j) * g_i / m_i

    Norms are those of one item, averaged over the batch and over all processes. The running mean is corrected for its
    start, so that the first step is balanced too; a step whose gradient is not finite does not change it. EnCodec does
    not divide by B, so that there the balanced losses grow with the batch in comparison to other losses, which are
    means.

    The gradients with respect to the samples are computed inside; the result needs one ordinary `backward`, which
    passes through the model once. Call the balancer in the `forward` that computed the samples:

        balancer = GradientBalancer({"stft": 1.0, "adversarial": 3.0})
        samples = model(audio)
        losses = {"stft": stft(samples, audio).mean(), "adversarial": hinge_generator_loss(discriminators(samples))}
        balancer(losses, samples).backward()

    A call may have other weights than the constructor, and leave out losses, as a schedule does: shares are those of
    the present losses, and the running means of the others do not change.

    Args:
        weights: weight of each loss by name, not negative and not all zero.
        decay: decay of the running means of the norms, per step.
        norm: norm of the gradient of one item's samples if all losses agree, before division by the number of items.

    Raises:
        PartitaError: a weight is negative or not finite, or the sum of the weights is zero.
    """

    running: Tensor
    seen: Tensor

    def __init__(self, weights: Mapping[str, float], *, decay: Proportion = 0.999, norm: Positive = 1.0) -> None:
        super().__init__()
        self.weights, self.decay, self.norm = dict(weights), decay, norm
        if not (all(0 <= weight < float("inf") for weight in weights.values()) and sum(weights.values()) > 0):
            raise PartitaError(f"weights are {self.weights}; they must be at least 0 and finite, and not all 0")
        self.register_buffer("running", torch.zeros(len(self.weights)))
        self.register_buffer("seen", torch.zeros(len(self.weights)))

    def forward(
        self, losses: Mapping[str, Tensor], samples: Tensor, weights: Mapping[str, float] | None = None
    ) -> Tensor:
        """Weighted sum of the losses, with a balanced gradient with respect to the samples.

        Only `samples` receives a gradient. If it requires none, as in evaluation, the result is the plain sum.

        Args:
            losses: scalars by name, each a function of `samples`.
            samples: `(batch, ...)`, from which the losses were computed.
            weights: weights of the losses in this call, not negative and not all zero; None for those of the
                constructor.

        Returns:
            A scalar, at least float32.

        Raises:
            PartitaError: the names differ from those of the weights, or a loss does not depend on `samples`.
        """
        weights = self.weights if weights is None else weights
        for name in ({*losses} ^ {*weights}) | ({*weights} - {*self.weights}):
            state = "has no weight in" if name in losses else "was not given to"
            raise PartitaError(f"loss {name!r} {state} the balancer; {suggest(name, tuple(self.weights))}")
        weights = {name: weights[name] for name in self.weights if name in weights}  # in the order of the means
        value = torch.stack([weight * upcast(losses[name].detach()) for name, weight in weights.items()]).sum()
        if not (torch.is_grad_enabled() and samples.requires_grad):
            return value
        gradients = self._gradients({name: losses[name] for name in weights}, samples)
        present = [index for index, name in enumerate(self.weights) if name in weights]
        means = self._update(torch.stack([g.flatten(1).norm(dim=1).mean() for g in gradients]), present)
        share = self.norm / len(samples) / sum(weights.values())
        combined = torch.zeros_like(gradients[0])
        for weight, gradient, mean in zip(weights.values(), gradients, means.unbind()):
            combined += gradient * (share * weight / mean.clamp_min(SMALLEST_NORM))
        carrier = (upcast(samples) * combined).sum()
        return value + (carrier - carrier.detach())

    def _gradients(self, losses: Mapping[str, Tensor], samples: Tensor) -> list[Tensor]:
        gradients = []
        *_, last = losses
        for name, loss in losses.items():
            # Losses share graphs (two may come from one discriminator), so none is freed before the last.
            found = None
            if loss.requires_grad:
                (found,) = torch.autograd.grad(loss, samples, retain_graph=name != last, allow_unused=True)
            if found is None:
                raise PartitaError(f"loss {name!r} does not depend on the samples; leave it out of the balancer")
            gradients.append(upcast(found))
        return gradients

    @torch.no_grad()
    def _update(self, norms: Tensor, present: list[int]) -> Tensor:
        """Running means of the present losses, with `norms` added; the mean is kept in training only.

        Norms that are not finite are not added.

        Args:
            norms: norms of the present losses.
            present: their positions among the weights of the constructor.
        """
        if is_distributed():
            distributed.all_reduce(norms)
            norms = norms / distributed.get_world_size()
        norms, finite = norms.to(self.running.dtype), norms.isfinite().all()
        running, seen = self.running[present], self.seen[present]
        running = torch.where(finite, torch.lerp(norms, running, self.decay), running)
        seen = torch.where(finite, torch.lerp(torch.ones_like(seen), seen, self.decay), seen)
        if self.training:
            self.running[present] = running
            self.seen[present] = seen
        return running / seen.clamp_min(torch.finfo(seen.dtype).tiny)  # seen is 0 if no step was finite yet


GradientBalancerConfig = config_of(GradientBalancer)
