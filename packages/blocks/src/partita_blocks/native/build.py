"""Builds the fused kernels for the CPU at hand, once, and loads them.

All it takes is Linux on x86-64 with AVX2 or AVX-512 and a C++ compiler (`CXX`, else `g++` or `c++`); neither torch's
nor Python's headers are needed. The library is kept in `$XDG_CACHE_HOME/partita` (else `~/.cache/partita`), named by
its source and flags, so that every later process finds it; building takes a few seconds.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from partita_core import PartitaError

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fopenmp")

# What the CPU must have, and what the compiler is told, best first. Compilers older than a CPU take -march=native for
# less than it is.
_AVX2 = {"avx2": "-mavx2", "fma": "-mfma"}
_AVX512 = _AVX2 | {f"avx512{part}": f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")}
_INSTRUCTION_SETS = (_AVX512 | {"avx512_bf16": "-mavx512bf16"}, _AVX512, _AVX2)


def kernels() -> ctypes.CDLL | None:
    """The kernels, built if need be; None where they cannot run, of which `why_no_kernels` tells the reason."""
    return _attempt()[0]


def why_no_kernels() -> str | None:
    """Why `kernels` has none; None if it has."""
    return _attempt()[1]


@cache
def _attempt() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return _load(), None
    except PartitaError as error:
        return None, str(error)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # no home, a full disk, another OpenMP
        return None, f"the fused kernels could not be built or loaded: {error}"


def cpu_features() -> set[str]:
    """What the CPU can do, by the names that Linux gives; nothing where that cannot be told."""
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        return set()
    lines = [line for line in info.read_text().splitlines() if line.startswith("flags")]
    return set(lines[0].partition(":")[2].split()) if lines else set()


def _load() -> ctypes.CDLL:
    features = cpu_features()
    possible = [tuple(flags.values()) for flags in _INSTRUCTION_SETS if flags.keys() <= features]
    if not possible:
        raise PartitaError("the fused kernels need Linux on x86-64 with AVX2 and FMA")
    problem = None
    for flags in possible:
        try:
            return _declare(ctypes.CDLL(str(_build((*_FLAGS, *flags)))))
        except subprocess.CalledProcessError as error:  # an old compiler does not know the newest instructions
            problem = error.stderr.strip().splitlines()[:1]
    raise PartitaError(f"the C++ compiler cannot build the fused kernels: {problem}")


def _build(flags: tuple[str, ...]) -> Path:
    """The path of the library, which is built unless it is there."""
    name = hashlib.sha256(repr((flags, _SOURCE.read_text())).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partita"
    path = folder / f"kernels_{name}.so"
    if path.exists():
        return path
    compiler = _compiler()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        # Linked without -fopenmp: the symbols come from the OpenMP runtime that torch has loaded. A second one would
        # have threads of its own.
        for arguments in (
            (*flags, "-c", str(_SOURCE), "-o", "kernels.o"),
            ("-shared", "kernels.o", "-o", "kernels.so"),
        ):
            command = [compiler, *arguments]
            subprocess.run(command, cwd=aside, check=True, capture_output=True, text=True, timeout=600)
        os.replace(Path(aside) / "kernels.so", path)  # whole or not at all, also when two processes build at once
    return path


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise PartitaError("the fused kernels need a C++ compiler, and neither CXX, g++ nor c++ names one; install g++")


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, whole = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    for function in (library.partita_down, library.partita_unit):
        function.argtypes, function.restype = [pointer, pointer, pointer, size, size, whole, whole], None
    for function, tensors in ((library.partita_snake_lite, 3), (library.partita_snake_lite_backward, 5)):
        function.argtypes, function.restype = [*[pointer] * tensors, size, size, size, whole], None
    for figure in (library.partita_panel, library.partita_has_bf16):
        figure.argtypes, figure.restype = [], size
    return library
