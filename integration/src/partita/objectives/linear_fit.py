"""Fit of the linear parts of a model to the training data, before the first step."""

from collections.abc import Iterable, Iterator

from partita_blocks import fit_linear_codec, to_mid_side
from partita_core import Autoencoder
from partita_decoders import LinearDecoder
from partita_encoders import LinearEncoder
from torch import Tensor

from partita.data import Batch

# Principal components change little with more audio than this.
_FIT_SECONDS = 900.0


def fit_linear_parts(model: Autoencoder, batches: Iterable[Batch], *, seconds: float | None) -> str:
    """Fit the linear encoder and decoder within the parts of a model, or their linear paths.

    Args:
        model: model whose encoder and decoder may contain one linear codec, alone or beside a network.
        batches: endless batches of training data.
        seconds: duration of the audio in the data; None if unknown.

    Returns:
        One line for the log; empty if the model has no linear parts.
    """
    encoders = [part for part in model.encoder.modules() if isinstance(part, LinearEncoder)]
    decoders = [part for part in model.decoder.modules() if isinstance(part, LinearDecoder)]
    if not encoders or not decoders:
        return ""
    (encoder,), (decoder,) = encoders, decoders
    wanted = min(_FIT_SECONDS, _FIT_SECONDS if seconds is None else seconds)
    taken = 0.0

    def pieces() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal taken
        for batch in batches:
            audio, lengths = batch["audio"], batch["audio_lengths"]
            yield to_mid_side(audio, batch["layout"]), lengths
            taken += float(lengths.sum()) / encoder.audio_spec.sample_rate
            if taken >= wanted:
                return

    kept = fit_linear_codec(encoder.projection, decoder.projection, pieces(), weighting=encoder.weighting)
    numbers = encoder.code.numbers
    return f"linear codec of {numbers} numbers per frame fitted to {taken:.0f} s: {100 * kept:.1f} % of the energy kept"
