"""The best linear codec of as many numbers per second as a model: a reference that is fitted to training data."""

from collections.abc import Iterator
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

import torch
from partita_blocks import fit_linear_codec, to_mid_side
from partita_bottlenecks import IdentityConfig
from partita_core import Autoencoder, AutoencoderConfig, Codec, network_layout, to_network
from partita_decoders import LinearDecoder, LinearDecoderConfig
from partita_encoders import LinearEncoder, LinearEncoderConfig
from torch import Tensor
from torch.nn import functional as F

from partita.data import random_pieces

if TYPE_CHECKING:
    from datasets import Dataset

# Statistics of the bins change little with more audio.
FIT_SECONDS = 300.0
_PIECE_SECONDS = 4.0
# Sets of latents describe chunks; a transform with frames of this length at least is better than one of a chunk.
_MIN_FRAME_SECONDS = 0.02


class LinearReference(NamedTuple):
    """Linear codec in eval mode, and the duration in seconds of the audio that it is fitted to."""

    codec: Autoencoder
    seconds: float


def fit_linear_reference(
    model: Codec, dataset: "Dataset", *, seconds: float = FIT_SECONDS, seed: int = 0
) -> LinearReference | None:
    """Fit the linear codec of the smallest squared error that has the hop and the numbers per frame of a model.

    It projects the frames of an MDCT on their principal components; see `partita_encoders.LinearEncoder`. A model with
    several tokens per frame is compared with a codec of shorter frames with as many numbers per second.

    Args:
        model: model to compare with.
        dataset: training split, as `partita.data.open_dataset` returns it.
        seconds: duration of audio in random excerpts that it is fitted to; less if the files are shorter.
        seed: seed of the excerpts.

    Returns:
        The codec; None if the model has as many numbers as samples.

    Raises:
        PartitaError: the excerpts are silent, or no file can be read.
    """
    hop, numbers = _frame(model)
    if numbers >= model.audio_spec.channels * hop:
        return None
    with torch.random.fork_rng(devices=[]):
        config = AutoencoderConfig(
            model.audio_spec, numbers, LinearEncoderConfig(hop=hop), IdentityConfig(), LinearDecoderConfig()
        )
        codec = config.build().eval()
    assert isinstance(codec.encoder, LinearEncoder) and isinstance(codec.decoder, LinearDecoder)
    pieces = list(_pieces(codec, dataset, seconds, seed))
    fit_linear_codec(codec.encoder.projection, codec.decoder.projection, pieces)
    return LinearReference(codec, sum(int(length) for _, length in pieces) / codec.audio_spec.sample_rate)


def _frame(model: Codec) -> tuple[int, int]:
    """Hop in samples and numbers per frame of the linear codec."""
    spec = model.latent_spec
    common = gcd(spec.hop, spec.tokens_per_frame)
    longest = spec.hop / (_MIN_FRAME_SECONDS * spec.sample_rate)
    parts = max(k for k in range(1, common + 1) if common % k == 0 and (k == 1 or k <= longest))
    return spec.hop // parts, spec.dim * spec.tokens_per_frame // parts


def _pieces(codec: Autoencoder, dataset: "Dataset", seconds: float, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random excerpts as mid and side, `(1, channels, hop * frames)`, with their lengths."""
    spec, hop = codec.audio_spec, codec.latent_spec.hop
    for clip in random_pieces(
        dataset,
        seconds=seconds,
        samples=round(_PIECE_SECONDS * spec.sample_rate),
        sample_rate=spec.sample_rate,
        mono=spec.channels == 1,
        silence_db=-60.0,
        seed=seed,
    ):
        audio = to_network(clip.audio, clip.layout, spec.layouts)
        layout = torch.tensor([network_layout(clip.layout, spec.layouts)])
        length = audio.shape[-1]
        yield to_mid_side(F.pad(audio, (0, -length % hop))[None], layout), torch.tensor([length])
