"""Folders of files that another codec has decoded, as systems of an evaluation."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from partita_core import PartitaError
from torch import Tensor

from partita.data.audio.files import SUFFIXES, audio_info, read_audio
from partita.data.audio.resampling import resample
from partita.data.sources.listing import list_folder

from .alignment import align

MAX_DELAY = 0.05
"""Largest delay in seconds that is compensated."""


class DecodedFolder:
    """Files that another codec has decoded, each with the name of the clip that it was decoded from.

    Names are relative to the folder; suffixes may differ. A file is resampled to the rate of the clip, averaged to mono
    or repeated for stereo as the clip requires, shifted by its delay, and truncated or padded with zeros to the length
    of the clip.

    Args:
        path: the folder.
        align: compensate the delay of each file: that of highest correlation with the clip, at most 50 ms either way.

    Raises:
        PartitaError: the folder holds no audio, or two files differ only in their suffix.
    """

    def __init__(self, path: str | Path, *, align: bool = True) -> None:
        self.path, self.align = Path(path), align
        by_stem: dict[str, list[str]] = defaultdict(list)
        for name in list_folder(self.path).audio:
            by_stem[_stem(name)].append(name)
        if not by_stem:
            raise PartitaError(f"{path}: contains no audio files")
        for names in by_stem.values():
            if len(names) > 1:
                raise PartitaError(f"{path}: {' and '.join(names[:2])} differ only in their suffix; keep one of them")
        self._files = {stem: self.path / names[0] for stem, names in by_stem.items()}

    @property
    def sample_rate(self) -> int:
        """Sample rate of the first file in Hz."""
        return audio_info(str(next(iter(self._files.values())))).sample_rate

    def check(self, names: Iterable[str]) -> None:
        """Check that there is a file for every clip.

        Raises:
            PartitaError: files are missing; their number and the first clip are named.
        """
        names = list(names)
        missing = [name for name in names if _stem(name) not in self._files]
        if missing:
            raise PartitaError(
                f"{self.path}: has no file for {len(missing)} of {len(names)} clips, first {missing[0]}; files must "
                "have the names of the clips, relative to the folder, with any suffix"
            )

    def __call__(self, name: str, audio: Tensor, sample_rate: int) -> Tensor:
        """The file that was decoded from a clip.

        Args:
            name: name of the clip.
            audio: the clip, `(channels, samples)`.
            sample_rate: its sample rate in Hz.

        Returns:
            Audio in the shape of the clip.

        Raises:
            PartitaError: the file is missing or cannot be read.
        """
        self.check([name])
        decoded, rate = read_audio(str(self._files[_stem(name)]))
        search = round(MAX_DELAY * sample_rate) if self.align else 0
        return align(resample(decoded, rate, sample_rate), audio, search=search)


def _stem(name: str) -> str:
    """Name without the suffix of an audio file."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()
