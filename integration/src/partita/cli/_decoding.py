"""Decoding latents to a .wav file: the arguments and steps shared by several commands."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import add_output

if TYPE_CHECKING:
    from partita_core import Codec, Latents, Sampler


def add_decoding_arguments(parser: argparse.ArgumentParser, *, layout: bool = True) -> None:
    """Add the arguments that `Decoding.from_options` reads; `--layout` is optional."""
    add_output(parser, ".wav file to write")
    if layout:
        parser.add_argument(
            "--layout", help="channel layout of the output: mono, stereo or mid_side (default: as encoded)"
        )
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="noise seed of a denoising decoder (default: 0)")


def add_sampler(parser: argparse.ArgumentParser) -> None:
    """Add the argument `--sampler`."""
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="sampler of a denoising decoder, such as two_step or two_step:refine=false,sigma_context=0.5 "
        "(default: the decoder's own)",
    )


def named_sampler(text: str | None) -> "Sampler | None":
    """The sampler of a name, optionally with settings after a colon; None for None.

    Raises:
        PartitaError: the sampler or a setting does not exist, or a value does not fit.
    """
    from partita_core import parse_config

    return None if text is None else parse_config(text, "sampler").build()


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding to a file.

    Attributes:
        output: .wav file to write.
        layout: channel layout of the output; None for the encoded one.
        sampler: sampler of a denoising decoder; None for its default.
        seed: noise seed of a denoising decoder.
    """

    output: Path
    layout: str | None = None
    sampler: "Sampler | None" = None
    seed: int = 0

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "Decoding":
        """Check the options that need no model, so that errors show before one is loaded.

        Raises:
            PartitaError: the output cannot be written, or there is no such sampler.
        """
        from ._files import check_suffix

        check_suffix(options.output, ".wav", "audio")
        return cls(options.output, getattr(options, "layout", None), named_sampler(options.sampler), options.seed)

    def write(self, codec: "Codec", latents: "Latents") -> None:
        """Decode latents of one item tile by tile, and print the length of the file.

        Raises:
            PartitaError: the latents belong to another space, or the layout is not available.
        """
        from partita.data import decode_pieces, write_audio

        rate = codec.audio_spec.sample_rate
        pieces = decode_pieces(codec, latents, layout=self.layout, sampler=self.sampler, seed=self.seed)
        samples = write_audio(self.output, pieces, rate)
        print(f"{self.output}: {samples} samples at {rate} Hz")
