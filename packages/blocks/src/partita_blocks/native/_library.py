"""Functions of the kernel library. Run as a script, it checks a new library in a process that may crash."""

import ctypes
import math
import sys


def open_library(path: str) -> ctypes.CDLL:
    """Load the library and declare the types of its functions.

    Raises:
        OSError: the library cannot be loaded.
        AttributeError: a function is missing.
    """
    library = ctypes.CDLL(path)
    pointer, size, integer = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    for function in (library.partita_down, library.partita_unit):
        function.argtypes, function.restype = [pointer, pointer, pointer, size, size, integer, integer], None
    for function, tensors in ((library.partita_snake_lite, 3), (library.partita_snake_lite_backward, 5)):
        function.argtypes, function.restype = [*[pointer] * tensors, size, size, size, integer], None
    for function, tensors, *others in (
        (library.partita_activate, 2, size, size, integer),
        (library.partita_activate_backward, 3, size, size, integer),
        (library.partita_group_norm, 4, *[size] * 4, ctypes.c_float, integer),
        (library.partita_group_norm_backward, 6, *[size] * 4, ctypes.c_float, integer),
        (library.partita_convolve, 5, integer),
        (library.partita_convolve_transposed, 5, integer),
        (library.partita_convolve_weights, 4, integer),
        (library.partita_frames, 3, *[size] * 6, integer),
        (library.partita_add_frames, 4, *[size] * 6, integer),
        (library.partita_magnitudes, 2, size),
        (library.partita_scale_spectrum, 4, size),
        (library.partita_view_sums, 4, size, size, size, ctypes.c_float),
        (library.partita_view_slopes, 5, size, size, size, ctypes.c_float),
    ):
        function.argtypes, function.restype = [*[pointer] * tensors, *others], None
    for constant in (library.partita_panel, library.partita_has_bf16):
        constant.argtypes, constant.restype = [], size
    return library


def check_library(path: str, *runtimes: str) -> None:
    """Compare the SnakeLite of a library with Snake, after loading the OpenMP runtimes that torch loads.

    Raises:
        ValueError: the results differ by 1e-3 or more.
    """
    for runtime in runtimes:
        ctypes.CDLL(runtime, ctypes.RTLD_GLOBAL)
    x, y, beta = (ctypes.c_float * 9)(*(k / 4 for k in range(-4, 5))), (ctypes.c_float * 9)(), ctypes.c_float(1.0)
    open_library(path).partita_snake_lite(x, ctypes.byref(beta), y, 1, 1, 9, 1)
    error = max(abs(b - a - math.sin(a) ** 2) for a, b in zip(x, y))
    if not error < 1e-3:
        raise ValueError(f"SnakeLite has an error of {error}; at most 1e-3 is expected")


if __name__ == "__main__":
    check_library(*sys.argv[1:])
