"""Encode an audio file to a .safetensors file of latents, or a data set to a corpus of latents.

A folder of audio (or of Parquet files with audio) becomes a folder that `datasets` loads and training accepts as
--data: Parquet shards of latents, and of codes if the model has them, with the columns of the source. If it is
interrupted, the same command continues; under `torchrun --nproc_per_node N -m partita encode ...`, N processes share
the work.
"""

import argparse
from pathlib import Path
from typing import Any

from ._arguments import add_num_quantizers, add_output, add_where
from ._models import add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model(parser)
    parser.add_argument("input", type=Path, metavar="INPUT", help="audio file, or folder of a data set")
    add_output(parser, ".safetensors file, or folder, to write")
    parser.add_argument(
        "--layout", help="channel layout of the input: mono, stereo or mid_side (default: by its channels)"
    )
    add_num_quantizers(parser)
    corpus = parser.add_argument_group("for a data set")
    add_where(corpus)
    corpus.add_argument(
        "--dtype", choices=("float32", "float16"), help="data type of stored latents (default: float32)"
    )
    corpus.add_argument("--only", choices=("latents", "codes"), help="store only one of these (default: both)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError

    from partita.data.audio.files import SUFFIXES

    from ._files import check_suffix, encode_file

    settings = {"layout": options.layout, "num_quantizers": options.num_quantizers}
    if not options.input.is_dir():
        for name in ("where", "dtype", "only"):
            if getattr(options, name):
                raise PartitaError(f"--{name} is for a data set, but {options.input} is not a folder; leave it out")
        check_suffix(options.output, ".safetensors", "latents")
        codec = open_model(options)
        latents = encode_file(codec, options.input, **settings)
        latents.save(options.output)
        print(f"{options.output}: {int(latents.frames[0])} frames of {latents.spec.dim} for {options.input}")
        return
    if options.output.is_file() or options.output.suffix.lower() in (".safetensors", ".parquet", *SUFFIXES):
        raise PartitaError(f"{options.input} is a folder, so the output must be a folder, not {str(options.output)!r}")
    _encode_folder(options, **settings)


def _encode_folder(options: argparse.Namespace, **settings: Any) -> None:
    from accelerate import PartialState

    from partita.data import encode_corpus

    from ._files import print_status

    codec = open_model(options)
    try:
        settings |= {"dtype": options.dtype or "float32", "only": options.only, "where": options.where}
        done = encode_corpus(codec, options.input, options.output, **settings)
        if PartialState().is_main_process:
            for reason in done.broken:
                print_status(f"left out: {reason}")
            hours = done.seconds / 3600
            print(f"{options.output}: {done.encoded} of {done.files} files encoded, {hours:.2f} hours of audio")
    finally:
        PartialState().destroy_process_group()
