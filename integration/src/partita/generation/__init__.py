"""Generation of a codec's latents or codes by language models, from a text prompt."""

from .backbone import Backbone, LlamaBackboneConfig, PretrainedBackboneConfig
from .flow_head import FlowHead, FlowHeadConfig
from .flow_supervision import FlowSupervision, FlowSupervisionConfig
from .generator import Generator, GeneratorConfig, GeneratorOutput, codec_and_encoder
from .heads import GenerationHead, GenerationHeadConfig, HeadOutput, Rollout, Sampling, Start
from .patch_flow import PatchFlow
from .token_head import TokenHead, TokenHeadConfig

__all__ = [
    "Backbone",
    "FlowHead",
    "FlowHeadConfig",
    "FlowSupervision",
    "FlowSupervisionConfig",
    "GenerationHead",
    "GenerationHeadConfig",
    "Generator",
    "GeneratorConfig",
    "GeneratorOutput",
    "HeadOutput",
    "LlamaBackboneConfig",
    "PatchFlow",
    "PretrainedBackboneConfig",
    "Rollout",
    "Sampling",
    "Start",
    "TokenHead",
    "TokenHeadConfig",
    "codec_and_encoder",
]
