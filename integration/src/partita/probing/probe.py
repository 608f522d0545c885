"""Linear probes of latents and features for the labels of a data set."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from partita_core import Codec, PartitaError
from torch import Tensor

from partita.data.clips import Clip, whole_files
from partita.evaluation.bootstrap import Bootstrap
from partita.evaluation.results import Difference

from .features import pooled_features
from .head import Examples, ProbeSettings, fit_probe
from .results import ProbeTask, Probing
from .tasks import LabelTask, majority, open_tasks

if TYPE_CHECKING:
    from partita_representation import RepresentationModel

Progress = Callable[[Iterable[Clip], int], Iterable[Clip]]
"""Wrapper of the clips of a split, given their number, to show progress."""


def probe(
    models: "Mapping[str, Codec | RepresentationModel]",
    data: str,
    *,
    column: str = "label",
    where: str = "",
    settings: ProbeSettings | None = None,
    seconds: float = 10.0,
    resamples: int = 2000,
    broken: list[str] | None = None,
    progress: Progress | None = None,
) -> Probing:
    """Probe the latents of codecs and the features of representation models, with log-mel spectra as the baseline.

    Mean over time, layer norm and one linear layer, as X-ARES (arXiv 2505.16369) probes frozen encoders. Probes are
    trained on the split "train", selected by "validation" if there is one, and measured on "test". The models are
    frozen, so each file is encoded once for all tasks.

    Args:
        models: codecs and representation models by their names in the tables.
        data: data set, as for `open_dataset`.
        column: column of the classes; rows in which it is empty are left out.
        where: conditions `COLUMN=VALUE`, joined by commas, that rows must meet, which then are one task; without any,
            each value of a column `task` is a separate task.
        settings: settings of the probes.
        seconds: maximum length of a file, from its start.
        resamples: number of bootstrap resamples.
        broken: list that "name: reason" of each unreadable file is appended to.
        progress: wrapper that shows progress.

    Raises:
        PartitaError: the data lacks the splits, columns or classes.
    """
    settings = settings or ProbeSettings()
    if seconds <= 0:
        raise PartitaError(f"seconds is {seconds:g}; it must be positive")
    splits, tasks = open_tasks(data, column=column, where=where)
    for model in models.values():
        model.eval()
    features: dict[str, dict[str, dict[int, Tensor]]] = {}
    for name, split in splits.items():
        wanted = sorted({index for task in tasks for index, _ in task.items.get(name, ())})
        if wanted:
            clips = _rows_of(whole_files(split.select(wanted), broken=broken), wanted)
            clips = clips if progress is None else progress(clips, len(wanted))
            features[name] = pooled_features(models, clips, seconds=seconds)
    found = tuple(probe_features(features, task, settings, resamples=resamples) for task in tasks)
    facts = {"where": where, "seconds": seconds} | asdict(settings)
    return Probing(column, found, facts | Bootstrap(1, resamples=resamples).settings())


def probe_features(
    features: Mapping[str, Mapping[str, Mapping[int, Tensor]]],
    task: LabelTask,
    settings: ProbeSettings,
    *,
    resamples: int = 2000,
) -> ProbeTask:
    """Train and measure the probes of one task, with the same seeds and items for every source.

    Args:
        features: split -> source -> row -> pooled features `(width,)`, without unreadable rows.
        task: rows and their classes.
        settings: settings of the probes.
        resamples: number of bootstrap resamples.

    Raises:
        PartitaError: no training items, or no test items, could be read.
    """
    sources = list(features["train"])
    items = {
        split: [(row, label) for row, label in rows if row in features[split][sources[0]]]
        for split, rows in task.items.items()
    }
    if not items["train"] or not items["test"]:
        counts = ", ".join(f"{len(items[split])} {split}" for split in ("train", "test"))
        raise PartitaError(f"{task.name} has too few readable items ({counts}); both must be at least 1")
    scores, by_seed = {}, {}
    truth = torch.tensor([label for _, label in items["test"]])
    for source in sources:
        examples = {
            split: Examples(
                torch.stack([features[split][source][row] for row, _ in rows]),
                torch.tensor([label for _, label in rows]),
            )
            for split, rows in items.items()
            if rows
        }
        right = torch.stack([_right(examples, truth, len(task.classes), settings, s) for s in range(settings.seeds)])
        scores[source] = tuple(right.mean(0).tolist())
        by_seed[source] = tuple(right.mean(1).tolist())
    bootstrap = Bootstrap(len(truth), resamples=resamples)
    return ProbeTask(
        name=task.name,
        classes=task.classes,
        items={split: len(rows) for split, rows in items.items()},
        unknown=task.unknown,
        chance=1 / len(task.classes),
        majority=majority([label for _, label in items["train"]], truth.tolist()),
        scores=scores,
        by_seed=by_seed,
        accuracy=dict(zip(scores, bootstrap.intervals(list(scores.values())))),
        differences=tuple(
            Difference(second, first, "accuracy", bootstrap.difference(scores[second], scores[first]))
            for first, second in combinations(sources, 2)
        ),
    )


@torch.no_grad()
def _right(examples: dict[str, Examples], truth: Tensor, classes: int, settings: ProbeSettings, seed: int) -> Tensor:
    """1 for each test item that is classified correctly, else 0, `(items,)` float64."""
    train, validation = examples["train"], examples.get("validation")
    with torch.enable_grad():
        fitted = fit_probe(train, validation, classes=classes, settings=settings, seed=seed)
    return (fitted(examples["test"].features).argmax(1) == truth).double()


def _rows_of(clips: Iterable[Clip], rows: list[int]) -> Iterable[Clip]:
    """Clips of a selection with their original row numbers."""
    for clip in clips:
        yield replace(clip, index=rows[clip.index])
