"""Measured context of parts, which need not be what they declare."""

import pytest
import torch
from partita_core import FeedForwardDecoder
from partita_testing import DECODER_CHECKS, DecoderCase, EncoderCase, measure_context
from partita_testing.dummies import CumulativeConfig, StridedConfig, TransposedConfig
from torch import nn


class Reaching(FeedForwardDecoder):
    """Depends on 20 frames to the left and 3 to the right, and declares none."""

    def __init__(self, latent_spec, audio_spec):
        super().__init__()
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.conv = nn.Conv1d(latent_spec.dim, self.hop * audio_spec.channels, 24)

    def forward(self, hidden, layout):
        frames = self.conv(nn.functional.pad(hidden, (20, 3)))
        return frames.unflatten(1, (-1, self.hop)).transpose(2, 3).flatten(2)


class ReachingConfig:
    def build(self, *, latent_spec, audio_spec):
        return Reaching(latent_spec, audio_spec)


@pytest.mark.parametrize("case", [EncoderCase(StridedConfig()), DecoderCase(TransposedConfig())])
def test_measured_context_is_that_of_the_parts(case):
    declared = case.build().context
    measured = measure_context(case)
    assert all(d - 1 <= m <= d for d, m in zip(declared, measured)), (declared, measured)


def test_context_is_measured_beyond_what_is_declared():
    case = DecoderCase(ReachingConfig(), hop=4)
    assert case.build().context == (0, 0)
    assert measure_context(case) == (20, 3)
    assert measure_context(case, max_frames=16) == (None, 3)


def test_unbounded_context_has_no_number():
    torch.manual_seed(0)
    assert measure_context(EncoderCase(CumulativeConfig()), max_frames=32) == (None, 0)


def test_failing_check_gives_the_context_to_declare():
    with pytest.raises(AssertionError, match=r"\(0, 0\).*\(20, 3\)"):
        DECODER_CHECKS["feed_forward_context_is_as_declared"](DecoderCase(ReachingConfig(), hop=4))
