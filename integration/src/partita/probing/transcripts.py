"""Transcripts by the frozen language model of a representation, measured by character error rate and surprise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import PartitaError, hashed_seed, to_dict, write_json

from partita.data.clip_latents import encode_clip
from partita.data.clips import whole_files
from partita.data.messages import warn_once
from partita.evaluation.bootstrap import Bootstrap, Interval
from partita.evaluation.results import format_interval

from .results import markdown_table, percent
from .tasks import check_columns, without_audio

if TYPE_CHECKING:
    from partita_representation import Features, RepresentationModel

    from .probe import Progress

# Tokens that an answer may be longer than the longest reference has bytes.
_SPARE_TOKENS = 8


@dataclass(frozen=True)
class Transcripts:
    """Character error rates of models, as fractions, and the language model's surprise at the reference texts.

    Attributes:
        prompt: prompt of the language model.
        items: number of test items.
        references: reference text per item.
        answers: model -> answer per item.
        error_rate: model -> edits over characters of all items.
        shuffled: model -> error rate of the answers to other items' audio.
        gain: model -> `error_rate - shuffled`, paired by item; negative if the audio is used.
        surprise: model -> nats per token of the reference texts.
        surprise_shuffled: model -> nats per token of the reference texts given other items' audio.
        surprise_gain: model -> `surprise - surprise_shuffled`, paired by item. It shows that the audio is used even
            while most characters of the answers are wrong.
        settings: settings of the shuffle and the bootstrap.
    """

    prompt: str
    items: int
    references: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]
    error_rate: dict[str, Interval]
    shuffled: dict[str, Interval]
    gain: dict[str, Interval]
    surprise: dict[str, Interval]
    surprise_shuffled: dict[str, Interval]
    surprise_gain: dict[str, Interval]
    settings: dict[str, Any]

    def to_json(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        write_json(path, to_dict(self))

    def to_markdown(self) -> str:
        """Return Markdown tables with one row per model."""
        confidence = f"{100 * self.settings['confidence']:g} %"
        heading = ["model", "audio", "shuffled audio", "difference"]
        rates = [
            [name, percent(rate), percent(self.shuffled[name]), percent(self.gain[name], sign=True)]
            for name, rate in self.error_rate.items()
        ]
        columns = (self.surprise, self.surprise_shuffled, self.surprise_gain)
        nats = [[name, *(format_interval(column[name]) for column in columns)] for name in self.surprise]
        lines = [
            f"Character error rate in % over {self.items} items, with {confidence} bootstrap intervals.",
            "",
            *markdown_table(heading, rates),
            "",
            "Surprise of the language model at the reference text, nats per token.",
            "",
            *markdown_table(heading, nats),
        ]
        return "\n".join(lines) + "\n"


def plain_text(text: str) -> str:
    """Normalize a text for comparison: lower case, only letters, digits, apostrophes and single spaces."""
    kept = "".join(each if each.isalnum() or each == "'" else " " for each in text.casefold())
    return " ".join(kept.split())


def character_edits(answer: str, reference: str) -> int:
    """Levenshtein distance: the minimum number of insertions, deletions and substitutions between two texts."""
    row = list(range(len(reference) + 1))
    for i, a in enumerate(answer, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(reference, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def probe_answers(
    models: "Mapping[str, RepresentationModel]",
    data: str,
    *,
    prompt: str,
    column: str = "text",
    where: str = "",
    seconds: float = 10.0,
    shuffles: int = 10,
    resamples: int = 2000,
    broken: list[str] | None = None,
    progress: "Progress | None" = None,
) -> Transcripts:
    """Transcribe every test item with the frozen language model of each representation model.

    Case and punctuation are ignored. The error rate is all edits over all characters; its interval resamples items for
    a fixed number of characters. In the shuffled condition each reference is compared with the answers to other items'
    audio: an answer that ignores the audio scores the same either way. The surprise of the language model at the
    reference text is measured in both conditions too.

    Args:
        models: representation models by their names in the tables.
        data: data set, as for `open_dataset`; the split is "test".
        prompt: prompt of the language model.
        column: column of the texts; rows in which it is empty are left out.
        where: conditions `COLUMN=VALUE`, joined by commas, that items must meet.
        seconds: maximum length; longer files are left out, because the text of a truncated file is unknown.
        shuffles: number of orders of the items that the shuffled values are averaged over.
        resamples: number of bootstrap resamples.
        broken: list that "name: reason" of each file that is left out is appended to.
        progress: wrapper that shows progress.

    Raises:
        PartitaError: fewer than two items have a text.
    """
    from partita.data import open_dataset

    broken = [] if broken is None else broken
    dataset = open_dataset(data, "test", where=where)
    check_columns(dataset, column, data)
    rows = without_audio(dataset)
    wanted = [i for i, row in enumerate(rows) if plain_text(str(row[column] or ""))]
    if not wanted:
        which = f" with {where}" if where else ""
        raise PartitaError(f"{data}: no test item{which} has a text in column {column!r}")
    if without := len(rows) - len(wanted):
        warn_once(f"{data}: {without} test items have no text in column {column!r} and are left out")
    longest = max(len(str(rows[i][column]).encode()) for i in wanted)
    clips = whole_files(dataset.select(wanted), broken=broken)
    references: list[str] = []
    written: list[str] = []
    features: dict[str, list[Features]] = {name: [] for name in models}
    answers: dict[str, list[str]] = {name: [] for name in models}
    for model in models.values():
        model.eval()
    for clip in clips if progress is None else progress(clips, len(wanted)):
        if clip.audio.shape[-1] > seconds * clip.sample_rate:
            broken.append(f"{clip.name}: longer than {seconds:g} s")
            continue
        written.append(str(clip.row[column]))
        references.append(plain_text(written[-1]))
        for name, model in models.items():
            latents = encode_clip(model.codec, clip)
            text = model.answer(latents, prompt, max_new_tokens=longest + _SPARE_TOKENS)[0]
            answers[name].append(plain_text(text))
            features[name].append(model.represent(latents))
    if len(references) < 2:
        raise PartitaError(f"{data}: {len(references)} test items are left; shuffling needs at least 2")
    orders = [_derangement(len(references), seed) for seed in range(shuffles)]

    def nats(name: str, order: Iterable[int]) -> list[float]:
        pairs = zip(order, written)
        return [float(models[name].surprise(features[name][i], prompt, [text])) for i, text in pairs]

    surprises = {name: (nats(name, range(len(written))), [nats(name, order) for order in orders]) for name in models}
    return _transcripts(prompt, references, answers, surprises, orders, resamples=resamples)


def _transcripts(
    prompt: str,
    references: list[str],
    answers: dict[str, list[str]],
    surprises: dict[str, tuple[list[float], list[list[float]]]],
    orders: list[list[int]],
    *,
    resamples: int,
) -> Transcripts:
    bootstrap = Bootstrap(len(references), resamples=resamples)
    scale = len(references) / sum(map(len, references))
    rates, shuffled, gains = {}, {}, {}
    nats, nats_shuffled, nats_gain = {}, {}, {}
    for name, given in answers.items():
        own = _edits(given, references, scale)
        mean = _mean([_edits([given[i] for i in order], references, scale) for order in orders])
        rates[name], shuffled[name] = bootstrap.intervals([own, mean])
        gains[name] = bootstrap.difference(own, mean)
        own, mean = surprises[name][0], _mean(surprises[name][1])
        nats[name], nats_shuffled[name] = bootstrap.intervals([own, mean])
        nats_gain[name] = bootstrap.difference(own, mean)
    texts = {name: tuple(given) for name, given in answers.items()}
    return Transcripts(
        prompt,
        len(references),
        tuple(references),
        texts,
        rates,
        shuffled,
        gains,
        nats,
        nats_shuffled,
        nats_gain,
        {"shuffles": len(orders)} | bootstrap.settings(),
    )


def _mean(rows: list[list[float]]) -> list[float]:
    """Mean per item over orders."""
    return torch.tensor(rows, dtype=torch.float64).mean(0).tolist()


def _edits(answers: Iterable[str], references: Iterable[str], scale: float) -> list[float]:
    """Edits per item, scaled so that their mean is the overall error rate."""
    return [scale * character_edits(answer, reference) for answer, reference in zip(answers, references)]


def _derangement(count: int, seed: int) -> list[int]:
    """A random permutation without fixed points: each item maps to its successor in a random order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(hashed_seed("shuffle", seed))).tolist()
    follows = dict(zip(order, [*order[1:], order[0]]))
    return [follows[i] for i in range(count)]
