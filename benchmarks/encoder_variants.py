"""Encoder variants from Stable Audio Open's to GenAE's, one change per step."""

from dataclasses import replace
from typing import Any

from partita_core import Config
from partita_encoders import GenAEEncoderConfig, OobleckEncoderConfig


def encoder_ladder() -> dict[str, Config]:
    """Encoders from Oobleck at 2048x to GenAE at 3360x, by name of the last change.

    The order of the changes is that of the ablation in arXiv 2602.15749; all sizes are ours. The first three have the
    strides, widths and activation of the baseline, the others those of GenAE.
    """
    genae: Any = GenAEEncoderConfig()
    baseline: Any = OobleckEncoderConfig()
    early = replace(baseline, early=True)
    strides = replace(early, strides=genae.strides, channels=genae.channels, activation=genae.activation)
    return {
        "oobleck": baseline,
        "oobleck, downsampling first": early,
        "oobleck, downsampling first, separable": replace(early, separable=True),
        "3360x, downsampling first": strides,
        "3360x, downsampling first, separable": replace(strides, separable=True),
        "genae: with mel fusion and attention": genae,
    }
