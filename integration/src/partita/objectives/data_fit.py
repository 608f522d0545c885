"""Fit of parts of a model to the training data, before the first step."""

from collections.abc import Iterable, Iterator

import torch
from partita_blocks import fit_linear_codec, to_mid_side
from partita_bottlenecks import Adaptive
from partita_core import Autoencoder, PartitaError
from partita_decoders import FrameDecoder, LinearDecoder
from partita_encoders import LinearEncoder
from torch import Tensor

from partita.data import Batch

# Statistics of the bins of a transform change little with more audio than this.
_FIT_SECONDS = 900.0


def fit_parts(model: Autoencoder, batches: Iterable[Batch], *, seconds: float | None) -> str:
    """Fit what is measured on data instead of trained: linear codecs, and the statistics of adaptive bottlenecks.

    Args:
        model: model to fit in place.
        batches: endless batches of training data.
        seconds: duration of the audio in the data; None if unknown.

    Returns:
        One line for the log; empty if there is nothing to fit.
    """
    wanted = _FIT_SECONDS if seconds is None else min(_FIT_SECONDS, seconds)
    audio = _excerpt(batches, wanted, model.audio_spec.sample_rate)
    if isinstance(model.bottleneck, Adaptive):
        return _fit_adaptive(model, model.bottleneck, audio)
    encoders = [part for part in model.encoder.modules() if isinstance(part, LinearEncoder)]
    decoders = [part for part in model.decoder.modules() if isinstance(part, LinearDecoder)]
    if not encoders or not decoders:
        return ""
    if len(encoders) + len(decoders) > 2:
        raise PartitaError(f"{len(encoders)} linear encoders and {len(decoders)} decoders; use one of each")
    line = _fit_linear(encoders[0], decoders[0], audio)
    network = getattr(model.decoder, "network", None)
    if isinstance(network, FrameDecoder):
        _fit_noise(network, encoders[0], decoders[0], next(iter(batches)))
    return line


def _excerpt(batches: Iterable[Batch], wanted: float, sample_rate: int) -> Iterator[Batch]:
    """Batches of `wanted` seconds of audio in all."""
    taken = 0.0
    for batch in batches:
        yield batch
        taken += float(batch["audio_lengths"].sum()) / sample_rate
        if taken >= wanted:
            return


def _fit_linear(encoder: LinearEncoder, decoder: LinearDecoder, batches: Iterator[Batch]) -> str:
    audio = ((to_mid_side(batch["audio"], batch["layout"]), batch["audio_lengths"]) for batch in batches)
    kept = fit_linear_codec(encoder.projection, decoder.projection, audio, weighting=encoder.weighting)
    return f"linear codec of {encoder.code.numbers} numbers per frame: {100 * kept:.1f} % of the energy kept"


@torch.no_grad()
def _fit_noise(network: FrameDecoder, encoder: LinearEncoder, decoder: LinearDecoder, batch: Batch) -> None:
    """Let noise start at the level of what the linear codec lacks."""
    bins = encoder.numbers(batch["audio"], batch["layout"])
    network.fit_noise(to_mid_side(batch["audio"], batch["layout"]) - decoder.projection.synthesize(bins))


@torch.no_grad()
def _fit_adaptive(model: Autoencoder, bottleneck: Adaptive, batches: Iterator[Batch]) -> str:
    def hidden() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            yield model.encoder(batch["audio"], batch["layout"]), model.latent_spec.tokens(batch["audio_lengths"])

    bottleneck.fit(hidden())
    return f"statistics of {bottleneck.bins} bins per frame measured"
