"""Coverage of texts: the files of a data set that have none, counted before training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from partita_core import AudioSpec, PartitaError

from .audio.files import audio_info
from .corpus.read import corpus_spec
from .datasets import row_name, row_source
from .notes import counted, note
from .sources.listing import spread_rows
from .texts import TextTask, check_texts

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Files whose lengths are looked at.
_LENGTHS = 200


def check_coverage(
    dataset: "Dataset | IterableDataset", texts: Sequence[TextTask], *, audio_spec: AudioSpec, samples: int, data: str
) -> None:
    """Count the files that have no text, or none that holds of a part of them, and note them.

    Args:
        dataset: as `open_dataset` returns it; of a stream nothing is known.
        texts: the tasks that are drawn from.
        audio_spec: the audio that the model takes.
        samples: length of a crop, at its sample rate.
        data: the name of the data set, for messages.

    Raises:
        PartitaError: a column is missing, or no file has a text.
    """
    check_texts(texts, dataset.column_names or ())
    rows: Any = dataset
    if not texts or not hasattr(dataset, "num_rows") or not len(rows):
        return
    applies = applying(rows, texts)
    without = [number for number, tasks in enumerate(applies) if not tasks]
    templates = " or ".join(repr(task.answer) for task in texts)
    if len(without) == len(rows):
        raise PartitaError(
            f"{data}: none of {len(rows)} files has a text by {templates}; choose other columns, or none"
        )
    if without:
        names = [row_name(rows[number], number) for number in without[:1]] + [""] * (len(without) - 1)
        note(f"{data}: of {len(rows)} files, no text by {templates} for {counted(names)}; they are trained on without")
    whole = [number for number, tasks in enumerate(applies) if tasks and all(task.whole for task in tasks)]
    picked = [whole[place] for place in spread_rows(len(whole), _LENGTHS)]
    seconds = samples / audio_spec.sample_rate
    longer = [number for number in picked if _seconds(rows, number) > seconds]
    if len(longer) == len(rows):
        what = f"all of {len(rows)} files are longer than a crop of {seconds:g} s, of which the texts by {templates}"
        raise PartitaError(f"{data}: {what} do not hold; raise data.crop_seconds, or set data.texts.0.whole=false")
    if longer:
        share = f"{len(longer) / len(picked):.0%} of the files with a text"
        note(
            f"{data}: {share} are longer than a crop of {seconds:g} s ({row_name(rows[longer[0]], longer[0])!r}, ...), "
            "and a text of the whole is not that of a part: they are trained on without; raise data.crop_seconds"
        )


def applying(dataset: Any, texts: Sequence[TextTask]) -> list[list[TextTask]]:
    """The tasks that apply to each row of a data set, taking each file whole."""
    columns = sorted(set[str]().union(*(task.columns for task in texts)))
    if not columns:
        return [list(texts) for _ in range(len(dataset))]
    table = dataset.select_columns(columns).with_format(None)[:]
    rows = (dict(zip(columns, cells)) for cells in zip(*(table[column] for column in columns)))
    return [[task for task in texts if task.text(row)] for row in rows]


def _seconds(dataset: Any, number: int) -> float:
    """Seconds of a file by its header; 0 where it cannot be read."""
    row, corpus = dataset[number], corpus_spec(dataset)
    if corpus is not None:
        return row["audio_length"] / corpus.latent.sample_rate
    try:
        return audio_info(row_source(row, number)).duration
    except PartitaError:
        return 0.0
