"""Encode a file to a .safetensors file of latents, or a data set to a corpus of them.

A folder of audio (or of Parquet files with audio) becomes a folder that `datasets` loads: Parquet shards of latents,
and of codes where the model makes them, with the columns of the source. Stopped at any time, the same command goes on;
under `torchrun --nproc_per_node N -m partita encode ...` N processes share the work. Training takes it as --data.
"""

import argparse
from pathlib import Path
from typing import Any

from ._models import add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument("input", type=Path, metavar="INPUT", help="audio file, or folder of a data set")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file or folder to write")
    parser.add_argument("--layout", help="of the input: mono, stereo or mid_side; by its channels if not given")
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help="levels of codes; all if not given")
    kinds = ("float32", "float16")
    parser.add_argument("--dtype", choices=kinds, help="that a corpus keeps latents in (default float32)")
    parser.add_argument("--only", choices=("latents", "codes"), help="what a corpus keeps; both if not given")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError

    from partita.data.audio.files import SUFFIXES

    from ._files import check_suffix, encode_file

    settings = {"layout": options.layout, "num_quantizers": options.num_quantizers}
    if not options.input.is_dir():
        if options.dtype or options.only:
            raise PartitaError("--dtype and --only are of a corpus, and the input is no folder; leave them out")
        check_suffix(options.output, ".safetensors", "a file's latents")
        codec = open_model(options)
        latents = encode_file(codec, options.input, **settings, progress=True)
        latents.save(options.output)
        print(f"{options.output}: {int(latents.frames[0])} frames of {latents.spec.dim} for {options.input}")
        return
    if options.output.is_file() or options.output.suffix.lower() in (".safetensors", ".parquet", *SUFFIXES):
        raise PartitaError(f"{options.input} is a folder, so the output must be one too, not {str(options.output)!r}")
    _encode_folder(options, **settings)


def _encode_folder(options: argparse.Namespace, **settings: Any) -> None:
    from accelerate import PartialState

    from partita.data import encode_corpus

    from ._files import say

    codec = open_model(options)
    try:
        settings |= {"dtype": options.dtype or "float32", "only": options.only}
        done = encode_corpus(codec, options.input, options.output, **settings)
        if PartialState().is_main_process:
            for reason in done.broken:
                say(f"left out: {reason}")
            hours = done.seconds / 3600
            print(f"{options.output}: {done.encoded} of {done.files} files encoded, {hours:.2f} hours of audio")
    finally:
        PartialState().destroy_process_group()
