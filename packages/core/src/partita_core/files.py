"""Safe files: safetensors and JSON only, written aside and renamed, refused in one line when they are not right."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import PartitaError


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, a file or a folder, which then takes its place; or leaves no trace.

    Raises:
        PartitaError: the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        aside = holder / path.name
        yield aside
        replaced = holder / f"{path.name}.replaced"
        if aside.is_dir() and path.is_dir():
            path.rename(replaced)  # a folder cannot be renamed onto a full one
        try:
            os.replace(aside, path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
    except OSError as error:
        raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        PartitaError: there is none, or it is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PartitaError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise PartitaError(f"{path} is not JSON") from None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with written_aside(path) as aside:
        save_file(plain, str(aside), metadata=metadata)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, on the CPU.

    Raises:
        PartitaError: there is none, or it is not safetensors, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise PartitaError(f"no such file: {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PartitaError(f"{path} is not a safetensors file, or is damaged: {reason}") from None
