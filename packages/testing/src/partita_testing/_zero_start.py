"""Check of parts that a linear path can stand beside."""

from partita_core.decoder_roles import Decoder, FeedForwardDecoder
from partita_core.errors import PartitaError

from ._common import check, expect, flatten, total
from ._parts import PartCase


@check(fix="override `start_at_zero` to set all layers that end the part to zero, or to raise a PartitaError")
def starts_at_zero(case: PartCase) -> None:
    """After `start_at_zero` the output is zero and parameters have a gradient, unless the part cannot start at zero.

    That holds for encoders and feed-forward decoders, which a linear path can stand beside.
    """
    part = case.build().train()
    if isinstance(part, Decoder) and not isinstance(part, FeedForwardDecoder):
        return
    try:
        part.start_at_zero()
    except PartitaError:
        return
    result = case.run(part, *case.inputs(part))
    peak = max(float(tensor.detach().abs().max()) for tensor in flatten(result))
    expect(peak == 0, f"the output is up to {peak:.2g} instead of zero")
    total(result).backward()
    moving = [p for p in part.parameters() if p.grad is not None and p.grad.any()]
    expect(bool(moving), "no parameter has a gradient")
