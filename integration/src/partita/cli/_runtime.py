"""CPU settings of the process (malloc and OpenMP), for the command line; programs importing Partita are unaffected."""

import ctypes
import os
import sys

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def prepare_process() -> None:
    """Make CPU training and inference several times faster; must be called before torch is imported.

    Freed memory is kept: glibc returns every large block to the system immediately, so the pages of each layer's output
    would be mapped again. Waiting threads spin for some microseconds and then sleep: endless spinning slows OpenMP down
    extremely if another process needs a core, and sleeping immediately halves the speed otherwise.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    keep_memory()


def keep_memory() -> bool:
    """Make malloc keep freed memory; False if that is not possible, which needs Linux with glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*setting) for setting in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**30), (_TOP_PAD, 2**26)))
