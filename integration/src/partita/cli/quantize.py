"""Give a trained model codes: train a quantizer on its latents, which stay as they are.

OUTPUT/model is MODEL with the quantizer beside its latents: it encodes to the same latents, and to codes of as many
levels as `--num-quantizers` asks for. Overrides name a field of the recipe: `model.quantizer.num_quantizers=8`.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.usage = "partita quantize MODEL --data DIR --output RUN [options] [path.to.key=value ...]"
    parser.add_argument("codec", metavar="MODEL", help="model folder, or name on the hub, with continuous latents")
    parser.set_defaults(overrides=[])
    parser.add_argument("--data", required=True, help="folder of audio, Parquet set, or name on the hub")
    parser.add_argument("--output", required=True, type=Path, help="folder of the run")
    parser.add_argument("--recipe", default="vq_base", help="vq_base (default), or vq_tiny for a CPU")
    parser.add_argument("--steps", type=int, help="optimizer steps; the recipe's if not given")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints")
    parser.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints to keep (default 2)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError, override

    from partita.evaluation import bit_rate
    from partita.models import load_codec
    from partita.recipes import quantization_recipe
    from partita.training import RunFolder, train
    from partita.training.logs import read_log

    for name in ("steps", "minutes", "checkpoint_every", "keep"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise PartitaError(f"--{name.replace('_', '-')} is {value}; it must be positive")
    config = override(quantization_recipe(options.recipe, options.codec), options.overrides)
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
    )
    last = [line for line in read_log(RunFolder(options.output).log) if "total" in line][-1]
    used = [value for name, value in last.items() if name.startswith("metric/in_use_")]
    spec = load_codec(model).latent_spec
    rate = bit_rate(spec)
    assert rate is not None
    print(f"codes: {len(spec.codebook_sizes)} levels, {rate:.0f} bit/s")
    if used:
        levels = ", ".join(f"{100 * share:.0f}" for share in used)
        print(f"in use in the last steps, % of each level: {levels}")
    print(f"model: {model}")
