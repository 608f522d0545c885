"""Interfaces shared by all Partita packages: specs, layouts, latents, roles, codecs, streams and saving."""

from ._checks import as_seeds
from ._fit import check_quantizer_fits
from .arrays import as_integers, as_tensor
from .autoencoder import Autoencoder, AutoencoderConfig
from .codec import Codec
from .codes import check_codes, resolve_num_quantizers
from .configs import build, from_dict, to_dict
from .constants import Constant
from .decoder_roles import Decoder, FeedForwardDecoder, reject_sampler
from .denoising import AudioTransform, DenoisingDecoder, NoiseSchedule, Sampler
from .discriminators import Discriminator, DiscriminatorOutput
from .distributed import is_distributed, process_mean
from .errors import PartitaError, escape_unprintable, first_line, short_repr, shorten, suggest
from .files import check_finite, parse_json, read_json, read_tensors, write_json, write_tensors
from .frozen import Frozen, frozen_call
from .half import round_to_half
from .latent_statistics import measure_latents
from .latent_transforms import LatentNormalizer, regroup
from .latents import Latents
from .layouts import (
    ChannelLayout,
    as_layouts,
    convert,
    convert_pairs,
    default_layout,
    network_layout,
    to_network,
)
from .lengths import codes_within, length_mask, mean_within, tokens_within, update_average
from .locks import file_lock
from .metric import Metric, check_signals
from .noise import hashed_seed, keyed_noise
from .outputs import atomic_write, check_vacant, remove_unfinished
from .overrides import override, parse_config
from .precision import Precision, compile_frozen, upcast
from .quantized_codec import QuantizedCodec, QuantizedCodecConfig, attach_quantizer
from .registry import Config, component_field, components, lookup
from .representation_role import RepresentationEncoder
from .role_outputs import BottleneckOutput, Posterior, StepOutput
from .roles import Bottleneck, Context, Encoder, Loss, Quantizer, Role, sum_contexts, widest_context
from .saving import Saved, load_weights
from .settings import config_of, register
from .specs import AudioSpec, LatentSpec
from .stream_codec import StreamDecoder, StreamEncoder
from .streams import Chain, Parallel, StatefulStream, Stream, Streamable, TiledStream, UnboundedError
from .typed_module import TypedModule
from .zero_start import set_to_zero

__all__ = [
    "as_integers",
    "as_layouts",
    "as_seeds",
    "as_tensor",
    "atomic_write",
    "attach_quantizer",
    "AudioSpec",
    "AudioTransform",
    "Autoencoder",
    "AutoencoderConfig",
    "Bottleneck",
    "BottleneckOutput",
    "build",
    "Chain",
    "ChannelLayout",
    "check_codes",
    "check_finite",
    "check_quantizer_fits",
    "check_signals",
    "check_vacant",
    "Codec",
    "codes_within",
    "compile_frozen",
    "component_field",
    "components",
    "Config",
    "config_of",
    "Constant",
    "Context",
    "convert",
    "convert_pairs",
    "Decoder",
    "default_layout",
    "DenoisingDecoder",
    "Discriminator",
    "DiscriminatorOutput",
    "Encoder",
    "escape_unprintable",
    "FeedForwardDecoder",
    "file_lock",
    "first_line",
    "from_dict",
    "Frozen",
    "frozen_call",
    "hashed_seed",
    "is_distributed",
    "keyed_noise",
    "LatentNormalizer",
    "Latents",
    "LatentSpec",
    "length_mask",
    "load_weights",
    "lookup",
    "Loss",
    "mean_within",
    "measure_latents",
    "Metric",
    "network_layout",
    "NoiseSchedule",
    "override",
    "parse_config",
    "parse_json",
    "Parallel",
    "PartitaError",
    "Posterior",
    "Precision",
    "process_mean",
    "QuantizedCodec",
    "QuantizedCodecConfig",
    "Quantizer",
    "read_json",
    "read_tensors",
    "register",
    "reject_sampler",
    "regroup",
    "remove_unfinished",
    "RepresentationEncoder",
    "resolve_num_quantizers",
    "round_to_half",
    "Role",
    "Sampler",
    "Saved",
    "set_to_zero",
    "short_repr",
    "shorten",
    "StatefulStream",
    "StepOutput",
    "Stream",
    "Streamable",
    "StreamDecoder",
    "StreamEncoder",
    "suggest",
    "sum_contexts",
    "TiledStream",
    "to_dict",
    "to_network",
    "tokens_within",
    "TypedModule",
    "UnboundedError",
    "upcast",
    "update_average",
    "widest_context",
    "write_json",
    "write_tensors",
]
