"""Data sets read by `datasets`: Parquet, `save_to_disk` folders, WebDataset archives, and hub names."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError, parse_json, shorten, suggest

from partita.data.messages import with_cause

from .splits import divide_tables
from .webdataset import open_archives

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_DISK, _DISK_SPLITS = "state.json", "dataset_dict.json"


class Tables:
    """A data set of rows with a column of audio.

    Args:
        path: the folder, the file, or the hub name.
        kind: storage format, "parquet", "webdataset", "disk", or "" for any other.
        splits: names of its splits as stored.
        files: files of each split.
    """

    def __init__(self, path: Path | str, kind: str, splits: Sequence[str], files: dict[str, list[str]]) -> None:
        self.path, self.splits, self._kind, self._files = path, tuple(splits), kind, files

    @classmethod
    def named(cls, path: Path | str) -> "Tables":
        """The data set of a hub name, or of a folder whose README lists its splits.

        Raises:
            PartitaError: it cannot be found or read.
        """
        from datasets import get_dataset_split_names
        from datasets.exceptions import DatasetsError

        try:
            return cls(path, "", list(get_dataset_split_names(str(path))), {})
        except (ValueError, OSError, DatasetsError) as error:
            raise PartitaError(f"{path}: {with_cause(error)}") from None

    @classmethod
    def of_files(cls, path: Path, kind: str, files: list[str]) -> "Tables":
        """The data set of the Parquet files ("parquet") or archives ("webdataset") in a folder, or of one such file.

        Raises:
            PartitaError: the splits are ambiguous.
        """
        if path.is_file():
            return cls(path, kind, ["train"], {"train": [str(path)]})
        readme = path / "README.md"
        if readme.is_file() and "data_files:" in readme.read_text(encoding="utf-8", errors="replace"):
            return cls.named(path)
        divided = divide_tables(path, files).splits or {"train": files}
        found = {split: [str(path / name) for name in names] for split, names in divided.items()}
        return cls(path, kind, list(found), found)

    @classmethod
    def saved(cls, path: Path) -> "Tables | None":
        """The data set that `save_to_disk` wrote to a folder; None if there is none."""
        if (path / _DISK_SPLITS).is_file():
            try:
                names = parse_json((path / _DISK_SPLITS).read_text(encoding="utf-8"))["splits"]
                return cls(path, "disk", [str(name) for name in names], {})
            except (OSError, KeyError, TypeError, ValueError) as error:
                raise PartitaError(f"{path / _DISK_SPLITS}: cannot be read ({error})") from None
        return cls(path, "disk", ["train"], {}) if (path / _DISK).is_file() else None

    def missing(self, split: str) -> str:
        """Error message for a split that does not exist."""
        return f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"

    def open(self, split: str, *, streaming: bool) -> "Dataset | IterableDataset":
        """The rows of a split in `splits`, with an undecoded column `audio`.

        Raises:
            PartitaError: it cannot be read, or has no audio.
        """
        from datasets.exceptions import DatasetsError

        try:
            dataset = self._load(split, streaming)
        except (ValueError, OSError, DatasetsError) as error:
            raise PartitaError(f"{self.path}: {with_cause(error)}") from None
        return audio_rows(dataset, self.path, generated=streaming and self._kind == "webdataset")

    def _load(self, split: str, streaming: bool) -> Any:
        from datasets import load_dataset, load_from_disk

        if self._kind == "disk":
            path = Path(self.path) / split if (Path(self.path) / _DISK_SPLITS).is_file() else self.path
            found: Any = load_from_disk(str(path))
            return found.to_iterable_dataset(num_shards=max(1, len(found.cache_files))) if streaming else found
        if self._kind == "webdataset":
            return open_archives(self._files[split], streaming=streaming)
        if self._kind:
            return load_dataset("parquet", data_files={split: self._files[split]}, split=split, streaming=streaming)
        return load_dataset(str(self.path), split=split, streaming=streaming)


def audio_rows(dataset: Any, name: Path | str, *, generated: bool = False) -> Any:
    """A data set with its audio as undecoded path and bytes, and, unless it is a stream, with a column `file_name`.

    Args:
        dataset: a `datasets.Dataset` or `IterableDataset` with a column `audio`.
        name: name of the data set in messages.
        generated: True of rows that a Python function yields undecoded already; a cast would need torchcodec.

    Raises:
        PartitaError: the column is missing, or holds decoded arrays or anything else.
    """
    from datasets import Audio, IterableDataset

    _check_audio(dataset, name)
    if not generated:
        dataset = dataset.cast_column("audio", Audio(decode=False))
    if not isinstance(dataset, IterableDataset) and "file_name" not in (dataset.column_names or ()):
        dataset = dataset.add_column("file_name", _names(dataset))
    return dataset


def _check_audio(dataset: Any, path: Path | str) -> None:
    """Raise an error if the column `audio` is missing, or does not hold path and bytes."""
    import pyarrow as pa
    from datasets import Audio

    columns = dataset.column_names or []
    if "audio" not in columns:
        raise PartitaError(f"{path}: there is no column audio; {suggest('audio', columns)}")
    kind = dataset.features.arrow_schema.field("audio").type
    if pa.types.is_struct(kind) and kind.get_field_index("array") >= 0:
        raise PartitaError(
            f"{path}: the column audio holds decoded arrays, which are not supported; store paths of files, or encoded "
            'files as {"path": None, "bytes": ...}, such as FLAC by soundfile.write'
        )
    try:
        Audio(decode=False).cast_storage(pa.array([], kind))
    except (pa.ArrowException, TypeError):
        raise PartitaError(f"{path}: the column audio is {shorten(str(kind))}, not path and bytes") from None


def _names(dataset: Any) -> list[str]:
    """Names of the rows: the paths of their audio, or their numbers; the audio itself is not read."""
    import pyarrow.compute as pc

    paths = pc.struct_field(dataset.data.column("audio"), "path").to_pylist()  # pyright: ignore
    return [path or f"row {number}" for number, path in enumerate(paths)]
