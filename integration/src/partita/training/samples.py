"""What a run sounds and looks like: files in its folder, and the same in every tracker that was asked for."""

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
    """Refuses trackers whose package is not there.

    Raises:
        PartitaError: one is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise PartitaError(f'the tracker {name} is not installed; pip install "partita[{name}]", or leave it out')


class Samples:
    """Clips at every evaluation: `step_.../NAME.wav` with its spectrogram as `.png`, and the originals beside them.

    TensorBoard gets the mean of the channels, which is all that it plays.
    """

    def __init__(self, folder: Path, trackers: Sequence[Any]) -> None:
        """Keeps them in `folder` and in accelerate's trackers."""
        self._folder, self._trackers = folder, trackers
        self._stems: dict[str, str] = {}  # of the files of each clip that came

    def keep(self, step: int, name: str, estimate: Tensor, original: Tensor, sample_rate: int) -> None:
        """Keeps what became of a clip, and at the first time the clip itself; both `(channels, samples)`."""
        levels = spectrogram(original, sample_rate)
        top = float(levels.max())  # one scale for all that becomes of a clip
        stem = self._stems.get(name)
        if stem is None:
            stem = self._stems[name] = self._free_stem(name)
            self._write("original", stem, step, original, sample_rate, spectrogram_png(levels, top))
        png = spectrogram_png(spectrogram(estimate, sample_rate), top)
        self._write(f"step_{step:08d}", stem, step, estimate, sample_rate, png)

    def _free_stem(self, name: str) -> str:
        """The clip's name without suffix and folders, or with them, or a number, where another is called so already."""
        path, taken = Path(name), set(self._stems.values())
        whole = "_".join(path.with_suffix("").parts)
        stems = chain([path.stem, whole], (f"{whole}_{number}" for number in count(2)))
        return next(stem for stem in stems if stem not in taken)

    def _write(self, folder: str, stem: str, step: int, audio: Tensor, sample_rate: int, png: bytes) -> None:
        place = self._folder / folder
        place.mkdir(parents=True, exist_ok=True)
        write_audio(place / f"{stem}.wav", audio, sample_rate)
        with atomic_write(place / f"{stem}.png", sync=False) as aside:
            aside.write_bytes(png)
        tag = "original" if folder == "original" else "sample"
        for tracker in self._trackers:
            writer = tracker.tracker
            mono = audio.detach().cpu().float().mean(0, keepdim=True).clamp(-1, 1)
            writer.add_audio(f"{tag}/{stem}", mono, step, sample_rate)
            writer.add_image(f"{tag}/{stem}", picture(png), step, dataformats="HWC")
