"""Compilation of the C++ kernels for the CPU of this machine, once, and loading.

Requirements are Linux on x86-64 with AVX2 or AVX-512 and a C++ compiler (`CXX`, else `g++` or `c++`); the headers of
torch and Python are not needed. The library is stored in `$XDG_CACHE_HOME/partita` (else `~/.cache/partita`) under a
hash of its sources and flags, for all later processes; compilation takes about ten seconds.

The environment variable `PARTITA_KERNELS` limits the instruction set to `avx512_bf16`, `avx512` or `avx2`, or turns the
kernels off with `none`. By default it is the best that the CPU supports.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import cast

from partita_core import PartitaError, short_repr, suggest

from ._cache import cache_folder, find_library, store_library
from ._library import open_library

_SOURCE = Path(__file__).with_name("kernels.cpp")
_HEADERS = sorted(_SOURCE.parent.glob("*.hpp"))
_CHECK = Path(__file__).with_name("_library.py")
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fopenmp")

# Required CPU features and their compiler flags, best first; compilers older than the CPU do not detect all of them by
# -march=native.
_AVX2 = {"avx2": "-mavx2", "fma": "-mfma"}
_AVX512 = _AVX2 | {f"avx512{part}": f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")}
_INSTRUCTION_SETS = {
    "avx512_bf16": _AVX512 | {"avx512_bf16": "-mavx512bf16"},
    "avx512": _AVX512,
    "avx2": _AVX2,
}


def kernels() -> ctypes.CDLL | None:
    """Kernel library, compiled if needed; None if it is unavailable, for the reason given by `why_no_kernels`."""
    return _attempt()[0]


def loaded_kernels() -> ctypes.CDLL:
    """Kernel library, for callers that have found `kernels` to be available."""
    return cast(ctypes.CDLL, kernels())


def why_no_kernels() -> str | None:
    """Reason why there are no kernels; None if there are."""
    return _attempt()[1]


@cache
def _attempt() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return _load(), None
    except PartitaError as error:
        return None, str(error)
    except (
        OSError,
        RuntimeError,
        AttributeError,
        subprocess.SubprocessError,
    ) as error:  # such as no home folder or a full disk
        return None, f"the fused kernels could not be compiled or loaded: {short_repr(str(error))}"


def cpu_features() -> set[str]:
    """Features of the CPU by their names in Linux; empty if unknown."""
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        return set()
    lines = [line for line in info.read_text().splitlines() if line.startswith("flags")]
    return set(lines[0].partition(":")[2].split()) if lines else set()


class _BuildError(PartitaError):
    """Compilation for one instruction set failed; another one may succeed."""


def _load() -> ctypes.CDLL:
    limit = os.environ.get("PARTITA_KERNELS") or next(iter(_INSTRUCTION_SETS))
    if limit == "none":
        raise PartitaError("the fused kernels are turned off by PARTITA_KERNELS=none")
    if limit not in _INSTRUCTION_SETS:
        raise PartitaError(f"PARTITA_KERNELS is {short_repr(limit)}; {suggest(limit, [*_INSTRUCTION_SETS, 'none'])}")
    allowed = list(_INSTRUCTION_SETS)[list(_INSTRUCTION_SETS).index(limit) :]
    features = cpu_features()
    possible = [flags for flags in map(_INSTRUCTION_SETS.__getitem__, allowed) if flags.keys() <= features]
    if not possible:
        raise PartitaError("the fused kernels need Linux on x86-64 with AVX2 and FMA")
    problem = None
    for flags in possible:
        try:
            return open_library(str(_library((*_FLAGS, *flags.values()))))
        except _BuildError as error:  # an old compiler lacks the newest instructions
            problem = error
    raise PartitaError(f"the C++ compiler cannot compile the fused kernels: {problem}")


def _library(flags: tuple[str, ...]) -> Path:
    """Path of the library, compiled unless a valid one is stored."""
    sources = [path.read_text() for path in (*_HEADERS, _SOURCE)]
    name = f"kernels_{hashlib.sha256(repr((flags, sources)).encode()).hexdigest()[:16]}"
    folder = cache_folder()
    stored = find_library(folder, name)
    if stored is not None:
        return stored
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Linked without -fopenmp, so that the symbols resolve to the OpenMP runtime of torch; a second runtime would
        # start threads of its own.
        _run(compiler, *flags, "-c", str(_SOURCE), "-o", "kernels.o", folder=scratch)
        _run(compiler, "-shared", "kernels.o", "-o", "kernels.so", folder=scratch)
        library = Path(scratch, "kernels.so")
        _run(sys.executable, "-I", str(_CHECK), str(library), *_openmp(), folder=scratch)
        return store_library(folder, name, library)


def _run(*command: str, folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=600)
    if done.returncode:
        lines = done.stderr.splitlines() or [""]
        reason = next((line for line in lines if "error" in line.lower()), lines[0]).replace(folder, "").strip()
        raise _BuildError(f"{Path(command[0]).name} exits with code {done.returncode}: {short_repr(reason)}")


def _openmp() -> list[str]:
    """Paths of the OpenMP runtimes that torch has loaded into this process."""
    return openmp_runtimes(Path("/proc/self/maps").read_text())


def openmp_runtimes(maps: str) -> list[str]:
    """Paths of the OpenMP runtimes of GCC, LLVM and Intel in a memory map in the format of `/proc/PID/maps`."""
    return sorted(set(re.findall(r"/.*/lib(?:gomp|i?omp\d?)[-.\w]*\.so[.\d]*$", maps, re.MULTILINE)))


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return os.path.abspath(found)
    raise PartitaError("the fused kernels need a C++ compiler, and none of CXX, g++ and c++ exists; install g++")
