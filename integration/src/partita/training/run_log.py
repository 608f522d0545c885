"""Reporting of a run in the main process: log, progress bar, stages and alarms."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from partita.objectives.objective import TrainState

from .alarms import Alarm, MetricAlarms
from .logs import Log, Progress


class RunLog(Log):
    """Log of a run with its progress bar, which shows the loss and the SI-SDR of the last evaluation.

    Attributes:
        stop_reason: alarm that ends the run; empty if there is none.
    """

    def __init__(
        self,
        path: Path,
        state: TrainState,
        alarms: MetricAlarms,
        *,
        split: str | None,
        shown: bool,
        trackers: Sequence[Any],
    ) -> None:
        """Open the log of a run that continues from `state`.

        Args:
            path: the file.
            state: progress of the run.
            alarms: alarms on the metrics that are written.
            split: split that is evaluated, if any.
            shown: show the progress bar.
            trackers: trackers of accelerate that also get the numbers.
        """
        super().__init__(path, step=state.step, trackers=trackers)
        self.stop_reason = ""
        self._alarms, self._split, self._shown, self._stage = alarms, split, shown, ""
        self._bar = Progress(state.total_steps, start=state.step, shown=shown)
        for line in self.kept:
            self._stage = line.get("stage", self._stage)
            self._show(line)

    def enter_stage(self, state: TrainState, stage: str) -> None:
        """Write a line if the objective enters another stage."""
        if stage != self._stage:
            self.write(state.step, stage=stage)
            if self._shown:
                tqdm.write(f"step {state.step}: {stage}")
        self._stage = stage

    def write_step(self, state: TrainState, values: Mapping[str, float], times: Mapping[str, float]) -> None:
        """Write the values and times of a step, and raise alarms."""
        values = self.finite(state.step, values)
        self._bar.update(state.step, state.total_steps, {"loss": values["total"]})
        self.write(state.step, **{name: round(value, 4) for name, value in times.items()}, **values)
        self._raise(state, self._alarms.check(state.step, values))

    def write_validation(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation, and raise alarms."""
        line = {f"{self._split}/{name}": value for name, value in metrics.items()}
        self.write(state.step, **line)
        self._raise(state, self._alarms.check_validation(state.step, state.progress, metrics))
        self._show(line)

    def close(self) -> None:
        """Close the progress bar."""
        self._bar.close()

    def _show(self, line: Mapping[str, Any]) -> None:
        ratio = line.get(f"{self._split}/si_sdr")
        self._bar.show({"SI-SDR": ratio} if isinstance(ratio, float) else {})

    def _raise(self, state: TrainState, alarms: Iterable[Alarm]) -> None:
        for alarm in alarms:
            text = f"step {state.step}: {alarm.text}"
            if alarm.stops:
                self.stop_reason = text
                self.write(state.step, warning=text)
            else:
                self.warn(state.step, alarm.kind, text)
