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
from .tasks import LabelTask, check_columns, described, find_tasks, majority, open_splits

if TYPE_CHECKING:
    from partita_representation import RepresentationModel

Shown = Callable[[Iterable[Clip], int], Iterable[Clip]]
"""Wraps the clips of a split, of which there are so many, to show how far they are."""


def probe(
    models: "Mapping[str, Codec | RepresentationModel]",
    data: str,
    *,
    column: str = "label",
    where: Mapping[str, str] | None = None,
    settings: ProbeSettings | None = None,
    seconds: float = 10.0,
    resamples: int = 2000,
    broken: list[str] | None = None,
    shown: Shown | None = None,
) -> Probing:
    """Probes the latents of every codec and the features of every representation, beside log-mel.

    Masked mean pool, layer norm, one linear layer, as X-ARES (arXiv 2505.16369) probes frozen encoders. Trained on the
    split "train", its best epoch by "validation" where there is one, measured on "test". Nothing of the models is
    trained, so each file is computed once, for all tasks.

    Args:
        models: codecs and representation models by the names they get in the tables.
        data: as `open_dataset` takes it.
        column: of the classes; rows where it is empty are left out.
        where: values that columns must have; without any, each value of a column `task` is a task of its own.
        settings: of the probes.
        seconds: of each file at most, from its start.
        resamples: of the bootstrap.
        broken: gets "name: reason" of each file that cannot be read and is left out.
        shown: shows progress.

    Raises:
        PartitaError: the data has no such splits, columns or classes.
    """
    settings = settings or ProbeSettings()
    if seconds <= 0:
        raise PartitaError(f"seconds is {seconds:g}; it must be positive")
    splits, where = open_splits(data), where or {}
    check_columns(splits["train"], [column, *where], data)
    tasks = find_tasks({name: described(split) for name, split in splits.items()}, column=column, where=where)
    for model in models.values():
        model.eval()
    features: dict[str, dict[str, dict[int, Tensor]]] = {}
    for name, split in splits.items():
        wanted = sorted({index for task in tasks for index, _ in task.items.get(name, ())})
        if wanted:
            clips = _rows_of(whole_files(split.select(wanted), broken=broken), wanted)
            clips = clips if shown is None else shown(clips, len(wanted))
            features[name] = pooled_features(models, clips, seconds=seconds)
    found = tuple(probe_features(features, task, settings, resamples=resamples) for task in tasks)
    facts = {"where": dict(where), "seconds": seconds} | asdict(settings)
    return Probing(column, found, facts | Bootstrap(1, resamples=resamples).settings())


def probe_features(
    features: Mapping[str, Mapping[str, Mapping[int, Tensor]]],
    task: LabelTask,
    settings: ProbeSettings,
    *,
    resamples: int = 2000,
) -> ProbeTask:
    """Probes of one task, every source with the same seeds and over the same items.

    Args:
        features: split -> source -> row -> pooled features `(width,)`; rows that could not be read are missing.
        task: the rows and their classes.
        settings: of the probes.
        resamples: of the bootstrap.

    Raises:
        PartitaError: none of the items to train on, or to test with, could be read.
    """
    sources = list(features["train"])
    items = {
        split: [(row, label) for row, label in rows if row in features[split][sources[0]]]
        for split, rows in task.items.items()
    }
    if not items["train"] or not items["test"]:
        raise PartitaError(f"no item of {task.name} to train on, or none to test with, can be read")
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
    """Whether each test item is classified rightly, `(items,)` float64."""
    train, validation = examples["train"], examples.get("validation")
    with torch.enable_grad():
        fitted = fit_probe(train, validation, classes=classes, settings=settings, seed=seed)
    return (fitted(examples["test"].features).argmax(1) == truth).double()


def _rows_of(clips: Iterable[Clip], rows: list[int]) -> Iterable[Clip]:
    """The clips of a selection, numbered as in the whole."""
    for clip in clips:
        yield replace(clip, index=rows[clip.index])
