"""Text tasks: prompts and answers about a recording, made from the metadata columns of its row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any

import torch
from partita_core import PartitaError, suggest
from torch import Generator

from .where import meets

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextTask:
    """A prompt and its answer, as templates over the columns of a row.

    `"a sound of {label}"` is filled in with the label of the row. The task applies to a row if every column in `where`
    has the given value and no column of the templates is empty.

    Attributes:
        prompt: template of the prompt.
        answer: template of the answer.
        where: required values of columns, as text; see `partita.data.where.meets`.
        whole: the answer describes only the entire file, like a transcript; the task does not apply to a crop of it.
    """

    prompt: str
    answer: str
    where: dict[str, str] = field(default_factory=dict)
    whole: bool = False

    def __post_init__(self) -> None:
        """Validate the templates."""
        for template in (self.prompt, self.answer):
            for name in _fields(template):
                if not name or any(mark in name for mark in ".[!:"):
                    found = f"the template {template!r} holds {{{name}}}"
                    raise PartitaError(f"{found}; braces must contain only the name of a column")
        if not self.answer:
            raise PartitaError(f"the text task {self.prompt!r} has no answer")

    @property
    def columns(self) -> set[str]:
        """Names of the columns that the task uses."""
        return {*_fields(self.prompt), *_fields(self.answer), *self.where}

    def text(self, row: Row) -> tuple[str, str] | None:
        """Prompt and answer for a row; None if the task does not apply."""
        if not meets(row, self.where) or any(row[column] in (None, "") for column in self.columns):
            return None
        return self.prompt.format_map(row), self.answer.format_map(row)


# Columns that describe a file from its first second to its last.
_TRANSCRIPTS = frozenset({"lyrics", "sentence", "text", "transcript", "transcription"})


def condition(template: str) -> TextTask:
    """The text task for conditioning on a template over columns; `whole` if one of them is a transcript."""
    task = TextTask("", template)
    return replace(task, whole=not task.columns.isdisjoint(_TRANSCRIPTS))


def check_texts(tasks: Iterable[TextTask], columns: Sequence[str]) -> None:
    """Check that the columns of tasks exist.

    Raises:
        PartitaError: a column does not exist; the nearest names are given.
    """
    for task in tasks:
        for column in sorted(task.columns - set(columns)):
            raise PartitaError(f"the text task {task.answer!r} needs the column {column!r}; {suggest(column, columns)}")


def draw_text(tasks: Iterable[TextTask], row: Row, *, whole: bool, generator: Generator) -> tuple[str, str]:
    """Prompt and answer of a random task that applies; empty texts if none does.

    Args:
        tasks: tasks to draw from.
        row: columns of the file.
        whole: True if the crop holds the entire file.
        generator: source of the random draw.
    """
    texts = [text for task in tasks if (whole or not task.whole) and (text := task.text(row))]
    return texts[int(torch.randint(len(texts), (), generator=generator))] if texts else ("", "")


def all_texts(tasks: Sequence[TextTask], rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Prompts and answers of all tasks that apply to the rows, taken as entire files."""
    for row in rows:
        yield from (text for task in tasks if (text := task.text(row)))


def _fields(template: str) -> list[str]:
    """Contents of the braces of a template."""
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
"""Tasks for transcripts, captions and labels, for data sets with the columns task, label, text, text_kind and caption,
such as those of `partita synth`."""
