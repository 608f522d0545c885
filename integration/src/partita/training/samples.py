"""Audio samples and spectrograms of a run, written to its folder and to trackers."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import Any

from partita_core import PartitaError, atomic_write
from torch import Tensor

from partita.data import write_audio
from partita.report.media import picture, spectrogram, spectrogram_png


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        PartitaError: one is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise PartitaError(
                f'the tracker {name} is not installed; pip install "partita[{name}]", or set trainer.trackers=[]'
            )


class Samples:
    """Writer of decoded clips: `step_.../NAME.wav` with a spectrogram as `.png`, and the originals in `original/`.

    TensorBoard is given the mean of the channels, because it plays mono only.
    """

    def __init__(self, folder: Path, trackers: Sequence[Any]) -> None:
        """Write to `folder` and to trackers of accelerate."""
        self._folder, self._trackers = folder, trackers
        self._stems: dict[str, str] = {}  # file names without suffix, by clip

    def write(self, step: int, name: str, estimate: Tensor, original: Tensor, sample_rate: int) -> None:
        """Write a decoded clip, and at its first call for a name the original; both `(channels, samples)`."""
        levels = spectrogram(original, sample_rate)
        top = float(levels.max())  # one color scale for a clip and all its estimates
        stem = self._stems.get(name)
        if stem is None:
            stem = self._stems[name] = self._free_stem(name)
            self._write_files("original", stem, step, original, sample_rate, spectrogram_png(levels, top))
        png = spectrogram_png(spectrogram(estimate, sample_rate), top)
        self._write_files(f"step_{step:08d}", stem, step, estimate, sample_rate, png)

    def _free_stem(self, name: str) -> str:
        """Name of a clip without suffix and folders, made unique by its folders or a number."""
        path, taken = Path(name), set(self._stems.values())
        full = "_".join(path.with_suffix("").parts)
        stems = chain([path.stem, full], (f"{full}_{number}" for number in count(2)))
        return next(stem for stem in stems if stem not in taken)

    def _write_files(self, folder: str, stem: str, step: int, audio: Tensor, sample_rate: int, png: bytes) -> None:
        path = self._folder / folder
        path.mkdir(parents=True, exist_ok=True)
        write_audio(path / f"{stem}.wav", audio, sample_rate)
        with atomic_write(path / f"{stem}.png", sync=False) as aside:
            aside.write_bytes(png)
        tag = "original" if folder == "original" else "sample"
        for tracker in self._trackers:
            writer = tracker.tracker
            mono = audio.detach().cpu().float().mean(0, keepdim=True).clamp(-1, 1)
            writer.add_audio(f"{tag}/{stem}", mono, step, sample_rate)
            writer.add_image(f"{tag}/{stem}", picture(png), step, dataformats="HWC")
