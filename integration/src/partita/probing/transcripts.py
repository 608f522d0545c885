"""What a frozen language model makes of features: transcripts, by their character error rate."""

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
from .tasks import check_columns, matches

if TYPE_CHECKING:
    from partita_representation import Features, RepresentationModel

    from .probe import Shown

# Beyond the longest reference, in bytes: room to be wrong, none to go on for ever.
_SPARE_TOKENS = 8


@dataclass(frozen=True)
class Transcripts:
    """Character error rates of models; 1 is as many edits as there are characters.

    Attributes:
        prompt: what the language model was asked.
        items: number of test items.
        references: their texts.
        answers: model -> the text for each item.
        error_rate: model -> edits over characters of all items.
        shuffled: model -> the same with the answers to the audio of other items.
        gain: model -> `error_rate - shuffled`, paired by item: what the audio is good for.
        surprise: model -> nats a token that the texts, as they are written, are worth to the language model.
        surprise_shuffled: model -> the same of the texts after the audio of other items.
        surprise_gain: model -> `surprise - surprise_shuffled`, paired by item. Where answers are still wrong in most
            characters it tells sooner whether the audio is heard.
        settings: of the shuffle and the bootstrap.
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
        """Writes the record, whole or not at all."""
        write_json(path, to_dict(self))

    def to_markdown(self) -> str:
        """One row a model."""
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
            "Surprise of the language model at the right text, nats a token.",
            "",
            *markdown_table(heading, nats),
        ]
        return "\n".join(lines) + "\n"


def plain_text(text: str) -> str:
    """Lower case, letters, digits and apostrophes only, single spaces: what is compared."""
    kept = "".join(each if each.isalnum() or each == "'" else " " for each in text.casefold())
    return " ".join(kept.split())


def character_edits(answer: str, reference: str) -> int:
    """The fewest insertions, deletions and substitutions that make one text the other (Levenshtein's distance)."""
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
    where: Mapping[str, str] | None = None,
    seconds: float = 10.0,
    shuffles: int = 10,
    resamples: int = 2000,
    broken: list[str] | None = None,
    shown: "Shown | None" = None,
) -> Transcripts:
    """Asks the frozen language model of each representation for the text of every test item.

    Case and punctuation do not count. The error rate is all edits over all characters, as usual; in the interval items
    are resampled, and the number of characters is taken as given. Shuffled, each text is held against the answers to
    the audio of other items, which an answer that owes nothing to the audio survives unharmed. Beside it stands how
    little the language model expects the right text after the one audio and after the other.

    Args:
        models: by the names they get in the tables.
        data: as `open_dataset` takes it; the split is "test".
        prompt: what the language model is asked.
        column: of the texts; rows where it is empty are left out.
        where: values that columns must have.
        seconds: longer files are left out: of the beginning of a file nobody knows the text.
        shuffles: orders of the items that the shuffled figure is the mean of.
        resamples: of the bootstrap.
        broken: gets "name: reason" of each file that is left out.
        shown: shows progress.

    Raises:
        PartitaError: there are fewer than two items with a text.
    """
    from partita.data import open_dataset

    where, broken = where or {}, [] if broken is None else broken
    dataset = open_dataset(data, "test")
    check_columns(dataset, [column, *where], data)
    rows = dataset.remove_columns("audio").to_list()
    wanted = [i for i, row in enumerate(rows) if matches(row, where) and plain_text(str(row[column] or ""))]
    if not wanted:
        which = "".join(f" with {key}={value}" for key, value in where.items())
        raise PartitaError(f"{data}: no test item{which} has a text in column {column!r}")
    without = sum(matches(row, where) for row in rows) - len(wanted)
    if without:
        warn_once(f"{data}: {without} test items have no text in column {column!r} and are left out")
    longest = max(len(str(rows[i][column]).encode()) for i in wanted)
    clips = whole_files(dataset.select(wanted), broken=broken)
    references: list[str] = []
    written: list[str] = []
    heard: dict[str, list[Features]] = {name: [] for name in models}
    answers: dict[str, list[str]] = {name: [] for name in models}
    for model in models.values():
        model.eval()
    for clip in clips if shown is None else shown(clips, len(wanted)):
        if clip.audio.shape[-1] > seconds * clip.sample_rate:
            broken.append(f"{clip.name}: is longer than {seconds:g} s")
            continue
        written.append(str(clip.row[column]))
        references.append(plain_text(written[-1]))
        for name, model in models.items():
            latents = encode_clip(model.codec, clip)
            text = model.answer(latents, prompt, max_new_tokens=longest + _SPARE_TOKENS)[0]
            answers[name].append(plain_text(text))
            heard[name].append(model.represent(latents))
    if len(references) < 2:
        raise PartitaError(f"{data}: {len(references)} test items are left; shuffling takes two")
    orders = [_derangement(len(references), seed) for seed in range(shuffles)]

    def nats(name: str, order: Iterable[int]) -> list[float]:
        pairs = zip(order, written)
        return [float(models[name].surprise(heard[name][i], prompt, [text])) for i, text in pairs]

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
    """Of each item, over orders."""
    return torch.tensor(rows, dtype=torch.float64).mean(0).tolist()


def _edits(answers: Iterable[str], references: Iterable[str], scale: float) -> list[float]:
    """Edits of each item, so scaled that their mean is the error rate of all."""
    return [scale * character_edits(answer, reference) for answer, reference in zip(answers, references)]


def _derangement(count: int, seed: int) -> list[int]:
    """Another item for each: a random order, each followed by its neighbor."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(hashed_seed("shuffle", seed))).tolist()
    follows = dict(zip(order, [*order[1:], order[0]]))
    return [follows[i] for i in range(count)]
