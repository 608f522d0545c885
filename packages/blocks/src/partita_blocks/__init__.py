"""Layers of neural audio autoencoders: activations, convolutions, attention, spectra, patching, noise conditioning."""

from .activations import ACTIVATIONS, ELU, Snake, SnakeBeta, SnakeLite
from .attention import RMSNorm, TransformerBlock, WindowedTransformer, rotary_angles, rotate, windowed_attention
from .bands import LOG_CENTER, LOG_SCALE, Bands, log_magnitude, standardize_logs, typical_log_amplitude
from .batch_norm import BatchNorm
from .causal_conv2d import (
    CausalConv2d,
    CausalConvTranspose2d,
    CausalLayer,
    DownUnit2d,
    UpUnit2d,
    coarsest_bins,
    init_truncated_normal,
)
from .causal_transformer import CausalBlock, CausalTransformer, SwiGLU
from .chunk_transformer import ChunkTransformer, ChunkTransformerBlock, chunk_causal_attention
from .companding import CompandedSTFT
from .convolutions import (
    DownStage,
    ResidualUnit,
    UpStage,
    conv,
    conv_reach,
    conv_transpose_reach,
    down_stages,
    residual_units,
    up_stages,
)
from .envelope_nodes import EnvelopeNodes
from .frame_stack import FrameBlock, FrameStack, sub_frame_hop
from .fused import FusedStages, fuse_stages
from .grid_vectors import GridToVectors, VectorsToGrid
from .hashed_signs import hashed_signs
from .level_code import Level, LevelCode
from .linear_codec import (
    FrameCovariance,
    LappedProjection,
    fit_linear_codec,
    from_mid_side,
    principal_components,
    to_mid_side,
)
from .mdct import MDCT
from .native import why_no_kernels
from .noise_conditioning import (
    AdaptiveGroupNorm,
    AdaptiveLayerNorm,
    AdaptiveScale,
    FrequencyGains,
    NoiseEmbedding,
    Preconditioning,
    sinusoidal_embedding,
)
from .patching import Depatchifier, Patchifier, patch_grid
from .pitch import Pitch, PitchScale, PitchTracker
from .planar_conv import Conv1d, Conv2d, ConvTranspose1d
from .pointwise import elu, group_norm, silu
from .spectral import STFT, LogMel, a_weighting, mel_filterbank, overlap_add, power, reflect_pad, reflected_positions
from .voice_source import PulseTrain, white_noise

__all__ = [
    "ACTIVATIONS",
    "AdaptiveGroupNorm",
    "AdaptiveLayerNorm",
    "AdaptiveScale",
    "Bands",
    "BatchNorm",
    "CausalBlock",
    "CausalConv2d",
    "CausalConvTranspose2d",
    "CausalLayer",
    "CausalTransformer",
    "ChunkTransformer",
    "ChunkTransformerBlock",
    "CompandedSTFT",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "Depatchifier",
    "DownStage",
    "DownUnit2d",
    "ELU",
    "EnvelopeNodes",
    "FrameBlock",
    "FrameCovariance",
    "FrameStack",
    "FrequencyGains",
    "FusedStages",
    "GridToVectors",
    "LOG_CENTER",
    "LOG_SCALE",
    "LappedProjection",
    "Level",
    "LevelCode",
    "LogMel",
    "MDCT",
    "NoiseEmbedding",
    "Patchifier",
    "Pitch",
    "PitchScale",
    "PitchTracker",
    "Preconditioning",
    "PulseTrain",
    "RMSNorm",
    "ResidualUnit",
    "STFT",
    "Snake",
    "SnakeBeta",
    "SnakeLite",
    "SwiGLU",
    "TransformerBlock",
    "UpStage",
    "UpUnit2d",
    "VectorsToGrid",
    "WindowedTransformer",
    "a_weighting",
    "chunk_causal_attention",
    "coarsest_bins",
    "conv",
    "conv_reach",
    "conv_transpose_reach",
    "down_stages",
    "elu",
    "fit_linear_codec",
    "from_mid_side",
    "fuse_stages",
    "group_norm",
    "hashed_signs",
    "init_truncated_normal",
    "log_magnitude",
    "mel_filterbank",
    "overlap_add",
    "patch_grid",
    "power",
    "principal_components",
    "reflect_pad",
    "reflected_positions",
    "residual_units",
    "rotary_angles",
    "rotate",
    "silu",
    "sinusoidal_embedding",
    "standardize_logs",
    "sub_frame_hop",
    "to_mid_side",
    "typical_log_amplitude",
    "up_stages",
    "white_noise",
    "why_no_kernels",
    "windowed_attention",
]
