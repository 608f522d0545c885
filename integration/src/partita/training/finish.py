"""The end of a run: the latents are measured, and the averaged weights saved with a card."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from partita_core import Codec, Frozen, Latents, PartitaError, measure_latents

from partita.data import audio_info, corpus_spec, first_rows, random_pieces, spread_rows, stored_latents
from partita.objectives.objective import Objective

from .model_card import Measured, Training, model_card
from .optimization import EMA, averaged
from .run import RunConfig, RunFolder

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Headers that are read to know how much audio there is; of more files, the rest is taken to be like these.
_HEADERS = 500

# Statistics of latents are measured on at least so many pieces, of so many seconds if there is time for them.
_MIN_PIECES, _PIECE_SECONDS = 8, 5.0


def finish(
    objective: Objective,
    ema: EMA | None,
    dataset: "Dataset | IterableDataset",
    run: RunFolder,
    config: RunConfig,
    *,
    recipe: str,
    data: str,
    steps: int,
    seconds: float,
    device: torch.device,
    split: str,
    measured: Sequence[Measured],
) -> None:
    """Measures the latents, if nobody has, and saves the averaged weights; what is left are facts for the card."""
    for module in objective.modules():
        if isinstance(module, Frozen):
            module.check()
    known = first_rows(dataset)
    whole = known is dataset  # of a stream nobody knows how much there is
    training = Training(
        recipe=recipe,
        objective=config.objective.tag,
        data=data,
        files=len(known) if whole else None,
        hours=hours_of(known) if whole else None,
        steps=steps,
        seconds=seconds,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper(),
        split=split,
        measured=measured,
    )
    with averaged(objective, ema) as model:
        if isinstance(model, Codec) and model.latent_spec.mean is None:
            model.latent_spec = measure_latents(model, _pieces(model, known, config, objective.crop_multiple))
        model.save_pretrained(run.model, card=model_card(model, training))


def hours_of(dataset: "Dataset") -> float | None:
    """Hours of audio in a data set, by its headers or its lengths; None where none can be read.

    Of a large set, a sample is read that is spread over all.
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


def _pieces(codec: Any, dataset: "Dataset", config: RunConfig, crop_multiple: int) -> Iterable[Latents]:
    """Latents of `statistics_seconds` of audio, in pieces from anywhere in the files."""
    spec, seconds, seed = codec.audio_spec, config.trainer.statistics_seconds, config.trainer.seed
    samples = config.data.crop_samples(spec.sample_rate, crop_multiple)
    if corpus_spec(dataset) is not None:
        yield from _stored_pieces(dataset, max(samples, round(seconds * spec.sample_rate / len(dataset))), seconds)
        return
    # Latents at the edges of a piece differ from those of a whole file, so that short pieces are not like it.
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
    """Stored latents of at most `samples` samples per file, from anywhere in it, until there are `seconds` in all."""
    generator = torch.Generator().manual_seed(0)
    for latents in stored_latents(dataset.select(torch.randperm(len(dataset), generator=generator).tolist())):
        if seconds <= 0:
            return
        assert latents.values is not None
        spec, held = latents.spec, int(latents.frames[0])
        frames = min(held, spec.frames(samples))
        start = int(torch.randint(held - frames + 1, (), generator=generator))
        seconds -= float(frames / spec.frame_rate)
        k = spec.tokens_per_frame
        values = latents.values[..., start * k : (start + frames) * k]
        yield Latents(values, None, torch.tensor([frames * spec.hop]), latents.layout, spec)
