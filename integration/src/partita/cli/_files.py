"""What the commands on files share: reading block by block, and saying what is done."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from partita_core import PartitaError

if TYPE_CHECKING:
    from partita_core import Codec, Latents, Sampler


def say(text: str) -> None:
    """A line for the person at the terminal, beside what the command prints."""
    print(text, file=sys.stderr, flush=True)


def check_suffix(path: Path, suffix: str, what: str) -> None:
    """Refuses an output that does not end as it must, or whose folder is not there.

    Raises:
        PartitaError: so it is.
    """
    if path.suffix.lower() != suffix:
        raise PartitaError(f"{what} is written as {suffix}, not as {path.name!r}; name the output accordingly")
    if not path.parent.is_dir():
        raise PartitaError(f"cannot write {path}: there is no folder {path.parent}")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuses an output that could not be written when all is done; folders on the way to it would be made.

    Raises:
        PartitaError: so it is.
    """
    if path.is_dir():
        raise PartitaError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():  # a device or a FIFO is written straight into
        if not os.access(path, os.W_OK):
            raise PartitaError(f"cannot write {path}: Permission denied")
        return
    target = Path(os.path.realpath(path))  # what a link leads to
    there = next(folder for folder in target.parents if os.path.lexists(folder))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None


def check_other(output: Path, source: Path) -> None:
    """Refuse to write over what is read.

    Raises:
        PartitaError: so it would be.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise PartitaError(f"{output} is the input; name another file to write")


def require_codes(codec: "Codec", name: str) -> None:
    """Refuses a codec of continuous latents.

    Raises:
        PartitaError: it is one.
    """
    if not codec.latent_spec.codebook_sizes:
        raise PartitaError(f"{name} makes continuous latents, and tokens need codes; quantize it first")


def decode_to_file(
    codec: "Codec",
    latents: "Latents",
    path: Path,
    *,
    layout: str | None = None,
    sampler: "Sampler | None",
    seed: int,
) -> None:
    """Decodes one item to a .wav file, a tile at a time, and prints what was written.

    Raises:
        PartitaError: the latents are of another space, or the layout cannot be had of them.
    """
    from partita.data import decode_pieces, write_audio

    rate = codec.audio_spec.sample_rate
    samples = write_audio(path, decode_pieces(codec, latents, layout=layout, sampler=sampler, seed=seed), rate)
    print(f"{path}: {samples} samples at {rate} Hz")


def encode_file(
    codec: "Codec", path: Path, *, layout: str | None, num_quantizers: int | None, progress: bool
) -> "Latents":
    """Encodes a file block by block, resampled to the model's rate if need be, which is said.

    Raises:
        PartitaError: the file cannot be read, or the model does not take its layout.
    """
    from tqdm import tqdm

    from partita.data import audio_info, encode_source

    rate, info = codec.audio_spec.sample_rate, audio_info(path)
    if info.sample_rate != rate:
        say(f"{path}: resampled from {info.sample_rate} to {rate} Hz, the model's rate")
    total, done = round(info.duration), 0
    with tqdm(total=total, unit="s", disable=not progress or total < 30, desc=path.name) as bar:

        def show(samples: int) -> None:
            nonlocal done
            done += samples
            bar.update(done // rate - bar.n)

        return encode_source(codec, path, layout=layout, num_quantizers=num_quantizers, on_samples=show)
