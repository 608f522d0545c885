"""Check before training how many files of a data set have a text that applies to a crop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from partita_core import AudioSpec, PartitaError

from .audio.files import audio_info
from .corpus.spec import corpus_spec
from .datasets import row_name, row_source
from .messages import counted, warn_once
from .sources.listing import spread_rows
from .texts import TextTask, check_texts

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Maximum number of files whose length is read.
_MAX_LENGTHS = 200


def check_coverage(
    dataset: "Dataset | IterableDataset", texts: Sequence[TextTask], *, audio_spec: AudioSpec, samples: int, data: str
) -> None:
    """Report the files that have no text, or only texts that do not apply to a crop.

    Args:
        dataset: data set, as `open_dataset` returns it; of a stream, only the columns are checked.
        texts: the text tasks.
        audio_spec: audio that the model takes.
        samples: samples per crop, at its sample rate.
        data: name of the data set, for messages.

    Raises:
        PartitaError: a column is missing, or no file has a text that applies.
    """
    check_texts(texts, dataset.column_names or ())
    rows: Any = dataset
    if not texts or not hasattr(dataset, "num_rows") or not len(rows):
        return
    applies = tasks_per_row(rows, texts)
    without = [number for number, tasks in enumerate(applies) if not tasks]
    templates = " or ".join(repr(task.answer) for task in texts)
    if len(without) == len(rows):
        raise PartitaError(
            f"{data}: none of {len(rows)} files has a text for {templates}; choose other columns, or none"
        )
    if without:
        names = [row_name(rows[number], number) for number in without[:1]] + [""] * (len(without) - 1)
        warn_once(
            f"{data}: of {len(rows)} files, {counted(names)} have no text for {templates} and are trained on without it"
        )
    whole = [number for number, tasks in enumerate(applies) if tasks and all(task.whole for task in tasks)]
    picked = [whole[position] for position in spread_rows(len(whole), _MAX_LENGTHS)]
    seconds = samples / audio_spec.sample_rate
    longer = [number for number in picked if _seconds(rows, number) > seconds]
    if len(longer) == len(rows):
        what = f"all of {len(rows)} files are longer than a crop of {seconds:g} s, so no text for {templates} applies"
        raise PartitaError(f"{data}: {what}; raise data.crop_seconds, or set data.texts.0.whole=false")
    if longer:
        share = f"{len(longer) / len(picked):.0%} of the files with a text"
        warn_once(
            f"{data}: {share} are longer than a crop of {seconds:g} s ({row_name(rows[longer[0]], longer[0])!r}, ...) "
            "and are trained on without their text, which describes the entire file; raise data.crop_seconds"
        )


def tasks_per_row(dataset: Any, texts: Sequence[TextTask]) -> list[list[TextTask]]:
    """The tasks that apply to each row of a data set, taken as an entire file."""
    columns = sorted(set[str]().union(*(task.columns for task in texts)))
    if not columns:
        return [list(texts) for _ in range(len(dataset))]
    table = dataset.select_columns(columns).with_format(None)[:]
    rows = (dict(zip(columns, cells)) for cells in zip(*(table[column] for column in columns)))
    return [[task for task in texts if task.text(row)] for row in rows]


def _seconds(dataset: Any, number: int) -> float:
    """Seconds of a file according to its header; 0 if it cannot be read."""
    row, corpus = dataset[number], corpus_spec(dataset)
    if corpus is not None:
        return row["audio_length"] / corpus.latent.sample_rate
    try:
        return audio_info(row_source(row, number)).duration
    except PartitaError:
        return 0.0
