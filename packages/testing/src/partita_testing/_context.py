"""Checks of context: the measured receptive field, and equality of tiled, streamed and full results."""

from collections.abc import Callable
from typing import Any

import torch
from partita_core.roles import Context
from partita_core.streams import Streamable, UnboundedError, concatenate
from torch import Tensor

from ._common import check, expect, expect_equal, flatten, random_splits
from ._parts import PartCase

# Changes smaller than this, relative to the RMS, are rounding errors.
_ROUNDING = 1e-12


@check(fix="set `context` to the measured frames")
def context_is_as_declared(case: PartCase) -> None:
    """The declared context is at least the receptive field measured in float64, and at most a frame or a quarter more.

    If everything up to a frame changes, the result may change up to `context` frames later, and vice versa. A larger
    declaration is allowed to a degree, since the outermost taps of windows and wrapped filters may be zero.
    """
    part = case.build()
    left, right = part.context
    measured = _measure(case, part, (left or 0) + (right or 0) + 8)
    if any(declared is not None and seen > declared for declared, seen in zip((left, right), measured)):
        # The input was just long enough to find that out: measure again, without a bound by what is declared.
        found = measure_context(case)
        raise AssertionError(f"`context` is {(left, right)} frames to the left and right, measured are {found}")
    for side, declared, seen in zip(("left", "right"), (left, right), measured):
        if declared is None:
            continue
        slack = max(1, declared // 4)
        expect(declared - seen <= slack, f"`context` is {declared} frames to the {side}, measured are only {seen}")


def measure_context(case: PartCase, *, max_frames: int = 256) -> Context:
    """Measure the frames on which a frame of a part's result depends: the `context` to declare.

    Args:
        case: case of the part, such as `DecoderCase(VocosDecoderConfig())`; what the part declares is not used.
        max_frames: number of frames of the longest input that is tried.

    Returns:
        Number of frames to the left and to the right; None if the part depends on all `max_frames` frames.
    """
    part, frames = case.build(), min(16, max_frames)
    while True:
        left, right = _measure(case, part, frames)
        if max(left, right) < frames - 1:
            return left, right
        if 2 * frames > max_frames:
            return None if left == frames - 1 else left, None if right == frames - 1 else right
        frames *= 2


def _measure(case: PartCase, part: Any, frames: int) -> tuple[int, int]:
    signal, *rest = case.inputs(part, batch=1, frames=frames)
    other, *_ = case.inputs(part, batch=1, frames=frames, seed=2)

    def fn(rows: Tensor) -> list[Tensor]:
        return case.per_item(case.run(part, rows, *(x.expand(len(rows), *x.shape[1:]) for x in rest)))

    return receptive_field(fn, signal, other, *case.units(part))


@torch.no_grad()
def receptive_field(
    fn: Callable[[Tensor], list[Tensor]], signal: Tensor, other: Tensor, unit_in: int, unit_out: int
) -> tuple[int, int]:
    """Receptive field of `fn`, in frames to the left and right, measured by changing `signal` to `other`.

    An output frame that depends on n frames to its left changes if the input changes up to n frames before it.
    """
    frames = signal.shape[-1] // unit_in
    reference = fn(signal)
    reach = [0, 0]
    for at in range(frames):
        past = torch.arange(signal.shape[-1]) < (at + 1) * unit_in
        future = torch.arange(signal.shape[-1]) >= at * unit_in
        results = fn(torch.cat([torch.where(past, other, signal), torch.where(future, other, signal)]))
        for changed, was in zip(results, reference):
            scale = was.double().square().mean().sqrt().clamp_min(1e-30)
            difference = (changed.double() - was.double()).abs() / scale
            changed_frames = difference.unflatten(-1, (frames, unit_out)).amax(-1).flatten(1, -2).amax(1) > _ROUNDING
            after, before = changed_frames[0].nonzero().flatten(), changed_frames[1].nonzero().flatten()
            reach[0] = max(reach[0], int(after.max()) - at if len(after) else 0)
            reach[1] = max(reach[1], at - int(before.min()) if len(before) else 0)
    return reach[0], reach[1]


@check(
    context_is_as_declared,
    fix="pad by zeros at the ends of the input only, and let outputs depend on no absolute position",
)
@torch.no_grad()
def tiled_equals_whole(case: PartCase) -> None:
    """Tiles with the declared context, or steps with the state, give the result of one pass, for any split."""
    part = case.build()
    frames = sum(side or 0 for side in part.context) + 9
    signal, *rest = case.inputs(part, batch=2, frames=frames)
    full = case.per_item(case.run(part, signal, *rest))
    unit = case.units(part)[0]
    for seed, width in ((1, 1), (2, 3), (3, frames)):
        try:
            stream = case.stream(part, tuple(rest), width)
        except UnboundedError:
            return
        splits = random_splits(frames, seed) if seed > 1 else [frames]
        pieces = signal.split([piece * unit for piece in splits], dim=-1)
        pushed = [stream.push(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
        expect_equal(concatenate(pushed), full, f"in pushes of {splits} frames, tiles of {width}")


@check(fix="build the new state from new tensors")
@torch.no_grad()
def steps_do_not_modify_in_place(case: PartCase) -> None:
    """For a part with a state, `step` does not modify the state that it is given, and accepts zero frames."""
    part = case.build()
    if not isinstance(part, Streamable):
        return
    signal, *rest = case.inputs(part, batch=2)
    state = part.init_state(2, layout=rest[0] if rest else None, device=signal.device, dtype=signal.dtype)
    kept = [tensor.clone() for tensor in flatten(state)]
    first, after = part.step(signal, state)
    expect_equal(state, kept, "the state that a step was given", exact=True)
    expect_equal(part.step(signal, state)[0], first, "a second step on the same state", exact=True)
    nothing, same = part.step(signal[..., :0], after)
    (result,) = case.per_item(nothing)
    expect(result.shape[-1] == 0, f"a step of zero frames returns {tuple(nothing.shape)}")
    expect_equal(part.step(signal, same)[0], part.step(signal, after)[0], "a step after one of zero frames")


WITH_CONTEXT = (context_is_as_declared, tiled_equals_whole)
