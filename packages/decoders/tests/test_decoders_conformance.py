"""Conformance of every decoder, with one entry per component."""

from dataclasses import replace

import pytest
from partita_core import components, lookup
from partita_testing import DECODER_CHECKS, DecoderCase

COMPONENTS = [
    "decoder/adaptive",
    "decoder/consistency",
    "decoder/frames",
    "decoder/genae",
    "decoder/linear",
    "decoder/linear_path",
    "decoder/oobleck",
    "decoder/source_filter",
    "decoder/spectrostream",
]
QUICK_TO_EXPORT = {"decoder/frames", "decoder/linear", "decoder/linear_path"}

MEAN = replace(lookup("decoder/consistency").example(), refines=True, local=True, latents_in_decoder=False)
CASES = {
    "decoder/adaptive": DecoderCase(lookup("decoder/adaptive").example(), dim=2 * 2 * 24, hop=24),
    "decoder/linear_path of decoder/consistency": DecoderCase(lookup("decoder/linear_path")(MEAN, numbers=3)),
}


def test_list_of_components_is_complete():
    registered = components("decoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_decoders.")]


def case(name, check):
    """Exporting takes seconds: in the default suite, one component of this package stands for all."""
    slow = check.__name__ == "exports" and name not in QUICK_TO_EXPORT
    return pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    "name, check", [case(name, check) for name in sorted({*COMPONENTS, *CASES}) for check in DECODER_CHECKS]
)
def test_decoder_conformance(name, check):
    check(CASES.get(name) or DecoderCase(lookup(name).example()))
