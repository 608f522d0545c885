"""Cache of compiled kernels: permissions, integrity, and compiler failures."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from partita_blocks import why_no_kernels
from partita_blocks.native import build
from partita_blocks.native._cache import cache_folder, find_library, store_library
from partita_core import PartitaError

LIBRARY = build.kernels()
needs_kernels = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Empty home folder; the kernels of this process are unloaded before and after."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("PARTITA_KERNELS", raising=False)
    build._attempt.cache_clear()
    yield tmp_path
    build._attempt.cache_clear()


@pytest.fixture
def stored(home):
    """File stored in the cache folder under the name k."""
    library = cache_folder() / "new.so"
    library.write_bytes(b"library" * 100)
    return store_library(cache_folder(), "k", library)


# ------------------------------------------------------------------ the folder


def test_cache_folder_is_private(home):
    before = os.umask(0)
    try:
        folder = cache_folder()
    finally:
        os.umask(before)
    assert folder == home / ".cache" / "partita" and mode(folder) == 0o700
    folder.chmod(0o777)
    assert mode(cache_folder()) == 0o700


def test_relative_cache_path_is_ignored(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder() == home / ".cache" / "partita" and not (home / "here").exists()
    monkeypatch.setenv("HOME", "here")
    with pytest.raises(PartitaError, match="set XDG_CACHE_HOME"):
        cache_folder()
    assert not (home / "here").exists()


def test_links_and_folders_of_other_users_raise(home, monkeypatch):
    (home / "elsewhere").mkdir()
    (home / ".cache").mkdir()
    (home / ".cache" / "partita").symlink_to(home / "elsewhere")
    with pytest.raises(PartitaError, match="is a link"):
        cache_folder()
    (home / ".cache" / "partita").unlink()
    owner = os.geteuid()
    cache_folder()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PartitaError, match=f"user {owner}.* {owner + 1}"):
        cache_folder()
    assert why_no_kernels() is not None and f"user {owner}" in str(why_no_kernels())


# ------------------------------------------------------------------ the library


def test_stored_library_is_found(stored):
    assert find_library(stored.parent, "k") == stored and mode(stored) == 0o600
    assert find_library(stored.parent, "other") is None


@pytest.mark.parametrize("damage", ["cut", "changed", "open", "link", "foreign"])
def test_invalid_libraries_are_removed(stored, damage, monkeypatch, tmp_path):
    if damage == "cut":
        os.truncate(stored, 300)
    elif damage == "changed":
        stored.write_bytes(b"another" * 100)
    elif damage == "open":
        stored.chmod(0o666)
    elif damage == "link":
        stored.rename(tmp_path / "target")
        stored.symlink_to(tmp_path / "target")
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert find_library(stored.parent, "k") is None
    assert list(stored.parent.iterdir()) == [] and (tmp_path / "target").exists() == (damage == "link")


# ------------------------------------------------------------------ building


def compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Set a compiler that runs a line of shell, with the path of its output in $out."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\nfor out; do :; done\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


@needs_kernels
@pytest.mark.slow
def test_damaged_library_is_compiled_again(home, monkeypatch):
    """A truncated library, which would crash this process, is not loaded."""
    assert LIBRARY is not None
    good = Path(LIBRARY._name)
    compiler(home, monkeypatch, f'cp {good} "$out"')
    assert build.kernels() is not None
    (library,) = cache_folder().iterdir()
    assert library.name == good.name
    library.unlink()  # not truncated in place, since this process has it mapped
    library.write_bytes(good.read_bytes()[:5000])
    build._attempt.cache_clear()
    assert build.kernels() is not None
    assert library.read_bytes() == good.read_bytes() and mode(library) == 0o600


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize(
    "source, reason",
    [
        ("#include <signal.h>\n__attribute__((constructor)) void f() { raise(SIGSEGV); }", "code -11"),
        ("int partita_down() { return 0; }", "undefined symbol: partita_unit"),
    ],
)
def test_failing_library_is_not_stored(home, monkeypatch, source, reason):
    (home / "bad.c").write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", home / "bad.so", home / "bad.c"], check=True)
    compiler(home, monkeypatch, f'cp {home / "bad.so"} "$out"')
    monkeypatch.setenv("PARTITA_KERNELS", "avx2")
    assert build.kernels() is None and reason in str(why_no_kernels())
    assert list(cache_folder().iterdir()) == []


@needs_kernels
def test_compiler_errors_may_be_invalid_utf8(home, monkeypatch):
    compiler(home, monkeypatch, r"""printf 'error: \374ber\nmore' >&2; exit 3""")
    assert build.kernels() is None
    assert "compiler exits with code 3: 'error: \ufffdber'" in str(why_no_kernels())
    assert list(cache_folder().iterdir()) == []


# ------------------------------------------------------------------ instruction sets


def test_kernels_can_be_turned_off(home, monkeypatch):
    monkeypatch.setenv("PARTITA_KERNELS", "none")
    assert build.kernels() is None and "PARTITA_KERNELS=none" in str(why_no_kernels())
    build._attempt.cache_clear()
    monkeypatch.setenv("PARTITA_KERNELS", "avx3")
    assert build.kernels() is None and "did you mean avx2" in str(why_no_kernels())
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("limit, tried", [("avx2", ["-mfma"]), ("avx512", ["-mavx512vl", "-mfma"])])
def test_instruction_set_limit(home, monkeypatch, limit, tried):
    """On a CPU with all instruction sets, those up to the limit are tried, the best first."""
    found = []

    def fail(flags):
        found.append(flags[-1])
        raise build._BuildError("not here")

    monkeypatch.setattr(build, "cpu_features", lambda: {"avx512_bf16", *build._AVX512})
    monkeypatch.setattr(build, "_library", fail)
    monkeypatch.setenv("PARTITA_KERNELS", limit)
    assert build.kernels() is None and found == tried


def test_openmp_runtimes_in_a_memory_map():
    maps = """\
7f0000000000-7f0000001000 r-xp 00000000 08:01 11 /opt/torch/lib/libgomp.so.1
7f0000001000-7f0000002000 rw-p 00000000 00:00 0
7f0000002000-7f0000003000 r-xp 00000000 08:01 12 /opt/torch/lib/libgomp-a34b3233.so.1
7f0000003000-7f0000004000 rw-p 00000000 00:00 0 [heap]
7f0000004000-7f0000005000 r-xp 00000000 08:01 13 /opt/mkl/libiomp5.so
7f0000005000-7f0000006000 r-xp 00000000 08:01 14 /opt/pyarrow/libarrow_compute.so.2600
7f0000006000-7f0000007000 r-xp 00000000 08:01 15 /opt/libcomp.so
"""
    found = ["/opt/mkl/libiomp5.so", "/opt/torch/lib/libgomp-a34b3233.so.1", "/opt/torch/lib/libgomp.so.1"]
    assert build.openmp_runtimes(maps) == found
