"""Conformance suite of quantizers: that of bottlenecks, and checks of codes."""

import torch
from partita_core.roles import Quantizer

from ._common import Suite, check, expect, expect_equal, expect_finite, expect_state, raises_partita_error, state_of
from .bottlenecks import EVERY_BOTTLENECK, BottleneckCase, shapes_are_as_declared


@check(shapes_are_as_declared, fix="correct the codes, or the attribute codebook_sizes")
def codes_are_as_declared(case: BottleneckCase) -> None:
    """`in_dim == dim`; codes are `(batch, num_quantizers, tokens)` int64, each below the size of its codebook."""
    part = case.build()
    expect(isinstance(part, Quantizer), f"{type(part).__name__} is not a Quantizer")
    expect(part.in_dim == part.dim, f"in_dim is {part.in_dim}, dim is {part.dim}")
    for mode in (True, False):
        codes = part.train(mode)(*case.inputs(part, frames=50)).codes
        declared = (3, len(part.codebook_sizes), 50)
        expect(tuple(codes.shape) == declared, f"codes are {tuple(codes.shape)}, declared is {declared}")
        expect(codes.dtype == torch.int64, f"codes are {codes.dtype}")
        for level, size in enumerate(part.codebook_sizes):
            low, high = int(codes[:, level].min()), int(codes[:, level].max())
            smallest = -1 if mode else 0  # training may drop levels
            expect(
                smallest <= low and high < size,
                f"codes of level {level} are from {low} to {high}, its codebook has {size}",
            )


@check(codes_are_as_declared, fix="share one code path between forward in eval mode and encode_codes")
def forward_equals_encode_codes(case: BottleneckCase) -> None:
    """In eval mode `forward(h).codes == encode_codes(h)`."""
    part = case.build()
    inputs = case.inputs(part, frames=20)
    expect_equal(part.encode_codes(*inputs), part(*inputs).codes, "encode_codes against forward", exact=True)


@check(codes_are_as_declared, fix="in eval mode return codes_to_values(codes) as the values of forward")
def forward_equals_codes_to_values(case: BottleneckCase) -> None:
    """In eval mode `forward(h).values == codes_to_values(forward(h).codes)`, bit for bit, in both precisions."""
    for dtype in (torch.float64, torch.float32):
        part = case.build(dtype)
        output = part(case.inputs(part, frames=20)[0].to(dtype))
        expect_equal(part.codes_to_values(output.codes), output.values, f"codes_to_values, {dtype}", exact=True)


@check(codes_are_as_declared, fix="set codes of levels from num_quantizers on to -1, and do not change the others")
def fewer_levels_are_a_prefix(case: BottleneckCase) -> None:
    """With `num_quantizers` the first levels equal those of all levels, and the rest is -1."""
    part = case.build()
    inputs = case.inputs(part, frames=20)
    codes = part.encode_codes(*inputs)
    for count in range(1, codes.shape[1] + 1):
        expected = torch.cat([codes[:, :count], torch.full_like(codes[:, count:], -1)], dim=1)
        expect_equal(part.encode_codes(*inputs, count), expected, f"the codes of {count} levels", exact=True)


@check(codes_are_as_declared, fix="add zero for codes of -1 in codes_to_values")
@torch.no_grad()
def dropped_levels_contribute_zero(case: BottleneckCase) -> None:
    """Values are the sum over levels of the values with all other levels at -1; with all at -1 they are zero.

    For a quantizer that contains others, the inner ones are tested; the outer one must accept codes of -1.
    """
    part = case.build()
    codes = part.encode_codes(*case.inputs(part, frames=20))
    expect_finite(part.codes_to_values(torch.full_like(codes, -1)), "the values of codes that are all -1")
    for inner in part.modules():
        if not isinstance(inner, Quantizer) or sum(isinstance(m, Quantizer) for m in inner.modules()) > 1:
            continue
        (hidden,) = case.inputs(inner, frames=20)
        codes = inner.encode_codes(hidden)
        largest = float(inner.codes_to_values(torch.full_like(codes, -1)).abs().max())
        expect(largest == 0, f"with all levels at -1 values reach {largest:.3g}")
        values = torch.zeros_like(inner.codes_to_values(codes))
        for level in range(codes.shape[1]):
            only = torch.full_like(codes, -1)
            only[:, level] = codes[:, level]
            values = values + inner.codes_to_values(only)
        expect_equal(values, inner.codes_to_values(codes), "the sum of single levels")


@check(codes_are_as_declared, fix="begin codes_to_values with codes = self.check_codes(codes)")
def invalid_codes_raise(case: BottleneckCase) -> None:
    """Codes beyond their codebook, below -1, of another shape or of floats raise a PartitaError; int32 codes work."""
    part = case.build()
    codes = part.encode_codes(*case.inputs(part))
    for level, size in enumerate(part.codebook_sizes):
        for code in (size, 2**40, -2, -(2**40)):
            wrong = codes.clone()
            wrong[-1, level, -1] = code
            if not -1 <= code < size:
                with raises_partita_error(f"code {code} of level {level}, which has {size}"):
                    part.codes_to_values(wrong)
    for what, wrong in (
        ("floats", codes.double()),
        ("one level more", codes[:, :1].expand(-1, codes.shape[1] + 1, -1)),
    ):
        with raises_partita_error(f"codes of {what}"):
            part.codes_to_values(wrong)
    if max(part.codebook_sizes) <= 2**31:
        expect_equal(
            part.codes_to_values(codes.int()), part.codes_to_values(codes), "values of int32 codes", exact=True
        )


@check(codes_are_as_declared, fix="run encode_codes and codes_to_values with autocast disabled")
def codes_are_equal_under_autocast(case: BottleneckCase) -> None:
    """Codes of a float32 input are the same under bfloat16 autocast, and so are their values."""
    part = case.build(torch.float32)
    hidden = case.inputs(part, frames=100)[0].float()
    codes = part.encode_codes(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        expect_equal(part.encode_codes(hidden), codes, "encode_codes under autocast", exact=True)
        output = part(hidden)
        expect_equal(output.codes, codes, "forward's codes under autocast", exact=True)
        values = part.codes_to_values(codes)
    expect_equal(values, part.codes_to_values(codes), "values under autocast", exact=True)


@check(codes_are_as_declared, fix="update codebooks and statistics in forward only")
def encoding_leaves_state_unchanged(case: BottleneckCase) -> None:
    """`encode_codes` and `codes_to_values` change no state, even in training mode, where validation may call them."""
    part = case.build().train()
    state = state_of(part)
    codes = part.encode_codes(*case.inputs(part))
    part.codes_to_values(codes)
    expect_state(part, state, "encode_codes or codes_to_values")


QUANTIZER_CHECKS = Suite(
    "quantizer",
    BottleneckCase,
    (
        *EVERY_BOTTLENECK,
        codes_are_as_declared,
        forward_equals_encode_codes,
        forward_equals_codes_to_values,
        fewer_levels_are_a_prefix,
        dropped_levels_contribute_zero,
        invalid_codes_raise,
        codes_are_equal_under_autocast,
        encoding_leaves_state_unchanged,
    ),
)

check_quantizer = QUANTIZER_CHECKS.check
"""Run the suite on the quantizer of a Config, or on a `BottleneckCase`; see `Suite.check`."""
