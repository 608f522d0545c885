"""Give a trained model codes: train a quantizer on its latents, which stay as they are.

OUTPUT/model is MODEL with the quantizer beside its latents: it encodes to the same latents, and to codes of as many
levels as `--num-quantizers` asks for. Overrides name a field of the recipe: `model.quantizer.num_quantizers=8`.
"""

import argparse

from ._runs import add_run_arguments, run_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "partita quantize MODEL --data DIR --output RUN [options] [path.to.key=value ...]"
    parser.add_argument("codec", metavar="MODEL", help="model folder, or name on the hub, with continuous latents")
    add_run_arguments(parser)
    parser.add_argument("--recipe", default="vq_base", help="vq_base (default), or vq_tiny for a CPU")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
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
        print(f"in use in the last steps, % of each level: {levels}")
    print(f"model: {model}")
