"""Train a representation encoder on the latents of a codec, or compute the features of a file with a trained one.

    partita represent MODEL --data DIR --output RUN [--llm LLM] [options] [path.to.key=value ...]
    partita represent RUN/model INPUT -o FEATURES.safetensors

MODEL is any codec; it does not change, and is included in RUN/model. With `--llm`, a frozen language model (a folder
made by `partita llm`, or a name on the hub) supervises with the texts of the data. INPUT is an audio file or latents of
the same codec; the features are `(frames, width)`.
"""

import argparse
from pathlib import Path

from ._runs import add_run_arguments, run_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.usage = (
        "partita represent MODEL --data DIR --output RUN [--llm LLM] [options] [path.to.key=value ...]\n"
        "       partita represent RUN/model INPUT -o FEATURES.safetensors"
    )
    parser.add_argument("model", metavar="MODEL", help="codec to train on, or trained representation model")
    parser.add_argument("input", nargs="?", type=Path, metavar="INPUT", help="audio file, or latents of the same codec")
    add_run_arguments(parser, required=False)
    parser.add_argument("-o", dest="output", type=Path, metavar="OUT", help=".safetensors file of features to write")
    parser.add_argument("--llm", help="frozen language model for supervision: folder, or name on the hub")
    parser.add_argument(
        "--recipe",
        default="representation_base",
        help="recipe: representation_base, representation_small or representation_tiny (default: representation_base)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError

    if options.output is None or (options.data is None) == (options.input is None):
        raise PartitaError("pass --data DIR and --output RUN to train, or INPUT and -o OUT.safetensors for features")
    if options.data is not None:
        _train(options)
    else:
        _represent(options)


def _train(options: argparse.Namespace) -> None:
    from partita.recipes import recipe
    from partita.training import RunFolder
    from partita.training.logs import read_log

    model = run_recipe(options, lambda: recipe(options.recipe, options.model, llm=options.llm))
    last = [line for line in read_log(RunFolder(options.output).log) if "total" in line][-1]
    for name, value in last.items():
        if name.startswith(("loss/", "metric/")):
            print(f"{name.split('/', 1)[1]}: {value:.4g}")
    print(f"model: {model}")


def _represent(options: argparse.Namespace) -> None:
    from partita_core import Latents, write_tensors

    from partita.model_loading import load_representation

    from ._files import check_other, check_suffix, encode_file

    check_suffix(options.output, ".safetensors", "features")
    check_other(options.output, options.input)
    model = load_representation(options.model)
    if options.input.suffix == ".safetensors":
        latents = Latents.load(options.input)
    else:
        latents = encode_file(model.codec, options.input)
    features = model.represent(latents)
    facts = {"frame_rate": str(features.frame_rate), "space_id": model.codec.space_id}
    write_tensors(options.output, {"features": features.values[0, : int(features.frames[0])]}, facts)
    print(f"{options.output}: {int(features.frames[0])} frames of {features.values.shape[-1]} for {options.input}")
