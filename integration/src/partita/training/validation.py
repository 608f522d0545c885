"""Looking at a run while it goes: what it sounds like on the validation split, or its losses there."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import ChannelLayout, Codec, PartitaError, hashed_seed
from torch import Tensor

from partita.data import build_loader, dataset_splits, first_rows, move_batch, open_dataset, random_piece
from partita.data.messages import warn_once
from partita.evaluation import evaluate
from partita.objectives.objective import Objective, TrainState

from .logs import Log
from .model_card import Measured
from .optimization import EMA, averaged
from .run import RunConfig
from .samples import Samples

if TYPE_CHECKING:
    from datasets import Dataset

# Clips of an evaluation: many short ones say more than one long one.
_CLIPS = 8


class Periodic:
    """Evaluates the averaged weights on a few validation files; without that split, on training files.

    A codec is listened to, if the data is audio: figures, and what the clips sound like. Of everything else the losses
    are taken, in eval mode and with the same draws every time.
    """

    def __init__(
        self,
        data: str | Path,
        objective: Objective,
        ema: EMA | None,
        config: RunConfig,
        device: torch.device,
        samples: Samples,
        classes: Mapping[str, tuple[str, ...]] | None = None,  # of the training loader
    ) -> None:
        """Reads what is to be looked at."""
        self._every, self._looked_in_the_middle = config.trainer.evaluate_every, False
        self.measured: list[Measured] = []  # by the last evaluation
        settings = config.data
        self.split = "validation" if "validation" in dataset_splits(data, streaming=settings.streaming) else "train"
        if self.split == "train":
            warn_once(f"{data}: has no split validation; evaluations during training are of training files")
        dataset = first_rows(open_dataset(data, split=self.split, where=settings.where, streaming=settings.streaming))
        listens = isinstance(objective.result, Codec) and "audio" in dataset.column_names
        kind: Callable[..., Any] = _Clips if listens else _Losses
        self._look = kind(dataset, objective, ema, config, device, samples, classes)

    def due(self, state: TrainState, last: bool) -> bool:
        """Whether to look after this step."""
        if last:
            return True
        if self._every is not None:
            return state.step % self._every == 0
        middle = not self._looked_in_the_middle and state.progress >= 0.5  # once, though the total may be an estimate
        self._looked_in_the_middle = self._looked_in_the_middle or middle
        return middle

    def missed(self, state: TrainState, last: bool, log: Log) -> bool:
        """Whether to look before the first step: at a start, or where a kill came between a checkpoint and the look.

        Args:
            state: where the run stands.
            last: whether there are no steps to take.
            log: just opened; what it says of looks in the middle is believed, so that there is one.
        """
        looks = [line["step"] for line in log.kept if any(name.startswith(f"{self.split}/") for name in line)]
        if state.step in looks:
            self._looked_in_the_middle = len(looks) > 1
            return False
        self._looked_in_the_middle = any(looks)
        return state.step == 0 or self.due(state, last)

    def evaluate(self, state: TrainState, log: Log | None) -> None:
        """Writes the figures to the log."""
        if log is not None and self.measure(state):
            log.write(state.step, **{f"{self.split}/{each.name}": each.value for each in self.measured})

    def measure(self, state: TrainState) -> list[Measured]:
        """The figures as they are now, the same at every call; none where there is nothing to look at."""
        with torch.random.fork_rng():
            self.measured = self._look(state)
        return self.measured


class _Clips:
    """What clips sound like: figures, and audio in `samples/`."""

    def __init__(
        self,
        dataset: "Dataset",
        objective: Objective,
        ema: EMA | None,
        config: RunConfig,
        device: torch.device,
        samples: Samples,
        classes: Mapping[str, tuple[str, ...]] | None,
    ) -> None:
        self._objective, self._ema, self._samples = objective, ema, samples
        spec = objective.codec.audio_spec
        self._rate = spec.sample_rate
        count = min(_CLIPS, len(dataset))
        rows = [round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)]
        self._clips: list[tuple[str, Tensor, ChannelLayout]] = []
        for row in rows:
            with suppress(PartitaError):  # a run without validation audio still trains
                clip = random_piece(
                    dataset,
                    row,
                    samples=max(1, int(config.trainer.evaluate_seconds / count * self._rate)),
                    sample_rate=self._rate,
                    mono=spec.channels == 1,
                    silence_db=config.data.silence_db,
                    key=(config.trainer.seed, "evaluation"),
                )
                self._clips.append((clip.name, clip.audio, clip.layout))

    def __call__(self, state: TrainState) -> list[Measured]:
        if not self._clips:
            return []

        def keep(name: str, audio: Tensor, estimates: dict[str, Tensor]) -> None:
            self._samples.keep(state.step, name, estimates["model"], audio, self._rate)

        with averaged(self._objective, self._ema) as codec:
            assert isinstance(codec, Codec)
            found = evaluate({"model": codec}, self._clips, references=False, on_clip=keep)
        means = found.means["model"]
        return [Measured(m.name, m.title, means[m.name].mean, means[m.name]) for m in found.metrics]


class _Losses:
    """The losses of the first phase, on crops that stay the same, as unvaried as the files."""

    def __init__(
        self,
        dataset: "Dataset",
        objective: Objective,
        ema: EMA | None,
        config: RunConfig,
        device: torch.device,
        samples: Samples,
        classes: Mapping[str, tuple[str, ...]] | None,
    ) -> None:
        self._objective, self._ema, self._device = objective, ema, device
        self._seed = hashed_seed(config.trainer.seed, "evaluation")
        most = round(config.trainer.evaluate_seconds / config.data.crop_seconds)
        plain = replace(config.data, num_workers=0, augmentation=None, streaming=False)
        data = replace(plain, batch_size=max(1, min(most, len(dataset))))
        spec = objective.codec.audio_spec
        loader = build_loader(
            dataset,
            data,
            audio_spec=spec,
            crop_multiple=objective.crop_multiple,
            seed=config.trainer.seed,
            classes=classes,
        )
        size = config.data.batch_size
        try:
            drawn = next(iter(loader))
            self._batches = [_part(drawn, slice(i, i + size)) for i in range(0, len(drawn["index"]), size)]
        except PartitaError:
            self._batches = []  # as above

    def __call__(self, state: TrainState) -> list[Measured]:
        sums: dict[str, float] = defaultdict(float)
        count = 0
        torch.manual_seed(self._seed)
        with averaged(self._objective, self._ema), _evaluating(self._objective), torch.no_grad():
            for batch in self._batches:
                moved: Any = move_batch(batch, self._device)
                output = self._objective(moved, state, self._objective.phases[0])
                items = len(batch["index"])
                count += items
                for name, value in (output.losses | output.metrics).items():
                    sums[name] += float(value) * items
        return [Measured(name, name, value / count) for name, value in sums.items()]


def _part(batch: Any, items: slice) -> dict[str, Any]:
    parts = {key: value for key, value in batch.items() if key != "broken"}
    return {key: _part(part, items) if isinstance(part, dict) else part[items] for key, part in parts.items()}


@contextmanager
def _evaluating(objective: Objective) -> Iterator[None]:
    was_training = objective.training
    objective.eval()
    try:
        yield
    finally:
        objective.train(was_training)
