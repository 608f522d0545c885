"""Atomic outputs: complete or absent, never over foreign files, by one writer at a time."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from partita_core import (
    PartitaError,
    atomic_write,
    check_vacant,
    file_lock,
    outputs,
    read_json,
    remove_unfinished,
    write_json,
)
from partita_core.locks import folder_locked
from partita_core.outputs import atomic_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def filled(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------ whole or not at all


def test_atomic_write_replaces_a_file(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    for text in ("one", "two"):
        with atomic_write(path) as aside:
            assert aside != path and aside.name == path.name
            aside.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert names(path.parent) == ["x.txt"]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("name", ["model", "new", "old"])
def test_atomic_write_replaces_its_own_folder(tmp_path, monkeypatch, name, exchange):
    if not exchange:
        monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    folder = filled(tmp_path / name, old="")
    with atomic_write(folder, own=True) as aside:
        filled(aside, new="")
    assert names(tmp_path) == [name] and names(folder) == ["new"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_failed_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(PartitaError if error is OSError else error), atomic_write(path) as aside:
        aside.write_text("half")
        raise error("stop")
    assert path.read_text() == "old" and names(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("write", [lambda folder: atomic_write(folder, own=True), atomic_folder])
def test_failed_write_keeps_the_old_folder(tmp_path, write):
    folder = filled(tmp_path / "model", old="old")
    with pytest.raises(RuntimeError), write(folder) as aside:
        filled(aside, old="new")
        raise RuntimeError
    assert names(tmp_path) == ["model"] and texts(folder) == {"old": "old"}


@pytest.mark.parametrize("error", [OSError(5, "input/output error"), KeyboardInterrupt()])
def test_old_folder_is_restored_if_the_new_one_cannot_be_moved(tmp_path, monkeypatch, error):
    folder = filled(tmp_path / "model", old="")

    def stop(source, target):
        raise error

    monkeypatch.setattr(outputs, "_exchange", lambda one, other: False)
    with pytest.raises((PartitaError, KeyboardInterrupt)), atomic_write(folder, own=True) as aside:
        aside.mkdir()
        monkeypatch.setattr(os, "replace", stop)
    assert names(folder) == ["old"] and names(tmp_path) == ["model"]


@posix
def test_output_is_synced_before_and_folder_after_the_rename(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("placed"), replace(*paths)))
    with atomic_write(tmp_path / "file") as aside:
        aside.write_text("x")
    with atomic_write(tmp_path / "folder") as aside:
        filled(aside, inner="x")
    file, folder, inner, root = ((tmp_path / name).stat().st_ino for name in ("file", "folder", "folder/inner", "."))
    assert done == [file, "placed", root, inner, folder, "placed", root]


def test_failed_sync_raises_and_keeps_the_old_file(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(5, "Input/output error")

    write_json(tmp_path / "x.json", 1)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(PartitaError, match="cannot write .*x.json: Input/output error"):
        write_json(tmp_path / "x.json", 2)
    assert read_json(tmp_path / "x.json") == 1 and names(tmp_path) == ["x.json"]


def test_unwritable_path_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PartitaError, match="cannot write .*file.x.json: "):
        write_json(tmp_path / "file" / "x.json", {})
    if sys.platform != "win32" and os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(PartitaError, match="cannot write .*: Permission denied"):
            write_json(tmp_path / "x.json", {})
        tmp_path.chmod(0o700)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("length", [200, 255])
def test_longest_names_are_written(tmp_path, length):
    path = tmp_path / ("x" * length)
    write_json(path, 1)
    assert read_json(path) == 1 and names(tmp_path) == [path.name]


# ------------------------------------------------------------------ never over what somebody else wrote


def test_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(PartitaError, match="cannot write .*taken"):
        write_json(tmp_path / "taken", {})
    assert names(tmp_path) == ["taken"]


def test_nonempty_folder_is_not_replaced(tmp_path):
    folder = filled(tmp_path / "project", notes="mine", todo="mine")
    with (
        pytest.raises(PartitaError, match="project .*holds 'notes' and 1 more"),
        atomic_write(folder) as aside,
    ):
        aside.mkdir()
    with pytest.raises(PartitaError, match="cannot write .*notes"), atomic_write(folder / "notes") as aside:
        aside.mkdir()
    assert texts(folder) == {"notes": "mine", "todo": "mine"} and names(tmp_path) == ["project"]
    with pytest.raises(PartitaError, match="notes is a file"):
        check_vacant(folder / "notes")
    (tmp_path / "empty" / ".model.partita").mkdir(parents=True)  # left by a killed writer
    check_vacant(tmp_path / "empty")
    check_vacant(tmp_path / "none")


def test_atomic_folder_replaces_its_files_only(tmp_path):
    folder = filled(tmp_path / "project", weights="old", notes="mine")
    filled(folder / "codec", weights="old", other="mine")
    before = folder.stat().st_ino
    with atomic_folder(folder) as aside:
        filled(aside, weights="new")
        filled(aside / "codec", weights="new")
        filled(aside / "added", weights="new")
    assert texts(folder) == {
        "weights": "new",
        "notes": "mine",
        "codec/weights": "new",
        "codec/other": "mine",
        "added/weights": "new",
    }
    assert folder.stat().st_ino == before and names(tmp_path) == ["project"]


@pytest.mark.parametrize("name", ["notes", "codec"])
def test_file_at_the_path_of_a_folder_raises(tmp_path, name):
    folder = filled(tmp_path / "project", weights="old", notes="mine")
    filled(folder / "codec", other="mine")
    before = texts(folder)
    with pytest.raises(PartitaError, match=f"cannot write .*{name}"), atomic_folder(folder) as aside:
        filled(aside, weights="new")
        filled(aside / "notes", x="") if name == "notes" else filled(aside, codec="")
    assert texts(folder) == before


@posix
def test_links_are_followed_and_permissions_kept(tmp_path):
    filled(tmp_path / "far", file="old")
    (tmp_path / "far" / "file").chmod(0o640)
    for name, target in {"link": "far/file", "dangling": "far/fresh"}.items():
        (tmp_path / name).symlink_to(target)
        write_json(tmp_path / name, 1)
        assert (tmp_path / name).is_symlink() and read_json(tmp_path / target) == 1
    assert stat.S_IMODE((tmp_path / "far" / "file").stat().st_mode) == 0o640
    assert names(tmp_path / "far") == ["file", "fresh"]


@posix
def test_devices_fifos_and_handles_are_written_directly(tmp_path):
    os.mkfifo(tmp_path / "fifo.json")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo.json").read_text()))
    reader.start()
    write_json(tmp_path / "fifo.json", {"a": 1})
    reader.join(60)
    assert json.loads(read[0]) == {"a": 1} and stat.S_ISFIFO((tmp_path / "fifo.json").stat().st_mode)
    (tmp_path / "null").symlink_to(os.devnull)
    write_json(tmp_path / "null", 1)
    assert names(tmp_path) == ["fifo.json", "null"] and stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with open(tmp_path / "handle", "wb") as file:
        write_json(f"/dev/fd/{file.fileno()}", 1)
        assert os.fstat(file.fileno()).st_nlink == 1 and read_json(tmp_path / "handle") == 1


# ------------------------------------------------------------------ killed, and beside another


@posix
def test_leftovers_of_a_killed_writer_are_removed_or_restored(tmp_path):
    filled(tmp_path / ".model.partita" / "old" / "model", weights="old")
    filled(tmp_path / ".model.partita" / "new" / "model", weights="half")
    filled(tmp_path / ".x.json.partita.1" / "new")
    kept = filled(tmp_path / ".model.backup", weights="mine"), filled(tmp_path / ".venv.partitas", x="")
    (tmp_path / ".file.partita").write_text("mine")
    remove_unfinished(tmp_path)
    assert texts(tmp_path / "model") == {"weights": "old"}
    assert names(tmp_path) == [".file.partita", ".model.backup", ".venv.partitas", "model"] and kept[0].is_dir()
    filled(tmp_path / ".model.partita" / "old" / "model", weights="older")
    with atomic_write(tmp_path / "model", own=True) as aside:
        filled(aside, weights="new")
    assert texts(tmp_path / "model") == {"weights": "new"} and ".model.partita" not in names(tmp_path)


@posix
def test_concurrent_writers_do_not_interfere(tmp_path):
    with atomic_write(tmp_path / "x") as one:
        one.write_text("one")
        with atomic_write(tmp_path / "x") as two:
            two.write_text("two")
            remove_unfinished(tmp_path)
        assert (tmp_path / "x").read_text() == "two"
    assert (tmp_path / "x").read_text() == "one" and names(tmp_path) == ["x"]


@posix
def test_a_lock_is_held_once(tmp_path):
    path = tmp_path / "lock"
    path.write_text("kept")
    with file_lock(path):
        with pytest.raises(PartitaError, match="is being written by another process"), file_lock(path):
            pass
        assert path.read_text() == "kept"
        path.unlink()
        with file_lock(path):  # a new file of the same name
            pass
    with file_lock(path):
        pass
    with pytest.raises(PartitaError, match="cannot write .*none"), file_lock(tmp_path / "none" / "lock"):
        pass


KILLS = """
import os, signal, sys, time
from pathlib import Path
from partita_core import PartitaError, file_lock, outputs, remove_unfinished, atomic_write
from partita_core.outputs import atomic_folder, finish_interrupted_write

os.fsync = lambda handle: None  # slow, and irrelevant if only the process is killed
CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")

def write(kind, folder, text):
    with atomic_folder(folder) if kind == "into" else atomic_write(folder, own=True) as aside:
        aside.mkdir(exist_ok=True)
        (aside / "codec").mkdir()
        for name in ("config", "weights", "codec/weights"):
            (aside / name).write_text(text)

def killed(kind, folder, number):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [number]
    def counted(original):
        def call(*args, **kwargs):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return original(*args, **kwargs)
        return call
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    exchange = outputs._exchange
    outputs._exchange = counted(exchange) if kind != "renames" else lambda one, other: False
    write(kind, folder, "new")
    os._exit(0)

for kind in ("aside", "renames", "into"):
    number, missing = 0, 0
    while True:
        root = Path(sys.argv[1]) / f"{kind}{number}"
        write(kind, root / "model", "old")
        if kind == "into":
            (root / "model" / "notes").write_text("mine")
        if not killed(kind, root / "model", number):
            break
        if kind == "renames" and not (root / "model").exists():
            missing += 1
        remove_unfinished(root)
        finish_interrupted_write(root / "model")
        found = {(root / "model" / name).read_text() for name in ("config", "weights", "codec/weights")}
        assert found in ({"old"}, {"new"}), (kind, number, found)
        write(kind, root / "model", "last")
        assert kind != "into" or (root / "model" / "notes").read_text() == "mine"
        left = {path.name for path in root.rglob("*")} - {"model", "config", "weights", "codec", "notes"}
        assert not left, (kind, number, left)
        number += 1
    print(kind, number, missing)

# A lock ends with its process, even if a child process, such as a data loader worker, lives on.
lock, (ready, said) = Path(sys.argv[1]) / "lock", os.pipe()
child = os.fork()
if not child:
    with file_lock(lock):
        worker = os.fork()
        if worker:
            os.write(said, str(worker).encode())
        time.sleep(600)
worker = int(os.read(ready, 20))
try:
    with file_lock(lock):
        raise AssertionError("the lock is held twice")
except PartitaError:
    pass
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
with file_lock(lock):
    os.kill(worker, signal.SIGKILL)
    print("lock 0 0")
"""


@posix
@pytest.mark.slow
def test_kill_at_any_system_call_leaves_old_or_new_output(tmp_path):
    """Kill a forked child at the first, second, third ... change that it makes to the file system."""
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    met = {kind: (int(kills), int(missing)) for kind, kills, missing in map(str.split, done.stdout.splitlines())}
    assert set(met) == {"aside", "renames", "into", "lock"}
    assert min(kills for kind, (kills, _) in met.items() if kind != "lock") >= 12
    assert met["renames"][1] > 0  # a kill between the two renames was recovered


def test_folder_that_is_gone_is_not_locked(tmp_path):
    """Another process may remove the folder of a killed writer at any time."""
    with folder_locked(tmp_path / "gone") as free:
        assert free is False
