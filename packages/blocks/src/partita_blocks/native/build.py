"""Build the fused kernels for the CPU at hand, once, and load them.

All it takes is Linux on x86-64 with AVX2 or AVX-512 and a C++ compiler (`CXX`, else `g++` or `c++`); neither torch's
nor Python's headers are needed. The library is kept in `$XDG_CACHE_HOME/partita` (else `~/.cache/partita`), named by
its source and flags, so that every later process finds it; building takes a few seconds.

`PARTITA_KERNELS` is the highest instruction set to build for, `avx512_bf16`, `avx512` or `avx2`; `none` is for no
kernels at all. By default it is the best that the CPU has.
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

from partita_core import PartitaError, short_repr, suggest

from ._cache import cache_folder, find, keep
from ._library import opened

_SOURCE = Path(__file__).with_name("kernels.cpp")
_TRIAL = Path(__file__).with_name("_library.py")
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fopenmp")

# What the CPU must have, and what the compiler is told, best first. Compilers older than a CPU take -march=native for
# less than it is.
_AVX2 = {"avx2": "-mavx2", "fma": "-mfma"}
_AVX512 = _AVX2 | {f"avx512{part}": f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")}
_INSTRUCTION_SETS = {
    "avx512_bf16": _AVX512 | {"avx512_bf16": "-mavx512bf16"},
    "avx512": _AVX512,
    "avx2": _AVX2,
}


def kernels() -> ctypes.CDLL | None:
    """The kernels, built if need be; None where they cannot run, for the reason that `why_no_kernels` gives."""
    return _attempt()[0]


def why_no_kernels() -> str | None:
    """The reason why `kernels` has none; None if it has."""
    return _attempt()[1]


@cache
def _attempt() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return _load(), None
    except PartitaError as error:
        return None, str(error)
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:  # no home, a full disk, ...
        return None, f"the fused kernels could not be built or loaded: {short_repr(str(error))}"


def cpu_features() -> set[str]:
    """The features of the CPU, by the names that Linux gives; none where they are not known."""
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        return set()
    lines = [line for line in info.read_text().splitlines() if line.startswith("flags")]
    return set(lines[0].partition(":")[2].split()) if lines else set()


class _BuildError(PartitaError):
    """One instruction set cannot be built for, or does not run; another one may."""


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
            return opened(str(_library((*_FLAGS, *flags.values()))))
        except _BuildError as error:  # an old compiler does not know the newest instructions
            problem = error
    raise PartitaError(f"the C++ compiler cannot build the fused kernels: {problem}")


def _library(flags: tuple[str, ...]) -> Path:
    """The path of the library, which is built unless a good one is there."""
    name = f"kernels_{hashlib.sha256(repr((flags, _SOURCE.read_text())).encode()).hexdigest()[:16]}"
    folder = cache_folder()
    kept = find(folder, name)
    if kept is not None:
        return kept
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        # Linked without -fopenmp: the symbols come from the OpenMP runtime that torch has loaded. A second one would
        # have threads of its own.
        _run(compiler, *flags, "-c", str(_SOURCE), "-o", "kernels.o", folder=aside)
        _run(compiler, "-shared", "kernels.o", "-o", "kernels.so", folder=aside)
        library = Path(aside, "kernels.so")
        _run(sys.executable, "-I", str(_TRIAL), str(library), *_openmp(), folder=aside)
        return keep(folder, name, library)


def _run(*command: str, folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=600)
    if done.returncode:
        lines = done.stderr.splitlines() or [""]
        reason = next((line for line in lines if "error" in line.lower()), lines[0]).replace(folder, "").strip()
        raise _BuildError(f"{Path(command[0]).name} ends with code {done.returncode}: {short_repr(reason)}")


def _openmp() -> list[str]:
    """The OpenMP runtimes that this process has loaded with torch."""
    return openmp_runtimes(Path("/proc/self/maps").read_text())


def openmp_runtimes(maps: str) -> list[str]:
    """Paths of the OpenMP runtimes of GCC, LLVM and Intel in a memory map as `/proc/PID/maps` lists it."""
    return sorted(set(re.findall(r"/.*/lib(?:gomp|i?omp\d?)[-.\w]*\.so[.\d]*$", maps, re.MULTILINE)))


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return os.path.abspath(found)
    raise PartitaError("the fused kernels need a C++ compiler, and neither CXX, g++ nor c++ names one; install g++")
