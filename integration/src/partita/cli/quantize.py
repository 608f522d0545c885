"""Add codes to a trained model: train a quantizer on its latents, which do not change.

OUTPUT/model is MODEL with the quantizer: it encodes to the same latents, and to codes of any number of levels.
Overrides set a field of the recipe: `model.quantizer.num_quantizers=8`.
"""

import argparse

from ._models import MODEL
from ._runs import add_run_arguments, run_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.usage = "partita quantize MODEL --data DIR --output RUN [options] [path.to.key=value ...]"
    parser.add_argument("codec", metavar="MODEL", help=f"{MODEL}, with continuous latents")
    add_run_arguments(parser)
    parser.add_argument("--recipe", default="vq_base", help="recipe: vq_base, or vq_tiny for a CPU (default: vq_base)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita.model_loading import load_codec
    from partita.recipes import recipe
    from partita.training import RunFolder
    from partita.training.logs import read_log

    model = run_recipe(options, lambda: recipe(options.recipe, options.codec))
    last = [line for line in read_log(RunFolder(options.output).log) if "total" in line][-1]
    used = [value for name, value in last.items() if name.startswith("metric/in_use_")]
    spec = load_codec(model).latent_spec
    rate = spec.bit_rate
    assert rate is not None
    print(f"codes: {len(spec.codebook_sizes)} levels, {rate:.0f} bit/s")
    if used:
        levels = ", ".join(f"{100 * share:.0f}" for share in used)
        print(f"codes used in the last steps, % per level: {levels}")
    print(f"model: {model}")
