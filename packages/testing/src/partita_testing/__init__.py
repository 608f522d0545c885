"""Conformance suites for parts of every role and for codecs.

Test a component in one line, `check_bottleneck(TanhConfig())`, or with one test per check:

    @pytest.mark.parametrize("check", BOTTLENECK_CHECKS)
    def test_conformance(check):
        check(TanhConfig.example())

If the default sizes of a case do not suit the component, pass a case: `check(DecoderCase(config, hop=480))`.
"""

from ._common import Case, Suite
from ._context import measure_context
from .bottlenecks import BOTTLENECK_CHECKS, BottleneckCase, check_bottleneck
from .codecs import CODEC_CHECKS, CodecCase, check_codec
from .decoders import DECODER_CHECKS, DecoderCase, check_decoder
from .discriminators import (
    DISCRIMINATOR_CHECKS,
    DiscriminatorCase,
    LatentDiscriminatorCase,
    check_discriminator,
)
from .encoders import ENCODER_CHECKS, EncoderCase, check_encoder
from .losses import LOSS_CHECKS, LossCase, check_loss
from .metrics import METRIC_CHECKS, MetricCase, check_metric
from .objectives import OBJECTIVE_CHECKS, ObjectiveCase, check_objective
from .quantizers import QUANTIZER_CHECKS, check_quantizer
from .representations import REPRESENTATION_CHECKS, RepresentationCase, check_representation
from .samplers import SAMPLER_CHECKS, SamplerCase, check_sampler

__all__ = [
    "BOTTLENECK_CHECKS",
    "BottleneckCase",
    "Case",
    "check_bottleneck",
    "check_codec",
    "check_decoder",
    "check_discriminator",
    "check_encoder",
    "check_loss",
    "check_metric",
    "check_objective",
    "check_quantizer",
    "check_representation",
    "check_sampler",
    "CODEC_CHECKS",
    "CodecCase",
    "DECODER_CHECKS",
    "DecoderCase",
    "DISCRIMINATOR_CHECKS",
    "DiscriminatorCase",
    "ENCODER_CHECKS",
    "EncoderCase",
    "LatentDiscriminatorCase",
    "LOSS_CHECKS",
    "LossCase",
    "measure_context",
    "METRIC_CHECKS",
    "MetricCase",
    "OBJECTIVE_CHECKS",
    "ObjectiveCase",
    "QUANTIZER_CHECKS",
    "REPRESENTATION_CHECKS",
    "RepresentationCase",
    "SAMPLER_CHECKS",
    "SamplerCase",
    "Suite",
]
