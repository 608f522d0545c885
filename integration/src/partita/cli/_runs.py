"""Training runs: the arguments of the commands that train, and running a recipe with them."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import positive_float, positive_int
from ._models import MODEL

if TYPE_CHECKING:
    from partita.training import RunConfig


def add_run_arguments(parser: "argparse._ActionsContainer", *, required: bool = True) -> None:
    """Add the arguments of a run; overrides may stand anywhere among them.

    Args:
        parser: parser, or group of arguments, to extend.
        required: False for a command that also works without data and output.
    """
    parser.set_defaults(overrides=[])
    parser.add_argument(
        "--data", required=required, help="folder of audio or of latents, Parquet data set, or name on the hub"
    )
    parser.add_argument("--output", required=required, type=Path, help="folder of the run, new or empty")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: those of the recipe)")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--minutes", type=positive_float, help="wall-clock limit of training in minutes")
    limit.add_argument(
        "--cpu-minutes",
        type=positive_float,
        metavar="MINUTES",
        help="limit of the processor time of training in minutes, summed over all threads of the (main) process",
    )
    parser.add_argument("--checkpoint-every", type=positive_int, metavar="N", help="steps between checkpoints")
    parser.add_argument(
        "--checkpoint-minutes",
        type=positive_float,
        metavar="M",
        help="maximum minutes between checkpoints (default: 10)",
    )
    parser.add_argument(
        "--keep", type=positive_int, default=2, metavar="N", help="number of checkpoints to keep (default: 2)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument(
        "--init-from",
        metavar="MODEL",
        help=f"start from the weights of a trained model with the same architecture: {MODEL}",
    )


def run_recipe(options: argparse.Namespace, recipe: Callable[[], "RunConfig"]) -> Path:
    """Train the run that `recipe` returns, changed by the options, and return the folder of the model.

    Raises:
        PartitaError: as `override` and `train`.
    """
    from partita_core import override

    from partita.training import train

    config = override(recipe(), options.overrides)
    if options.steps is not None:
        config = replace(config, trainer=replace(config.trainer, steps=options.steps))
    return train(
        config,
        data=options.data,
        output=options.output,
        recipe=options.recipe,
        minutes=options.minutes,
        cpu_minutes=options.cpu_minutes,
        checkpoint_every=options.checkpoint_every,
        checkpoint_minutes=options.checkpoint_minutes or 10.0,
        keep=options.keep,
        resume=options.resume,
        init_from=options.init_from,
    )
