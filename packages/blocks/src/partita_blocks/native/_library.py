"""The functions of the kernels' library. As a script: the trial of a new library, in a process that may crash."""

import ctypes
import math
import sys


def opened(path: str) -> ctypes.CDLL:
    """The library with the types of its functions.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it lacks a function.
    """
    library = ctypes.CDLL(path)
    pointer, size, whole = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    for function in (library.partita_down, library.partita_unit):
        function.argtypes, function.restype = [pointer, pointer, pointer, size, size, whole, whole], None
    for function, tensors in ((library.partita_snake_lite, 3), (library.partita_snake_lite_backward, 5)):
        function.argtypes, function.restype = [*[pointer] * tensors, size, size, size, whole], None
    for constant in (library.partita_panel, library.partita_has_bf16):
        constant.argtypes, constant.restype = [], size
    return library


def trial(path: str, *runtimes: str) -> None:
    """Compare the SnakeLite of a library with Snake, behind the OpenMP runtimes that torch would have loaded."""
    for runtime in runtimes:
        ctypes.CDLL(runtime, ctypes.RTLD_GLOBAL)
    x, y, beta = (ctypes.c_float * 9)(*(k / 4 for k in range(-4, 5))), (ctypes.c_float * 9)(), ctypes.c_float(1.0)
    opened(path).partita_snake_lite(x, ctypes.byref(beta), y, 1, 1, 9, 1)
    error = max(abs(b - a - math.sin(a) ** 2) for a, b in zip(x, y))
    if not error < 1e-3:
        raise ValueError(f"an error of {error} in SnakeLite, where at most 1e-3 is expected")


if __name__ == "__main__":
    trial(*sys.argv[1:])
