"""What every quantizer holds: all that a bottleneck does, and the laws of its codes."""

from typing import Any

import torch
from partita_core.registry import Config
from partita_core.roles import Quantizer

from ._common import Suite, expect, expect_equal, expect_finite, expect_state, refused, state_of
from .bottlenecks import EVERY_BOTTLENECK, BottleneckCase


def codes_are_as_declared(case: BottleneckCase) -> None:
    """`in_dim == dim`; codes are `(batch, num_quantizers, tokens)` int64, each below the size of its codebook."""
    part = case.build()
    expect(isinstance(part, Quantizer), f"{type(part).__name__} is no Quantizer")
    expect(part.in_dim == part.dim, f"in_dim is {part.in_dim}, dim is {part.dim}")
    for mode in (True, False):
        codes = part.train(mode)(*case.inputs(part, frames=50)).codes
        declared = (3, len(part.codebook_sizes), 50)
        expect(tuple(codes.shape) == declared, f"codes are {tuple(codes.shape)}, declared is {declared}")
        expect(codes.dtype == torch.int64, f"codes are {codes.dtype}")
        for level, size in enumerate(part.codebook_sizes):
            low, high = int(codes[:, level].min()), int(codes[:, level].max())
            least = -1 if mode else 0  # training may drop levels
            expect(least <= low and high < size, f"codes of level {level} run from {low} to {high}, of {size}")


def forward_encodes(case: BottleneckCase) -> None:
    """In eval mode `forward(h).codes == encode_codes(h)`."""
    part = case.build()
    inputs = case.inputs(part, frames=20)
    expect_equal(part.encode_codes(*inputs), part(*inputs).codes, "encode_codes against forward", exact=True)


def forward_looks_up(case: BottleneckCase) -> None:
    """In eval mode `forward(h).values == codes_to_values(forward(h).codes)`, bit for bit, in either precision."""
    for dtype in (torch.float64, torch.float32):
        part = case.build(dtype)
        output = part(case.inputs(part, frames=20)[0].to(dtype))
        expect_equal(part.codes_to_values(output.codes), output.values, f"codes_to_values, {dtype}", exact=True)


def fewer_levels_are_a_prefix(case: BottleneckCase) -> None:
    """With `num_quantizers` the first codes are those of all levels, and the rest is -1."""
    part = case.build()
    inputs = case.inputs(part, frames=20)
    codes = part.encode_codes(*inputs)
    for count in range(1, codes.shape[1] + 1):
        expected = torch.cat([codes[:, :count], torch.full_like(codes[:, count:], -1)], dim=1)
        expect_equal(part.encode_codes(*inputs, count), expected, f"the codes of {count} levels", exact=True)


@torch.no_grad()
def dropped_levels_contribute_zero(case: BottleneckCase) -> None:
    """Values are the sum of what each level gives with all others at -1; with all at -1 they are zero.

    Of a quantizer around another one this is asked of the inner one, and of itself that -1 is looked up at all.
    """
    part = case.build()
    codes = part.encode_codes(*case.inputs(part, frames=20))
    expect_finite(part.codes_to_values(torch.full_like(codes, -1)), "the values of codes that are all -1")
    for inner in part.modules():
        if not isinstance(inner, Quantizer) or sum(isinstance(m, Quantizer) for m in inner.modules()) > 1:
            continue
        most = float(inner.codes_to_values(torch.full_like(codes, -1)).abs().max())
        expect(most == 0, f"with all levels at -1 values reach {most:.3g}")
        values = torch.zeros_like(inner.codes_to_values(codes))
        for level in range(codes.shape[1]):
            only = torch.full_like(codes, -1)
            only[:, level] = codes[:, level]
            values = values + inner.codes_to_values(only)
        expect_equal(values, inner.codes_to_values(codes), "the sum of single levels")


def foreign_codes_are_refused(case: BottleneckCase) -> None:
    """Codes beyond their codebook, below -1, of another shape or not integers are refused; narrow integers serve."""
    part = case.build()
    codes = part.encode_codes(*case.inputs(part))
    for level, size in enumerate(part.codebook_sizes):
        for code in (size, 2**40, -2, -(2**40)):
            wrong = codes.clone()
            wrong[-1, level, -1] = code
            if not -1 <= code < size:
                with refused(f"code {code} of level {level}, which has {size}"):
                    part.codes_to_values(wrong)
    for what, wrong in (
        ("floats", codes.double()),
        ("one level more", codes[:, :1].expand(-1, codes.shape[1] + 1, -1)),
    ):
        with refused(f"codes of {what}"):
            part.codes_to_values(wrong)
    if max(part.codebook_sizes) <= 2**31:
        expect_equal(
            part.codes_to_values(codes.int()), part.codes_to_values(codes), "values of int32 codes", exact=True
        )


def codes_survive_autocast(case: BottleneckCase) -> None:
    """The codes of one float32 input are the same under bfloat16 autocast, and so are their values."""
    part = case.build(torch.float32)
    hidden = case.inputs(part, frames=100)[0].float()
    codes = part.encode_codes(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        expect_equal(part.encode_codes(hidden), codes, "encode_codes under autocast", exact=True)
        output = part(hidden)
        expect_equal(output.codes, codes, "forward's codes under autocast", exact=True)
        values = part.codes_to_values(codes)
    expect_equal(values, part.codes_to_values(codes), "values under autocast", exact=True)


def encoding_leaves_state_unchanged(case: BottleneckCase) -> None:
    """Encoding and looking up move nothing, not even in training mode, where the trainer's validation may call them."""
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
        forward_encodes,
        forward_looks_up,
        fewer_levels_are_a_prefix,
        dropped_levels_contribute_zero,
        foreign_codes_are_refused,
        codes_survive_autocast,
        encoding_leaves_state_unchanged,
    ),
)


def check_quantizer(config: Config | Any) -> None:
    """Runs the suite on the quantizer of a Config, or of a `BottleneckCase`.

    Raises:
        AssertionError: a check fails; check, component and figures are named.
    """
    QUANTIZER_CHECKS.check(config)
