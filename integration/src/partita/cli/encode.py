"""Encode a file to a .safetensors file of latents, or a folder of files to a folder of them."""

import argparse
from pathlib import Path

from ._models import add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument("input", type=Path, metavar="INPUT", help="audio file, or folder of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file or folder to write")
    parser.add_argument("--layout", help="of the input: mono, stereo or mid_side; by its channels if not given")
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help="levels of codes; all if not given")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError

    from ._files import check_suffix, encode_file, say

    settings = {"layout": options.layout, "num_quantizers": options.num_quantizers}
    if not options.input.is_dir():
        check_suffix(options.output, ".safetensors", "a file's latents")
        codec = open_model(options)
        latents = encode_file(codec, options.input, **settings, progress=True)
        latents.save(options.output)
        print(f"{options.output}: {int(latents.frames[0])} frames of {latents.spec.dim} for {options.input}")
        return

    from tqdm import tqdm

    from partita.data import audio_files

    if options.output.suffix or options.output.is_file():
        raise PartitaError(f"{options.input} is a folder, so the output must be one too, not {str(options.output)!r}")
    files = audio_files(options.input)
    if not files:
        raise PartitaError(f"{options.input}: no audio files in it")
    codec = open_model(options)
    broken = []
    for name in tqdm(files, unit="file"):
        target = (options.output / name).with_suffix(".safetensors")
        try:
            latents = encode_file(codec, options.input / name, **settings, progress=False)
        except PartitaError as error:
            broken.append(str(error))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        latents.save(target)
    for reason in broken:
        say(f"left out: {reason}")
    if len(broken) == len(files):
        raise PartitaError(f"none of {len(files)} files could be encoded; the first: {broken[0]}")
    print(f"{options.output}: {len(files) - len(broken)} of {len(files)} files encoded")
