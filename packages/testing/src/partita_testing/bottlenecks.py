"""Conformance suite of bottlenecks, which quantizers pass as well."""

from dataclasses import dataclass

import torch
from partita_core.role_outputs import BottleneckOutput
from partita_core.roles import Bottleneck
from partita_core.streams import Stream, TiledStream, UnboundedError
from torch import Tensor

from ._common import (
    Suite,
    check,
    deviation,
    expect,
    expect_equal,
    expect_finite,
    expect_state,
    first_accepted,
    flatten,
    noise,
    state_of,
)
from ._context import WITH_CONTEXT
from ._part_state import EVERY_PART
from ._parts import PartCase

# Changes smaller than this, relative to the RMS, are rounding errors.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class BottleneckCase(PartCase):
    """A bottleneck under test.

    Attributes:
        dim: number of channels of its latents; None for the first from 4 on that it accepts.
    """

    dim: int | None = None

    def make(self) -> Bottleneck:
        """Build the bottleneck from its Config."""
        dims = range(4, 129) if self.dim is None else (self.dim,)
        return self.config.build(dim=first_accepted(lambda dim: self.config.build(dim=dim), dims, "dim"))

    def units(self, part: Bottleneck) -> tuple[int, int]:
        """One token to one token."""
        return 1, 1

    def inputs(self, part: Bottleneck, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Hidden frames."""
        return (0.5 * noise(batch, part.in_dim, frames, seed=seed),)

    def per_item(self, result: BottleneckOutput) -> list[Tensor]:
        """Values and codes; losses and metrics are per batch."""
        return flatten((result.values, result.codes))

    def stream(self, part: Bottleneck, rest: tuple[Tensor, ...], width: int) -> Stream:
        """Stream from hidden frames to values and codes."""
        left, right = part.context
        if left is None or right is None:
            raise UnboundedError("bottlenecks have no state")
        context = (left, right)
        return TiledStream(lambda x: part(x)[:2], units_in=1, units_out=1, context=context, hop=1, width=width)


@check(fix="correct the shapes, or the attributes dim, in_dim and codebook_sizes")
def shapes_are_as_declared(case: BottleneckCase) -> None:
    """Values, before and after `expand`, have the declared shape for 1, 2, 3 and 5 tokens; codes exist if declared."""
    part = case.build()
    expect(isinstance(part, Bottleneck), f"{type(part).__name__} is not a Bottleneck")
    expect(case.dim in (None, part.dim), f"dim is {part.dim}, the Config was built with {case.dim}")
    for tokens in (1, 2, 3, 5):
        for mode in (True, False):
            output = part.train(mode)(*case.inputs(part, frames=tokens))
            expect(isinstance(output, BottleneckOutput), f"forward returns a {type(output).__name__}")
            expanded = part.expand(output.values)
            for what, values, width in (("values", output.values, part.dim), ("expanded", expanded, part.expanded_dim)):
                shape, declared = tuple(values.shape), (3, width, tokens)
                expect(shape == declared, f"{what} of {tokens} tokens are {shape}, declared is {declared}")
            coded = output.codes is not None
            expect(
                coded == bool(part.codebook_sizes), f"codes are {output.codes}, codebook_sizes {part.codebook_sizes}"
            )


@check(
    shapes_are_as_declared,
    fix="draw noise only if self.is_stochastic(stochastic), and update state only if also self.training",
)
def eval_noise_is_opt_in(case: BottleneckCase) -> None:
    """In eval mode nothing is random unless `stochastic=True`, which adds noise as in training and changes no state."""
    part = case.build()
    inputs = case.inputs(part)
    expected, random_state = part(*inputs), torch.get_rng_state()
    expect_equal(part(*inputs, stochastic=False), expected, "eval, stochastic=False", exact=True)
    expect(torch.equal(random_state, torch.get_rng_state()), "eval mode draws random numbers")
    state = state_of(part)
    torch.manual_seed(1)
    noisy = part(*inputs, stochastic=True).values
    expect_state(part, state, "stochastic=True in eval")
    change = deviation(noisy, expected.values)
    torch.manual_seed(1)
    trained = part.train()(*inputs, stochastic=True).values
    updated = part.eval()(*inputs).values
    # Running statistics and codebooks may be updated before or after they are used.
    change_in_training = min(deviation(trained, expected.values), deviation(trained, updated))
    expect(
        (change_in_training > _ROUNDING) == (change > _ROUNDING),
        f"noise changes values by {change:.2g} of the RMS in eval mode with stochastic=True, and by "
        f"{change_in_training:.2g} in training",
    )


@check(shapes_are_as_declared, fix="draw noise and update state only if `stochastic` is not False")
def training_without_noise_is_deterministic(case: BottleneckCase) -> None:
    """In training mode with `stochastic=False` no random number is drawn, and no state changes."""
    part = case.build().train()
    inputs = case.inputs(part)
    before, state = torch.get_rng_state(), state_of(part)
    first = part(*inputs, stochastic=False)
    expect(torch.equal(before, torch.get_rng_state()), "stochastic=False draws random numbers")
    expect_state(part, state, "stochastic=False in training")
    expect_equal(part(*inputs, stochastic=False), first, "a second call with stochastic=False", exact=True)


@check(
    shapes_are_as_declared,
    training_without_noise_is_deterministic,
    fix="return Posterior(mean, std) with the mean of eval mode and std >= 0",
)
def posterior_mean_equals_latents(case: BottleneckCase) -> None:
    """The posterior mean equals the values of eval mode, in training mode too; std is finite and not negative."""
    part = case.build()
    inputs = case.inputs(part)
    values = part(*inputs).values
    for mode in (False, True):
        posterior = part.train(mode).posterior(*inputs)
        expect_equal(posterior.mean, values, "the posterior mean")
        expect_finite(posterior.std, "the posterior standard deviation")
        expect(
            posterior.std.shape == values.shape,
            f"std is {tuple(posterior.std.shape)}, values are {tuple(values.shape)}",
        )
        expect(bool((posterior.std >= 0).all()), f"std reaches {float(posterior.std.min()):.2g}")
        expect_equal(posterior.sample(3), posterior.sample([3] * len(values)), "samples of one seed", exact=True)


@check(shapes_are_as_declared, fix="make `project` idempotent, and the identity on encoded latents")
def projection_keeps_latents(case: BottleneckCase) -> None:
    """`project` does not change encoded latents, and is idempotent."""
    part = case.build()
    values = part(*case.inputs(part)).values
    # Frames near silence are not exactly on the scale of others, hence the tolerance.
    error = deviation(part.project(values), values)
    expect(error < 1e-3, f"project changes encoded latents by {error:.2g} of the RMS")
    moved = part.project(values + noise(*values.shape, seed=5))
    expect(moved.shape == values.shape, f"project maps {tuple(values.shape)} to {tuple(moved.shape)}")
    error = deviation(part.project(moved), moved)
    expect(error < 1e-3, f"a second project changes latents by {error:.2g} of the RMS")


@check(fix="give each loss in BottleneckOutput.losses a weight in `loss_weights`, and detach metrics")
def losses_have_weights(case: BottleneckCase) -> None:
    """In training the losses are scalars with exactly the names in `loss_weights`; metrics are detached scalars."""
    part = case.build().train()
    output = part(*case.inputs(part))
    losses, weights = sorted(output.losses), sorted(part.loss_weights)
    expect(losses == weights, f"losses are {losses}, loss_weights has {weights}")
    for name, loss in output.losses.items():
        expect(loss.dim() == 0, f"loss {name} is {tuple(loss.shape)}, not a scalar")
    for name, metric in output.metrics.items():
        expect(metric.dim() == 0, f"metric {name} is {tuple(metric.shape)}, not a scalar")
        expect(not metric.requires_grad, f"metric {name} has a gradient")


@check(shapes_are_as_declared, fix="apply partita_core.upcast to the hidden frames")
def half_precision_is_upcast(case: BottleneckCase) -> None:
    """Hidden frames of a half type, as under autocast, give float32 values and losses."""
    part = case.build(torch.float32).train()
    (hidden,) = case.inputs(part)
    for dtype in (torch.bfloat16, torch.float16):
        output = part(hidden.to(dtype))
        expect(output.values.dtype == torch.float32, f"{dtype} hidden frames give {output.values.dtype} values")
        for name, loss in output.losses.items():
            expect(loss.dtype == torch.float32, f"{dtype} hidden frames give a {loss.dtype} loss {name}")


@check(fix="bound the values, or set bounded = False")
def bounded_as_declared(case: BottleneckCase) -> None:
    """If `bounded` is declared, values stay within [-1, 1] for any hidden frames."""
    part = case.build()
    if part.bounded:
        (hidden,) = case.inputs(part)
        largest = float(part(20 * hidden).values.detach().abs().max())
        expect(largest <= 1, f"bounded is True, but values reach {largest:.3g}")


@check(shapes_are_as_declared, fix="use partita_core.mean_within, tokens_within and codes_within with `lengths`")
def padding_is_ignored(case: BottleneckCase) -> None:
    """Losses, metrics and running statistics do not depend on the padding or its amount; codes of padding are -1.

    Tokens within `context` of an item's tokens are not padding. Parts of unbounded context are not tested.
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
        outputs, states = [], []
        for x in (hidden, other, hidden[..., : max(ends)]):
            part = case.build().train(training)
            torch.manual_seed(0)
            output = part(x, lengths=lengths)
            outputs.append(output)
            states.append(state_of(part))
        # Noise depends on the number of tokens, and so do metrics of noisy values.
        comparable = outputs[:2] if training else outputs
        for what, output in zip(("other padding", "less padding"), comparable[1:]):
            expect_equal(output.losses, outputs[0].losses, f"losses with {what}")
            expect_equal(output.metrics, outputs[0].metrics, f"metrics with {what}")
        for what, state in zip(("other padding", "less padding"), states[1:]):
            expect_equal(state, states[0], f"state after a step with {what}")
        if outputs[0].codes is not None:
            for row, length in enumerate(lengths.tolist()):
                padding = outputs[0].codes[row, :, length:]
                expect(bool((padding == -1).all()), f"codes of padding reach {int(padding.max())}, not -1")


@check(fix="update running averages with partita_core.update_average, which ignores non-finite elements")
def recovers_from_nonfinite_step(case: BottleneckCase) -> None:
    """A batch with an item of infinities leaves all parameters and running statistics finite."""
    part = case.build().train()
    (hidden,) = case.inputs(part, frames=8)
    broken = hidden.clone()
    broken[0] = torch.inf
    part.train()(broken)
    for name, tensor in state_of(part).items():
        expect_finite(tensor, f"{name} after a batch with infinities")
    expect_finite(part.eval()(hidden).values, "values after a batch with infinities")


EVERY_BOTTLENECK = (
    shapes_are_as_declared,
    *EVERY_PART,
    *WITH_CONTEXT,
    eval_noise_is_opt_in,
    training_without_noise_is_deterministic,
    losses_have_weights,
    half_precision_is_upcast,
    bounded_as_declared,
    posterior_mean_equals_latents,
    projection_keeps_latents,
    padding_is_ignored,
    recovers_from_nonfinite_step,
)
BOTTLENECK_CHECKS = Suite("bottleneck", BottleneckCase, EVERY_BOTTLENECK)

check_bottleneck = BOTTLENECK_CHECKS.check
"""Run the suite on the bottleneck of a Config, or on a `BottleneckCase`; see `Suite.check`."""
