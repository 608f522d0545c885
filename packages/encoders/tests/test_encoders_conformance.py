"""Conformance of every encoder, with one entry per component."""

from dataclasses import replace

import pytest
from partita_core import components, lookup
from partita_encoders import FrameEncoderConfig
from partita_testing import ENCODER_CHECKS, EncoderCase

COMPONENTS = [
    "encoder/adaptive",
    "encoder/frames",
    "encoder/genae",
    "encoder/linear",
    "encoder/linear_path",
    "encoder/oobleck",
    "encoder/spectrostream",
    "encoder/summary",
]
VARIANTS = {
    "frames_pitch": replace(FrameEncoderConfig.example(), hop=160, window=0.024, pitch=True),
    "frames_bands": replace(FrameEncoderConfig.example(), bands=5),
}
OUT_DIMS = {"encoder/adaptive": 50}  # two side numbers, and 24 bins for each of two channels
QUICK_TO_EXPORT = {"encoder/frames", "encoder/linear", "encoder/oobleck"}


def test_list_of_components_is_complete():
    registered = components("encoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_encoders.")]


def case(name, check):
    """Exporting takes seconds: in the default suite, one component of this package stands for all."""
    slow = check.__name__ == "exports" and name not in QUICK_TO_EXPORT
    return pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    "name, check", [case(name, check) for name in (*COMPONENTS, *VARIANTS) for check in ENCODER_CHECKS]
)
def test_encoder_conformance(name, check):
    config = VARIANTS[name] if name in VARIANTS else lookup(name).example()
    check(EncoderCase(config, out_dim=OUT_DIMS.get(name, 4)))
