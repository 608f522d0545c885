"""What every Partita package agrees on: specs, layouts, latents, roles, streaming, saving and conformance."""

from ._checks import as_seeds
from .arrays import as_integers, as_tensor
from .autoencoder import Autoencoder, AutoencoderConfig, latent_spec, measure_latents
from .codec import Codec
from .codes import check_codes, count_levels
from .configs import build, from_dict, to_dict
from .constants import Constant
from .denoising import DenoisingDecoder, NoiseSchedule, Sampler
from .discriminators import Discriminator, DiscriminatorOutput
from .distributed import is_distributed, process_mean
from .errors import PartitaError, first_line, nearest, printable, shorten, shown
from .files import check_finite, parse_json, read_json, read_shapes, read_tensors, write_json, write_tensors
from .fingerprints import plain, plain_state, weights_hash
from .frozen import Frozen, frozen_call
from .latent_normalizer import LatentNormalizer
from .latents import Latents, regroup
from .layouts import (
    ChannelLayout,
    as_layouts,
    convert,
    convert_pairs,
    from_network,
    natural_layout,
    network_layout,
    to_network,
)
from .lengths import codes_within, length_mask, mean_within, move_average, tokens_within
from .loading import build_for, check_folder, check_weights, limited_build
from .locks import locked
from .metric import Metric, check_signals
from .noise import hashed_seed, keyed_noise
from .outputs import atomic_folder, atomic_write, check_vacant, remove_unfinished, settle
from .overrides import named, override
from .precision import Precision, compile_frozen, upcast
from .quantized_codec import QuantizedCodec, QuantizedCodecConfig, attach_quantizer, check_continuous
from .registry import Config, component, components, lookup
from .role_outputs import BottleneckOutput, Posterior, StepOutput
from .roles import (
    AudioTransform,
    Bottleneck,
    Context,
    Decoder,
    Encoder,
    FeedForwardDecoder,
    Loss,
    Quantizer,
    RepresentationEncoder,
    Role,
    sum_contexts,
)
from .saving import Saved, load_weights, remove_saved
from .settings import ConfigClass, config_of, register
from .specs import AudioSpec, LatentSpec
from .stream_codec import StreamDecoder, StreamEncoder
from .streams import Chain, FrameAligner, StatefulStream, Stream, Streamable, TiledStream, UnboundedError
from .typed_module import TypedModule

__all__ = [
    "QuantizedCodec",
    "QuantizedCodecConfig",
    "attach_quantizer",
    "check_continuous",
    "as_integers",
    "check_signals",
    "Metric",
    "as_layouts",
    "as_tensor",
    "check_codes",
    "count_levels",
    "plain",
    "plain_state",
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
    "component",
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
    "Discriminator",
    "DiscriminatorOutput",
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
    "locked",
    "lookup",
    "Loss",
    "mean_within",
    "measure_latents",
    "move_average",
    "named",
    "natural_layout",
    "nearest",
    "network_layout",
    "override",
    "NoiseSchedule",
    "parse_json",
    "PartitaError",
    "Precision",
    "printable",
    "process_mean",
    "Quantizer",
    "read_json",
    "read_shapes",
    "read_tensors",
    "register",
    "regroup",
    "remove_saved",
    "remove_unfinished",
    "RepresentationEncoder",
    "Role",
    "Sampler",
    "Saved",
    "settle",
    "shorten",
    "shown",
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
    "TypedModule",
    "UnboundedError",
    "upcast",
    "weights_hash",
    "FrameAligner",
    "write_json",
    "write_tensors",
    "atomic_write",
    "atomic_folder",
]
