"""Features for understanding, learned on the latents of a frozen audio codec."""

from .causal_transformer import CausalRepresentation, CausalRepresentationConfig, stack_frames
from .frozen_llm import FrozenLLM, FrozenLLMConfig, embed_audio
from .language_model import SEPARATOR, FrozenLanguageModel, padded
from .model import Features, RepresentationModel, RepresentationModelConfig
from .random_projection import RandomProjectionQuantizer
from .rq_mtp import RQMTP, RQMTPConfig
from .supervision import Supervision, SupervisionInput, SupervisionOutput
from .swiglu import SwiGLUAdapter, SwiGLUAdapterConfig
from .whitening import Whitening

__all__ = [
    "Features",
    "RepresentationModel",
    "RepresentationModelConfig",
    "RQMTP",
    "SEPARATOR",
    "CausalRepresentation",
    "CausalRepresentationConfig",
    "FrozenLLM",
    "FrozenLLMConfig",
    "FrozenLanguageModel",
    "RQMTPConfig",
    "RandomProjectionQuantizer",
    "SupervisionInput",
    "SupervisionOutput",
    "Supervision",
    "SwiGLUAdapter",
    "SwiGLUAdapterConfig",
    "Whitening",
    "embed_audio",
    "padded",
    "stack_frames",
]
