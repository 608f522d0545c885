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

MEAN = replace(lookup("decoder/consistency").example(), refines=True, local=True, latents_in_decoder=False)
CASES = {
    "decoder/adaptive": DecoderCase(lookup("decoder/adaptive").example(), dim=2 * 2 * 24, hop=24),
    "decoder/linear_path of decoder/consistency": DecoderCase(lookup("decoder/linear_path")(MEAN, numbers=3)),
}


def test_list_of_components_is_complete():
    registered = components("decoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_decoders.")]


@pytest.mark.parametrize("check", DECODER_CHECKS)
@pytest.mark.parametrize("name", sorted({*COMPONENTS, *CASES}))
def test_decoder_conformance(name, check):
    check(CASES.get(name) or DecoderCase(lookup(name).example()))
