"""Callbacks of a run: user functions that are called after steps, evaluations and checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from partita.objectives.objective import TrainState


class Callback:
    """Base class of callbacks; override the methods that you need.

    Methods are called in the main process only, and their exceptions end the run: a `PartitaError` as one line on the
    command line, any other as it is. Do not change the `state`.
    """

    def on_step(self, state: TrainState, values: Mapping[str, Tensor]) -> None:
        """Called after every step.

        Args:
            state: progress of the run; `state.step` is the number of steps taken.
            values: scalar tensors on the device by their names in the log (`total`, `loss/...`, `metric/...`,
                `gradient/...`, `lr/...`), of this process alone; reading one waits for the device. Empty for a step
                that was skipped because it was not finite.
        """

    def on_validation(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Called after every evaluation on the validation split.

        Args:
            state: progress of the run.
            metrics: means by the names of metrics, or of losses for a model that makes no audio.
        """

    def on_checkpoint(self, path: Path) -> None:
        """Called after a checkpoint has been written to the folder `path`."""

    def on_end(self, model_folder: Path) -> None:
        """Called after the trained model has been saved to `model_folder`; not if the run was interrupted."""
