"""Train a recipe on a folder of audio, or any other data set.

Overrides set a field of the recipe: `model.bottleneck=tanh`, `trainer.optimizers.generator.lr=1e-4`. The resolved
config is written to OUTPUT/config.json, and the trained model to OUTPUT/model.
"""

import argparse

from ._runs import add_run_arguments, run_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.usage = "partita train RECIPE --data DIR --output RUN [options] [path.to.key=value ...]"
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, or the config.json of a run")
    add_run_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita.recipes import load_run

    config, options.recipe = load_run(options.recipe)
    model = run_recipe(options, lambda: config)
    print(f"model: {model}")
