"""What every Partita package agrees on: specs, layouts, latents, roles, streaming, saving and conformance."""

from ._checks import as_seeds
from .arrays import as_integers, as_tensor
from .autoencoder import Autoencoder, AutoencoderConfig, latent_spec, measure_latents
from .codec import Codec
from .codes import check_codes, resolve_num_quantizers
from .configs import build, from_dict, to_dict
from .constants import Constant
from .denoising import DenoisingDecoder, NoiseSchedule
from .distributed import is_distributed, process_mean
from .errors import PartitaError, escape_unprintable, first_line, short_repr, shorten, suggest
from .files import check_finite, parse_json, read_json, read_shapes, read_tensors, write_json, write_tensors
from .fingerprints import uncompiled_state, unwrap_compiled, weights_hash
from .frozen import Frozen, frozen_call
from .latent_normalizer import LatentNormalizer
from .latents import Latents, regroup
from .layouts import (
    ChannelLayout,
    as_layouts,
    convert,
    convert_pairs,
    default_layout,
    from_network,
    network_layout,
    to_network,
)
from .lengths import codes_within, length_mask, mean_within, tokens_within, update_average
from .loading import build_for, check_folder, check_weights, limited_build
from .locks import file_lock
from .noise import hashed_seed, keyed_noise
from .outputs import atomic_folder, atomic_write, check_vacant, finish_interrupted_write, remove_unfinished
from .overrides import override, parse_config
from .precision import Precision, compile_frozen, upcast
from .quantized_codec import QuantizedCodec, QuantizedCodecConfig, attach_quantizer, check_quantizer_fits
from .registry import Config, component_field, components, lookup
from .roles import (
    AudioTransform,
    Bottleneck,
    BottleneckOutput,
    Context,
    Decoder,
    Encoder,
    FeedForwardDecoder,
    Loss,
    Posterior,
    Quantizer,
    RepresentationEncoder,
    Role,
    Sampler,
    StepOutput,
    sum_contexts,
)
from .saving import Saved, load_weights, remove_model
from .settings import ConfigClass, config_of, register
from .specs import AudioSpec, LatentSpec
from .stream_codec import StreamDecoder, StreamEncoder
from .streams import Chain, FrameAligner, StatefulStream, Stream, Streamable, TiledStream, UnboundedError

__all__ = [
    "QuantizedCodec",
    "QuantizedCodecConfig",
    "attach_quantizer",
    "check_quantizer_fits",
    "as_integers",
    "as_layouts",
    "as_tensor",
    "check_codes",
    "resolve_num_quantizers",
    "unwrap_compiled",
    "uncompiled_state",
    "Posterior",
    "as_seeds",
    "AudioSpec",
    "AudioTransform",
    "Autoencoder",
    "AutoencoderConfig",
    "Bottleneck",
    "BottleneckOutput",
    "TiledStream",
    "build",
    "build_for",
    "Chain",
    "ChannelLayout",
    "check_finite",
    "check_folder",
    "check_vacant",
    "check_weights",
    "Codec",
    "codes_within",
    "component_field",
    "compile_frozen",
    "components",
    "Config",
    "config_of",
    "ConfigClass",
    "Constant",
    "Context",
    "convert",
    "convert_pairs",
    "Decoder",
    "DenoisingDecoder",
    "Encoder",
    "FeedForwardDecoder",
    "from_dict",
    "from_network",
    "Frozen",
    "first_line",
    "frozen_call",
    "hashed_seed",
    "is_distributed",
    "keyed_noise",
    "latent_spec",
    "LatentNormalizer",
    "Latents",
    "LatentSpec",
    "length_mask",
    "limited_build",
    "load_weights",
    "file_lock",
    "lookup",
    "Loss",
    "mean_within",
    "measure_latents",
    "update_average",
    "parse_config",
    "default_layout",
    "suggest",
    "network_layout",
    "override",
    "NoiseSchedule",
    "parse_json",
    "PartitaError",
    "Precision",
    "escape_unprintable",
    "process_mean",
    "Quantizer",
    "read_json",
    "read_shapes",
    "read_tensors",
    "register",
    "regroup",
    "remove_model",
    "remove_unfinished",
    "RepresentationEncoder",
    "Role",
    "Sampler",
    "Saved",
    "finish_interrupted_write",
    "shorten",
    "short_repr",
    "StepOutput",
    "StatefulStream",
    "Stream",
    "Streamable",
    "StreamDecoder",
    "StreamEncoder",
    "sum_contexts",
    "to_dict",
    "to_network",
    "tokens_within",
    "UnboundedError",
    "upcast",
    "weights_hash",
    "FrameAligner",
    "write_json",
    "write_tensors",
    "atomic_write",
    "atomic_folder",
]
