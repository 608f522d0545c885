"""Train a recipe on a folder of audio, or on what else `datasets` can read.

Overrides name a field of the recipe: `model.bottleneck=tanh`, `trainer.optimizers.generator.lr=1e-4`. The resolved
config is written to OUTPUT/config.json, the trained model to OUTPUT/model.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "partita train RECIPE --data DIR --output RUN [options] [path.to.key=value ...]"
    parser.add_argument("recipe", metavar="RECIPE", help="its name, as genae_tiny")
    parser.set_defaults(overrides=[])
    parser.add_argument("--data", required=True, help="folder of audio, Parquet set, or name on the hub")
    parser.add_argument("--output", required=True, type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int, help="optimizer steps; the recipe's if not given")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints")
    parser.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints to keep (default 2)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--init-from", metavar="MODEL", help="start from the weights of a model folder")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError, override

    from partita.recipes import recipe
    from partita.training import train

    for name in ("steps", "minutes", "checkpoint_every", "keep"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise PartitaError(f"--{name.replace('_', '-')} is {value}; it must be positive")
    config = override(recipe(options.recipe), options.overrides)
    if options.steps is not None:
        config = override(config, [f"trainer.steps={options.steps}"])
    model = train(
        config,
        data=options.data,
        output=options.output,
        recipe=options.recipe,
        minutes=options.minutes,
        checkpoint_every=options.checkpoint_every,
        keep=options.keep,
        resume=options.resume,
        init_from=options.init_from,
    )
    print(f"model: {model}")
