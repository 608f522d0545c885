"""Quantizers: latents to codes and back, and codes to token ids of language models and back."""

from .fsq import FSQ, FSQConfig
from .rebottleneck import ReBottleneck, ReBottleneckConfig
from .residual import ResidualVQ, ResidualVQConfig
from .split import Split, SplitConfig
from .token_space import TokenSpace, delay_codes, flatten_codes, undelay_codes, unflatten_codes
from .tokens import Tokens

__all__ = [
    "delay_codes",
    "flatten_codes",
    "FSQ",
    "FSQConfig",
    "ReBottleneck",
    "ReBottleneckConfig",
    "ResidualVQ",
    "ResidualVQConfig",
    "Split",
    "SplitConfig",
    "Tokens",
    "TokenSpace",
    "undelay_codes",
    "unflatten_codes",
]
