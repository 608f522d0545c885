"""Safe files: safetensors and JSON only, written whole (see `outputs`), and one line where they are not right."""

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

# JSON of ours is far smaller; what is larger would take memory without saying anything.
_MOST_JSON = 16 << 20

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
    """Write `value` as indented JSON, whole or not at all.

    Raises:
        PartitaError: the place cannot be written, or a number is not finite, which `read_json` would refuse.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError:
        raise PartitaError(f"cannot write {path}: a number in it is not finite (NaN or infinite)") from None
    with atomic_write(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file; see `parse_json`.

    Raises:
        PartitaError: there is none, it is too large, or it is not JSON.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PartitaError(f"cannot read {path}: it is no file")
        if size > _MOST_JSON:
            raise PartitaError(f"{path} is {size} bytes; at most {_MOST_JSON} of JSON are read")
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
    """The value of a JSON text in which every key stands once and every number is finite.

    Raises:
        PartitaError: it is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except PartitaError as error:
        raise PartitaError(f"not JSON: {error}") from None
    except json.JSONDecodeError as error:
        raise PartitaError(f"not JSON: {error}") from None
    except ValueError:  # Python reads integers of some thousand digits
        raise PartitaError("not JSON: it holds a number that is too long") from None
    except RecursionError:
        raise PartitaError("not JSON: it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PartitaError(f"the key {short_repr(twice)} stands more than once in an object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise PartitaError(f"{short_repr(text)} is no finite number")
    return value


def check_finite(tensors: Mapping[str, Tensor], source: Any) -> None:
    """Refuse numbers that no later step can use: anything computed from NaN is NaN.

    Raises:
        PartitaError: a number is NaN or infinite; the first tensor is named.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise PartitaError(f"{source} holds numbers that are not finite (NaN or infinite), first {shorten(name)}")


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, *, finite: bool = True
) -> None:
    """Write tensors as safetensors, whole or not at all.

    Args:
        path: file to write.
        tensors: tensors by name.
        metadata: texts by name.
        finite: refuse numbers that are not finite, as every reader here does.

    Raises:
        PartitaError: the place cannot be written, the disk is full, or a number is not finite.
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
        mode = aside.stat().st_mode  # as other files have it; the library makes its own readable to their owner alone
        try:
            save_file(plain, str(aside), metadata=metadata)
        except SafetensorError as error:  # what the system says, the library does not raise as an OSError
            raise PartitaError(f"cannot write {path}: {first_line(error)}") from None
        aside.chmod(mode)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, on the CPU.

    Raises:
        PartitaError: there is none, or it is not safetensors, or it is damaged, or holds types that are not read.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def read_shapes(path: str | Path) -> dict[str, Tensor]:
    """What the header of a safetensors file says of its tensors: as much on the meta device, which takes no memory.

    Raises:
        PartitaError: as `read_tensors`.
    """
    with _opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}
        return {
            name: torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")
            for name, part in parts.items()
        }


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file of the types that are read; the library holds the header against the size of the file."""
    from safetensors import safe_open

    path = Path(path)
    try:
        if not path.is_file():
            raise PartitaError(f"no such file: {path}")
        path.open("rb").close()  # whatever keeps it from opening a file, the library says that there is none
    except OSError as error:
        raise PartitaError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise PartitaError(f"{path}: {short_repr(name)} is {dtype}; read are {', '.join(_DTYPES)}")
            yield file
    except PartitaError:
        raise
    except Exception as error:  # the library's own, and torch's of shapes that no tensor has
        reason = shorten(first_line(error))
        if "Cannot allocate memory" in reason:
            raise PartitaError(f"cannot read {path}: there is not enough memory") from None
        raise PartitaError(f"{path} is not a safetensors file, or is damaged: {reason}") from None
