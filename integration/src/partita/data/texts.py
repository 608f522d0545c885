"""Texts to supervise with: what is asked and answered about a crop, made of the columns of its row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any

import torch
from partita_core import PartitaError, suggest
from torch import Generator

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextTask:
    """A question about a recording and its answer, as templates over the columns of its row.

    `"a sound of {label}"` is filled in with the row's label. The task applies to a row where every column of `where`
    holds the value named and no column of the templates is empty.

    Attributes:
        prompt: what is asked.
        answer: what is to follow.
        where: the values, as text, that columns must have.
        whole: the answer holds of the whole file only, as a transcript; it is not asked of a part.
    """

    prompt: str
    answer: str
    where: dict[str, str] = field(default_factory=dict)
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuses templates that are not text with columns in braces."""
        for template in (self.prompt, self.answer):
            for name in _fields(template):
                if not name or any(mark in name for mark in ".[!:"):
                    raise PartitaError(f"the template {template!r} has {{{name}}}; a column's name goes between braces")
        if not self.answer:
            raise PartitaError(f"the text task {self.prompt!r} has no answer")

    @property
    def columns(self) -> set[str]:
        """The columns that it looks at."""
        return {*_fields(self.prompt), *_fields(self.answer), *self.where}

    def text(self, row: Row) -> tuple[str, str] | None:
        """Prompt and answer for a row; None where the task does not apply."""
        if any(str(row[column]) != value for column, value in self.where.items()):
            return None
        if any(row[column] in (None, "") for column in self.columns):
            return None
        return self.prompt.format_map(row), self.answer.format_map(row)


# Columns that say what is heard from the first second to the last.
_TRANSCRIPTS = frozenset({"lyrics", "sentence", "text", "transcript", "transcription"})


def condition(template: str) -> TextTask:
    """The task that conditions on a template over columns; of the whole file only where one of them is a transcript."""
    task = TextTask("", template)
    return replace(task, whole=not task.columns.isdisjoint(_TRANSCRIPTS))


def check_texts(tasks: Iterable[TextTask], columns: Sequence[str]) -> None:
    """Holds tasks against the columns that there are.

    Raises:
        PartitaError: a column is not among them; the nearest names are given.
    """
    for task in tasks:
        for column in sorted(task.columns - set(columns)):
            raise PartitaError(f"the text task {task.answer!r} needs the column {column!r}; {suggest(column, columns)}")


def draw_text(tasks: Iterable[TextTask], row: Row, *, whole: bool, generator: Generator) -> tuple[str, str]:
    """Prompt and answer of one task, drawn from those that apply; empty where none does.

    Args:
        tasks: what may be asked.
        row: the columns of the file.
        whole: whether the crop holds the whole file.
        generator: the only source of chance.
    """
    texts = [text for task in tasks if (whole or not task.whole) and (text := task.text(row))]
    return texts[int(torch.randint(len(texts), (), generator=generator))] if texts else ("", "")


def all_texts(tasks: Sequence[TextTask], rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Prompt and answer of every task that applies to a row, as if each file were heard whole."""
    for row in rows:
        yield from (text for task in tasks if (text := task.text(row)))


def _fields(template: str) -> list[str]:
    """What stands between the braces of a template, as it is written."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise PartitaError(f"the template {template!r} is malformed: {error}") from None
    return [
        name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        for _, name, spec, conversion in parts
        if name is not None
    ]


def _label(task: str, prompt: str, answer: str, *, whole: bool = False) -> TextTask:
    return TextTask(prompt, answer, {"task": task}, whole)


SPEECH_AND_SOUND_TEXTS: tuple[TextTask, ...] = (
    TextTask("Transcribe the speech.", "{text}", {"text_kind": "transcript"}, whole=True),
    TextTask("Describe the audio.", "{caption}"),
    _label("spoken_digit", "Which digit is spoken?", "The digit is {label}.", whole=True),
    _label("spoken_order", "What is ordered?", "The order is {label}.", whole=True),
    _label("sound_class", "What is the sound?", "The sound is {label}."),
    _label("instrument_family", "Which instrument plays?", "The instrument is {label}."),
    _label("music_type", "What kind of music is it?", "The music is {label}."),
)
"""Transcript, caption and label, for sets of speech, sound and music with the columns task, label, text, text_kind and
caption, as `partita synth` makes one."""
