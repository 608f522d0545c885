"""Checks of output paths, encoding a file with progress, and status lines, shared by several commands."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from partita_core import PartitaError

if TYPE_CHECKING:
    from partita_core import Codec, Latents


def print_status(text: str) -> None:
    """Print a line to stderr, separate from the results of the command."""
    print(text, file=sys.stderr, flush=True)


def check_suffix(path: Path, suffix: str, what: str) -> None:
    """Check that an output has the required suffix, and can be written in an existing folder.

    Args:
        path: output path.
        suffix: the required suffix.
        what: content of the file, for the error message.

    Raises:
        PartitaError: it does not, or cannot.
    """
    if path.suffix.lower() != suffix:
        raise PartitaError(f"cannot write {what} to {path.name!r}; the suffix must be {suffix}")
    if not path.parent.is_dir():
        raise PartitaError(f"cannot write {path}: there is no folder {path.parent}")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Check that an output can be written; missing folders above it would be created.

    Raises:
        PartitaError: it cannot.
    """
    if path.is_dir():
        raise PartitaError(f"{path} is a folder; choose a file in it")
    if path.exists() and not path.is_file():  # a device or a FIFO is written directly
        if not os.access(path, os.W_OK):
            raise PartitaError(f"cannot write {path}: Permission denied")
        return
    target = Path(os.path.realpath(path))  # follows links
    existing = next(folder for folder in target.parents if os.path.lexists(folder))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None


def check_other(output: Path, source: Path) -> None:
    """Check that an output is not the same file as the input.

    Raises:
        PartitaError: it is.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise PartitaError(f"{output} is the input; choose another file to write")


def require_codes(codec: "Codec", name: str) -> None:
    """Check that a codec has codes.

    Raises:
        PartitaError: its latents are continuous.
    """
    if not codec.latent_spec.codebook_sizes:
        raise PartitaError(f"{name} has continuous latents, but tokens need codes; train a quantizer on it first")


def encode_file(
    codec: "Codec", path: Path, *, layout: str | None = None, num_quantizers: int | None = None, progress: bool = True
) -> "Latents":
    """Encode a file block by block, resampled to the model's sample rate if needed, which is reported.

    Args:
        codec: the model.
        path: audio file.
        layout: channel layout of the audio; None for that of its channels.
        num_quantizers: levels of codes; None for all.
        progress: show a progress bar for long files.

    Raises:
        PartitaError: the file cannot be read, or the model does not take its layout.
    """
    from tqdm import tqdm

    from partita.data import audio_info, encode_source

    rate, info = codec.audio_spec.sample_rate, audio_info(path)
    if info.sample_rate != rate:
        print_status(f"{path}: resampled from {info.sample_rate} to {rate} Hz, the model's sample rate")
    total, done = round(info.duration), 0
    with tqdm(total=total, unit="s", disable=not progress or total < 30, desc=path.name) as bar:

        def show(samples: int) -> None:
            nonlocal done
            done += samples
            bar.update(done // rate - bar.n)

        return encode_source(codec, path, layout=layout, num_quantizers=num_quantizers, on_samples=show)
