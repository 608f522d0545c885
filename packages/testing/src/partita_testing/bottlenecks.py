"""What every bottleneck holds, quantizers included."""

from dataclasses import dataclass
from typing import Any

import torch
from partita_core.registry import Config
from partita_core.roles import Bottleneck, BottleneckOutput
from partita_core.streams import Stream, TiledStream, UnboundedError
from torch import Tensor

from ._common import (
    Suite,
    accepted,
    deviation,
    expect,
    expect_equal,
    expect_finite,
    expect_state,
    flatten,
    noise,
    state_of,
)
from ._context import WITH_CONTEXT
from ._parts import EVERY_PART, PartCase

# A change by less than this, relative to the RMS, is rounding.
_FELT = 1e-9


@dataclass(frozen=True)
class BottleneckCase(PartCase):
    """A bottleneck under test.

    Attributes:
        dim: width of its latents; None for the first from 4 on that it accepts.
    """

    dim: int | None = None

    def make(self) -> Bottleneck:
        """The bottleneck as its Config builds it."""
        dims = range(4, 129) if self.dim is None else (self.dim,)
        return self.config.build(dim=accepted(lambda dim: self.config.build(dim=dim), dims, "dim"))

    def units(self, part: Bottleneck) -> tuple[int, int]:
        """One token in, one out."""
        return 1, 1

    def inputs(self, part: Bottleneck, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Hidden frames."""
        return (0.5 * noise(batch, part.in_dim, frames, seed=seed),)

    def per_item(self, result: BottleneckOutput) -> list[Tensor]:
        """Values and codes; losses and metrics are of the batch."""
        return flatten((result.values, result.codes))

    def stream(self, part: Bottleneck, rest: tuple[Tensor, ...], width: int) -> Stream:
        """From hidden frames to values and codes."""
        left, right = part.context
        if left is None or right is None:
            raise UnboundedError("bottlenecks carry no state")
        context = (left, right)
        return TiledStream(lambda x: part(x)[:2], units_in=1, units_out=1, context=context, hop=1, width=width)


def shapes_are_as_declared(case: BottleneckCase) -> None:
    """Widths are as declared for 1, 2, 3 and 5 tokens, before `expand` and after it; codes are where declared."""
    part = case.build()
    expect(isinstance(part, Bottleneck), f"{type(part).__name__} is no Bottleneck")
    expect(case.dim in (None, part.dim), f"dim is declared as {part.dim}, {case.dim} was asked for")
    for tokens in (1, 2, 3, 5):
        for mode in (True, False):
            output = part.train(mode)(*case.inputs(part, frames=tokens))
            expect(isinstance(output, BottleneckOutput), f"forward returns a {type(output).__name__}")
            declared = (3, part.dim, tokens)
            for what, values in (("values", output.values), ("expanded", part.expand(output.values))):
                shape = tuple(values.shape)
                expect(shape == declared, f"{tokens} tokens: {what} are {shape}, declared is {declared}")
            coded = output.codes is not None
            expect(coded == bool(part.codebook_sizes), f"codes are {output.codes}, sizes {part.codebook_sizes}")


def noise_in_eval_is_asked_for(case: BottleneckCase) -> None:
    """In eval mode nothing is random unless `stochastic=True`, which then acts as in training and moves no state."""
    part = case.build()
    inputs = case.inputs(part)
    expected, before = part(*inputs), torch.get_rng_state()
    expect_equal(part(*inputs, stochastic=False), expected, "eval, stochastic=False", exact=True)
    expect(torch.equal(before, torch.get_rng_state()), "eval draws random numbers")
    state = state_of(part)
    torch.manual_seed(1)
    noisy = part(*inputs, stochastic=True).values
    expect_state(part, state, "stochastic=True in eval")
    part = case.build().train()
    clean = part(*inputs, stochastic=False).values
    torch.manual_seed(1)
    trained = part(*inputs, stochastic=True).values
    off = deviation(noisy, expected.values)
    acts = deviation(trained, clean) > _FELT
    expect(acts == (off > _FELT), f"stochastic=True changes eval values by {off:.2g} of the RMS; in training: {acts}")


def posterior_is_of_the_latents(case: BottleneckCase) -> None:
    """The posterior's mean is what eval gives, in training mode too; deviations are finite, none negative."""
    part = case.build()
    inputs = case.inputs(part)
    values = part(*inputs).values
    for mode in (False, True):
        posterior = part.train(mode).posterior(*inputs)
        expect_equal(posterior.mean, values, "the mean of the posterior")
        expect_finite(posterior.std, "the deviations of the posterior")
        expect(posterior.std.shape == values.shape, f"deviations are {tuple(posterior.std.shape)}")
        expect(bool((posterior.std >= 0).all()), f"a deviation is {float(posterior.std.min()):.2g}")
        expect_equal(posterior.sample(3), posterior.sample([3] * len(values)), "samples of one seed", exact=True)


def projection_keeps_latents(case: BottleneckCase) -> None:
    """`project` leaves latents that were encoded where they are, and what it moved before."""
    part = case.build()
    values = part(*case.inputs(part)).values
    # Frames near silence are not quite at the scale of others, hence a tolerance of its own.
    off = deviation(part.project(values), values)
    expect(off < 1e-3, f"project moves encoded latents by {off:.2g} of the RMS")
    moved = part.project(values + noise(*values.shape, seed=5))
    expect(moved.shape == values.shape, f"project gives {tuple(moved.shape)} of {tuple(values.shape)}")
    off = deviation(part.project(moved), moved)
    expect(off < 1e-3, f"projected twice, latents move by {off:.2g} of the RMS")


def not_stochastic_in_training(case: BottleneckCase) -> None:
    """In training with stochastic=False no random number is drawn, and nothing moves."""
    part = case.build().train()
    inputs = case.inputs(part)
    before, state = torch.get_rng_state(), state_of(part)
    first = part(*inputs, stochastic=False)
    expect(torch.equal(before, torch.get_rng_state()), "stochastic=False draws random numbers")
    expect_state(part, state, "stochastic=False in training")
    expect_equal(part(*inputs, stochastic=False), first, "a second call with stochastic=False", exact=True)


def losses_are_claimed(case: BottleneckCase) -> None:
    """In training the losses are scalars, and exactly those that `loss_weights` weighs; metrics are detached."""
    part = case.build().train()
    output = part(*case.inputs(part))
    made, weighed = set(output.losses), set(part.loss_weights)
    expect(made == weighed, f"losses {sorted(made)} are made, {sorted(weighed)} are weighed")
    for name, loss in output.losses.items():
        expect(loss.dim() == 0, f"loss {name} is {tuple(loss.shape)}, not a scalar")
    for name, metric in output.metrics.items():
        expect(metric.dim() == 0, f"metric {name} is {tuple(metric.shape)}, not a scalar")
        expect(not metric.requires_grad, f"metric {name} carries a gradient")


def half_types_are_lifted(case: BottleneckCase) -> None:
    """Hidden frames of a half type, as autocast hands them over, make values and losses of float32."""
    part = case.build(torch.float32).train()
    (hidden,) = case.inputs(part)
    for dtype in (torch.bfloat16, torch.float16):
        output = part(hidden.to(dtype))
        expect(output.values.dtype == torch.float32, f"{dtype} hidden frames make {output.values.dtype} values")
        for name, loss in output.losses.items():
            expect(loss.dtype == torch.float32, f"{dtype} hidden frames make a {loss.dtype} loss {name}")


def bounded_as_declared(case: BottleneckCase) -> None:
    """Where `bounded` is declared, values stay within 1 however large the hidden frames are."""
    part = case.build()
    if part.bounded:
        (hidden,) = case.inputs(part)
        most = float(part(20 * hidden).values.detach().abs().max())
        expect(most <= 1, f"declared bounded, values reach {most:.3g}")


def padding_does_not_count(case: BottleneckCase) -> None:
    """Losses, metrics, running statistics are the same whatever and however much padding follows; its codes are -1.

    Tokens count with all that `context` says they depend on. Where that is unbounded nothing is compared.
    """
    right = case.build().context[1]
    if right is None:
        return
    lengths = torch.tensor([9, 2, 5])
    ends = [int(length) + right for length in lengths]
    (hidden,) = case.inputs(case.build(), frames=max(ends) + 4)
    other = case.inputs(case.build(), frames=max(ends) + 4, seed=2)[0] * 3
    for row, end in enumerate(ends):
        other[row, :, :end] = hidden[row, :, :end]
    for training in (False, True):
        made, states = [], []
        for x in (hidden, other, hidden[..., : max(ends)]):
            part = case.build().train(training)
            torch.manual_seed(0)
            output = part(x, lengths=lengths)
            made.append(output)
            states.append(state_of(part))
        # Noise in values depends on how many there are, and metrics of noisy values with it.
        comparable = made[:2] if training else made
        for what, output in zip(("other padding", "less padding"), comparable[1:]):
            expect_equal(output.losses, made[0].losses, f"losses with {what}")
            expect_equal(output.metrics, made[0].metrics, f"metrics with {what}")
        for what, state in zip(("other padding", "less padding"), states[1:]):
            expect_equal(state, states[0], f"state after a step with {what}")
        if made[0].codes is not None:
            for row, length in enumerate(lengths.tolist()):
                behind = made[0].codes[row, :, length:]
                expect(bool((behind == -1).all()), f"codes behind the end reach {int(behind.max())}, not -1")


def recovers_from_a_step_that_is_not_finite(case: BottleneckCase) -> None:
    """A batch with an item of infinities leaves no parameter or running statistic that is not finite."""
    part = case.build().train()
    (hidden,) = case.inputs(part, frames=8)
    broken = hidden.clone()
    broken[0] = torch.inf
    part.train()(broken)
    for name, tensor in state_of(part).items():
        expect_finite(tensor, f"{name} after a batch that is not finite")
    expect_finite(part.eval()(hidden).values, "values after a batch that is not finite")


EVERY_BOTTLENECK = (
    shapes_are_as_declared,
    *EVERY_PART,
    *WITH_CONTEXT,
    noise_in_eval_is_asked_for,
    not_stochastic_in_training,
    losses_are_claimed,
    half_types_are_lifted,
    bounded_as_declared,
    posterior_is_of_the_latents,
    projection_keeps_latents,
    padding_does_not_count,
    recovers_from_a_step_that_is_not_finite,
)
BOTTLENECK_CHECKS = Suite("bottleneck", BottleneckCase, EVERY_BOTTLENECK)


def check_bottleneck(config: Config | Any) -> None:
    """Runs the suite on the bottleneck of a Config, or of a `BottleneckCase`.

    Raises:
        AssertionError: a check fails; check, component and figures are named.
    """
    BOTTLENECK_CHECKS.check(config)
