"""Reading and writing of safetensors and JSON files: written atomically (see `outputs`), strictly checked."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import PartitaError, first_line, short_repr, shorten
from .outputs import atomic_write

# Files that packages write are far smaller.
_MAX_JSON_BYTES = 16 << 20

_DTYPES = {
    "C64": torch.complex64,
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        PartitaError: the file cannot be written, or a number is not finite.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError:
        raise PartitaError(f"cannot write {path}: a number is not finite (NaN or infinite)") from None
    with atomic_write(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; see `parse_json`.

    Raises:
        PartitaError: the file does not exist, is too large, or is not JSON.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PartitaError(f"cannot read {path}: it is not a file")
        if size > _MAX_JSON_BYTES:
            raise PartitaError(f"{path} has {size} bytes; the maximum for JSON is {_MAX_JSON_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PartitaError(f"{path} is not JSON: it is not UTF-8") from None
    except OSError as error:
        raise PartitaError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return parse_json(text)
    except PartitaError as error:
        raise PartitaError(f"{path} is {error}") from None


def parse_json(text: str) -> Any:
    """Parse JSON without duplicate keys, and with finite numbers only.

    Raises:
        PartitaError: the text is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except PartitaError as error:
        raise PartitaError(f"not JSON: {error}") from None
    except json.JSONDecodeError as error:
        raise PartitaError(f"not JSON: {error}") from None
    except ValueError:  # Python limits integers to some thousand digits
        raise PartitaError("not JSON: a number has too many digits") from None
    except RecursionError:
        raise PartitaError("not JSON: nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PartitaError(f"duplicate key {short_repr(twice)}")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise PartitaError(f"{short_repr(text)} is not a finite number")
    return value


def check_finite(tensors: Mapping[str, Tensor], source: Any) -> None:
    """Check that tensors hold finite numbers only.

    Args:
        tensors: tensors by name.
        source: name of their file or model in messages.

    Raises:
        PartitaError: a number is NaN or infinite; the first such tensor is named.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise PartitaError(f"{source} holds numbers that are not finite (NaN or infinite), first {shorten(name)}")


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, *, finite: bool = True
) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        path: file to write.
        tensors: tensors by name.
        metadata: texts by name.
        finite: check that all numbers are finite, as readers require.

    Raises:
        PartitaError: the file cannot be written, the disk is full, or a number is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if finite:
        try:
            check_finite(tensors, "it")
        except PartitaError as error:
            raise PartitaError(f"cannot write {path}: {error}") from None
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(path) as aside:
        aside.touch()
        mode = aside.stat().st_mode  # permissions of an ordinary file; the library restricts its own to the owner
        try:
            save_file(plain, str(aside), metadata=metadata)
        except SafetensorError as error:  # the library raises system errors as its own type
            raise PartitaError(f"cannot write {path}: {first_line(error)}") from None
        aside.chmod(mode)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file, to the CPU.

    Raises:
        PartitaError: the file does not exist, is not safetensors, is damaged, or holds unsupported types.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def read_shapes(path: str | Path) -> dict[str, Tensor]:
    """Read shapes and dtypes from the header of a safetensors file, as tensors on the meta device.

    Raises:
        PartitaError: see `read_tensors`.
    """
    with _opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}
        return {
            name: torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")
            for name, part in parts.items()
        }


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file and check its types; the library checks the header against the size of the file."""
    from safetensors import safe_open

    path = Path(path)
    try:
        if not path.is_file():
            raise PartitaError(f"no such file: {path}")
        path.open("rb").close()  # for the reason: the library reports any failure to open as a missing file
    except OSError as error:
        raise PartitaError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise PartitaError(f"{path}: {short_repr(name)} is {dtype}; supported are {', '.join(_DTYPES)}")
            yield file
    except PartitaError:
        raise
    except Exception as error:  # from the library, and from torch for impossible shapes
        reason = shorten(first_line(error))
        if "Cannot allocate memory" in reason:
            raise PartitaError(f"cannot read {path}: not enough memory") from None
        raise PartitaError(f"{path} is not a safetensors file, or is damaged: {reason}") from None
