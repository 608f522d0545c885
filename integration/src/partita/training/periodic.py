"""Listening to a run while it goes: figures, audio and spectrograms on the validation split."""

from pathlib import Path

import torch
from partita_core import ChannelLayout, PartitaError
from torch import Tensor

from partita.data import open_dataset, whole_files, write_audio
from partita.evaluation import evaluate

from .logs import Log
from .objective import Objective, TrainState
from .optimization import EMA, averaged
from .run import RunFolder, TrainerConfig

# Clips of an evaluation: many short ones say more than one long one.
_CLIPS = 8


class Periodic:
    """Evaluates the averaged weights on the start of a few validation files, and keeps what they sound like."""

    def __init__(
        self, data: str | Path, objective: Objective, ema: EMA | None, run: RunFolder, config: TrainerConfig
    ) -> None:
        """Reads the clips; without a validation split, training files serve and the log says so."""
        self._objective, self._ema, self._run, self._config = objective, ema, run, config
        self._rate = objective.codec.audio_spec.sample_rate
        self._heard_middle = False
        self.measured: dict[str, float] = {}  # by the last evaluation
        try:
            dataset, self.split = open_dataset(data, split="validation"), "validation"
        except PartitaError:
            dataset, self.split = open_dataset(data, split="train"), "train"
        count = min(_CLIPS, len(dataset))
        rows = [round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)]
        samples = int(config.evaluate_seconds / count * self._rate)
        self._clips: list[tuple[str, Tensor, ChannelLayout]] = []
        try:
            for clip in whole_files(dataset.select(rows), sample_rate=self._rate):
                self._clips.append((clip.name, clip.audio[:, :samples], clip.layout))
        except PartitaError:
            self._clips = []  # nothing to listen to is no reason not to train

    def due(self, state: TrainState, last: bool) -> bool:
        """Whether this step is to be listened to."""
        if last:
            return True
        if self._config.evaluate_every is not None:
            return state.step % self._config.evaluate_every == 0
        middle = not self._heard_middle and state.progress >= 0.5  # once, though the total may be an estimate
        self._heard_middle = self._heard_middle or middle
        return middle

    def evaluate(self, step: int, log: Log | None) -> None:
        """Writes figures to the log, and audio and spectrograms to `samples/`."""
        if not self._clips or log is None:
            return
        folder = self._run.samples / f"step_{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)

        def keep(name: str, audio: Tensor, estimates: dict[str, Tensor]) -> None:
            file = folder / Path(name).with_suffix(".wav").name
            write_audio(file, estimates["model"], self._rate)

        with torch.random.fork_rng(), averaged(self._objective, self._ema) as codec:
            levels = len(codec.latent_spec.codebook_sizes) or None  # what is trained is heard: codes, where there are
            settings = {"references": False, "resamples": 1, "num_quantizers": levels}
            found = evaluate({"model": codec}, self._clips, on_clip=keep, **settings)
        figures = {name: interval.mean for name, interval in found.means["model"].items()}
        self.measured = {f"{self.split}/{name}": value for name, value in figures.items()}
        log.write(step, **self.measured)
