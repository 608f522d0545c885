"""Statistics of the training data: hours of audio, and the latents that normalization is measured on."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from partita_core import Codec, Latents, PartitaError

from partita.data import audio_info, corpus_spec, random_pieces, spread_rows, stored_latents

from .run import RunConfig

if TYPE_CHECKING:
    from datasets import Dataset

# Number of file headers that are read to estimate the duration of a large data set.
_HEADERS = 500

# Statistics are measured on at least this many pieces, of this duration if `statistics_seconds` allows.
_MIN_PIECES, _PIECE_SECONDS = 8, 5.0


def audio_hours(dataset: "Dataset") -> float | None:
    """Hours of audio in a data set, from file headers or stored lengths; None if none can be read.

    For a large data set, an estimate from files spread over all of it.
    """
    picked = dataset.select(spread_rows(len(dataset), _HEADERS))
    corpus = corpus_spec(dataset)
    if corpus is not None:
        samples = sum(picked.with_format(None)["audio_length"])
        return samples / corpus.latent.sample_rate / 3600 * len(dataset) / len(picked)
    seconds, readable = 0.0, 0
    for source in picked["audio"]:
        try:
            info = audio_info(source)
        except PartitaError:
            continue
        seconds += info.frames / info.sample_rate
        readable += 1
    return seconds / 3600 * len(dataset) / len(picked) if readable else None


def statistics_latents(codec: Codec, dataset: "Dataset", config: RunConfig, crop_multiple: int) -> Iterable[Latents]:
    """Latents of `statistics_seconds` of audio, in pieces from anywhere in the files.

    Args:
        codec: codec that encodes the pieces.
        dataset: training data, audio or a corpus of latents.
        config: config of the run.
        crop_multiple: number of samples that crops are a multiple of.
    """
    spec, seconds, seed = codec.audio_spec, config.trainer.statistics_seconds, config.trainer.seed
    samples = config.data.crop_samples(spec.sample_rate, crop_multiple)
    if corpus_spec(dataset) is not None:
        yield from _stored_pieces(dataset, max(samples, round(seconds * spec.sample_rate / len(dataset))), seconds)
        return
    # Latents near the ends of a piece differ from those of a file, so pieces are long.
    longer = round(min(_PIECE_SECONDS, seconds / _MIN_PIECES) * spec.sample_rate)
    for clip in random_pieces(
        dataset,
        seconds=seconds,
        samples=max(samples, longer),
        sample_rate=spec.sample_rate,
        mono=spec.channels == 1,
        silence_db=config.data.silence_db,
        seed=seed,
    ):
        yield codec.encode(clip.audio[None], layout=clip.layout)


def _stored_pieces(dataset: "Dataset", samples: int, seconds: float) -> Iterable[Latents]:
    """Stored latents of `seconds` in all, at most `samples` samples per file, from anywhere in it."""
    generator = torch.Generator().manual_seed(0)
    for latents in stored_latents(dataset.select(torch.randperm(len(dataset), generator=generator).tolist())):
        if seconds <= 0:
            return
        assert latents.values is not None
        spec, available = latents.spec, int(latents.frames[0])
        frames = min(available, spec.frames(samples))
        start = int(torch.randint(available - frames + 1, (), generator=generator))
        seconds -= float(frames / spec.frame_rate)
        k = spec.tokens_per_frame
        values = latents.values[..., start * k : (start + frames) * k]
        yield Latents(values, None, torch.tensor([frames * spec.hop]), latents.layout, spec)
