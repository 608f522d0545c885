"""What the commands that train share: their options, and the run that these ask for."""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partita.training import RunConfig


def add_run_arguments(parser: "argparse._ActionsContainer", *, required: bool = True) -> None:
    """Declares the options of a run; overrides may stand anywhere among them.

    Data and output are not `required` of a command that also does something else without them.
    """
    parser.set_defaults(overrides=[])
    parser.add_argument(
        "--data", required=required, help="folder of audio or of latents, Parquet set, or name on the hub"
    )
    parser.add_argument("--output", required=required, type=Path, help="folder of the run, new or empty")
    parser.add_argument("--steps", type=int, help="optimizer steps; the recipe's if not given")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints")
    parser.add_argument(
        "--checkpoint-minutes", type=float, metavar="M", help="time between checkpoints at most (default 10)"
    )
    parser.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints to keep (default 2)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--init-from", metavar="MODEL", help="start from the weights of a trained model of the kind")


def run_recipe(options: argparse.Namespace, recipe: Callable[[], "RunConfig"]) -> Path:
    """Trains the run that `recipe` returns, as the options change it, and returns the model's folder.

    Raises:
        PartitaError: a limit is not positive, or what `train` refuses.
    """
    from partita_core import PartitaError, override

    from partita.training import train

    for name in ("steps", "minutes", "checkpoint_every", "checkpoint_minutes", "keep"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise PartitaError(f"--{name.replace('_', '-')} is {value}; it must be positive")
    config = override(recipe(), options.overrides)
    if options.steps is not None:
        config = replace(config, trainer=replace(config.trainer, steps=options.steps))
    return train(
        config,
        data=options.data,
        output=options.output,
        recipe=options.recipe,
        minutes=options.minutes,
        checkpoint_every=options.checkpoint_every,
        checkpoint_minutes=options.checkpoint_minutes or 10.0,
        keep=options.keep,
        resume=options.resume,
        init_from=options.init_from,
    )
