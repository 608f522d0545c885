"""Conformance of adapted codecs, small ones with random weights."""

import pytest
import torch
from partita.interop import from_huggingface
from partita_testing import CODEC_CHECKS, CodecCase

CASES = {
    "oobleck": ("oobleck", {}),
    "oobleck, mono, odd strides": ("oobleck", {"audio_channels": 1, "downsampling_ratios": [3, 9]}),
    "dac": ("dac", {}),
    "encodec": ("encodec", {}),
    "encodec, not causal": ("encodec", {"use_causal_conv": False}),
    "encodec, filled with zeros": ("encodec", {"pad_mode": "constant"}),
    "encodec, normed over time": ("encodec", {"use_causal_conv": False, "norm_type": "time_group_norm"}),
    "encodec in chunks": ("encodec in chunks", {}),
    "encodec in chunks, not scaled, three at a time": ("encodec in chunks", {"normalize": False, "overlap": 0.6}),
    "mimi": ("mimi", {}),
}
"""Variants have a comma in their name; together they take 15 seconds."""


@pytest.mark.parametrize("check", CODEC_CHECKS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "," in name else name for name in CASES]
)
def test_conformance(foreign, name, check):
    model, changes = CASES[name]
    # Mimi measures distances and turns angles in float32, whatever its weights are.
    dtype = torch.float32 if model == "mimi" else torch.float64
    check(CodecCase(lambda: from_huggingface(foreign(model, **changes)), dtype))
