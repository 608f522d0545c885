"""Evaluation during a run: metrics of decoded validation clips, or losses on validation crops."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from partita_core import ChannelLayout, Codec, PartitaError, hashed_seed
from torch import Tensor

from partita.data import build_loader, move_batch, random_piece
from partita.evaluation import evaluate
from partita.objectives.objective import Objective, TrainState

from .ema import EMA, averaged
from .logs import Log
from .model_card import ValidationMetric
from .run import RunConfig
from .run_data import RunData
from .samples import Samples

if TYPE_CHECKING:
    from datasets import Dataset

# Number of clips of an evaluation: many short clips are more representative than one long clip.
_CLIPS = 8


class Validator:
    """Evaluation of the averaged weights on a few validation files, or on training files without such a split.

    For a codec and audio data, it computes metrics of decoded clips and writes the clips. Otherwise it computes the
    losses of the first phase, in eval mode and with the same random draws every time.

    Attributes:
        split: split that is evaluated.
        measured: metrics of the last evaluation.
    """

    def __init__(
        self,
        data: RunData,
        objective: Objective,
        ema: EMA | None,
        config: RunConfig,
        device: torch.device,
        samples: Samples,
        classes: Mapping[str, tuple[str, ...]] | None = None,  # of the training loader
    ) -> None:
        """Read the validation clips or crops."""
        self._every, self._midpoint_done = config.trainer.evaluate_every, False
        self.measured: list[ValidationMetric] = []
        self.split, dataset = data.validation()
        audible = isinstance(objective.result, Codec) and "audio" in dataset.column_names
        self._evaluate: Callable[[TrainState], list[ValidationMetric]] = (
            _ClipMetrics(dataset, objective, ema, config, samples)
            if audible
            else _CropLosses(dataset, objective, ema, config, device, classes)
        )

    def due(self, state: TrainState, last: bool) -> bool:
        """True if an evaluation follows this step.

        Args:
            state: progress of the run.
            last: True for the last step.
        """
        if last:
            return True
        if self._every is not None:
            return state.step % self._every == 0
        middle = not self._midpoint_done and state.progress >= 0.5  # once, although total_steps may be an estimate
        self._midpoint_done = self._midpoint_done or middle
        return middle

    def overdue(self, state: TrainState, last: bool, log: Log) -> bool:
        """True if an evaluation is due before the first step: of a new run, or that of a checkpoint if it was killed.

        Args:
            state: progress of the run.
            last: True if there are no steps to take.
            log: log that was just opened; it shows which evaluations took place.
        """
        done = [line["step"] for line in log.kept if any(name.startswith(f"{self.split}/") for name in line)]
        if state.step in done:
            self._midpoint_done = len(done) > 1
            return False
        self._midpoint_done = any(done)
        return state.step == 0 or self.due(state, last)

    def validate(self, state: TrainState) -> list[ValidationMetric]:
        """Evaluate the current weights; deterministic, and empty if no clip could be read."""
        with torch.random.fork_rng():
            self.measured = self._evaluate(state)
        return self.measured


class _ClipMetrics:
    """Metrics of decoded clips, which are also written to `samples/`."""

    def __init__(
        self,
        dataset: "Dataset",
        objective: Objective,
        ema: EMA | None,
        config: RunConfig,
        samples: Samples,
    ) -> None:
        self._objective, self._ema, self._samples = objective, ema, samples
        spec = objective.codec.audio_spec
        self._rate = spec.sample_rate
        count = min(_CLIPS, len(dataset))
        rows = [round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)]
        self.clips: list[tuple[str, Tensor, ChannelLayout]] = []
        for row in rows:
            with suppress(PartitaError):  # validation audio is optional
                clip = random_piece(
                    dataset,
                    row,
                    samples=max(1, int(config.trainer.evaluate_seconds / count * self._rate)),
                    sample_rate=self._rate,
                    mono=spec.channels == 1,
                    silence_db=config.data.silence_db,
                    key=(config.trainer.seed, "evaluation"),
                )
                self.clips.append((clip.name, clip.audio, clip.layout))

    def __call__(self, state: TrainState) -> list[ValidationMetric]:
        if not self.clips:
            return []

        def write(name: str, audio: Tensor, estimates: dict[str, Tensor]) -> None:
            self._samples.write(state.step, name, estimates["model"], audio, self._rate)

        with averaged(self._objective, self._ema) as codec:
            assert isinstance(codec, Codec)
            found = evaluate({"model": codec}, self.clips, references=False, on_clip=write)
        means = found.means["model"]
        return [ValidationMetric(m.name, m.title, means[m.name].mean, means[m.name]) for m in found.metrics]


class _CropLosses:
    """Losses of the first phase on fixed crops without augmentation."""

    def __init__(
        self,
        dataset: "Dataset",
        objective: Objective,
        ema: EMA | None,
        config: RunConfig,
        device: torch.device,
        classes: Mapping[str, tuple[str, ...]] | None,
    ) -> None:
        self._objective, self._ema, self._device = objective, ema, device
        self._seed = hashed_seed(config.trainer.seed, "evaluation")
        crops = round(config.trainer.evaluate_seconds / config.data.crop_seconds)
        fixed = replace(config.data, num_workers=0, augmentation=None, streaming=False)
        data = replace(fixed, batch_size=max(1, min(crops, len(dataset))))
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
            self._batches = [_items(drawn, slice(i, i + size)) for i in range(0, len(drawn["index"]), size)]
        except PartitaError:
            self._batches = []  # validation data is optional

    def __call__(self, state: TrainState) -> list[ValidationMetric]:
        sums: dict[str, float] = defaultdict(float)
        count = 0
        torch.manual_seed(self._seed)
        with averaged(self._objective, self._ema), _eval_mode(self._objective), torch.no_grad():
            for batch in self._batches:
                moved: Any = move_batch(batch, self._device)
                output = self._objective(moved, state, self._objective.phases[0])
                items = len(batch["index"])
                count += items
                for name, value in (output.losses | output.metrics).items():
                    sums[name] += float(value) * items
        return [ValidationMetric(name, name, value / count) for name, value in sums.items()]


def _items(batch: Any, items: slice) -> dict[str, Any]:
    """Some items of a batch."""
    parts = {key: value for key, value in batch.items() if key != "broken"}
    return {key: _items(part, items) if isinstance(part, dict) else part[items] for key, part in parts.items()}


@contextmanager
def _eval_mode(objective: Objective) -> Iterator[None]:
    was_training = objective.training
    objective.eval()
    try:
        yield
    finally:
        objective.train(was_training)
