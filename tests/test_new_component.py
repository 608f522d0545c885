"""What `nox -s new` writes is a component that works and passes everything that a component must."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "templates" / "new_component.py"
PLURALS = {
    "bottleneck": "bottlenecks",
    "decoder": "decoders",
    "encoder": "encoders",
    "loss": "losses",
    "quantizer": "quantizers",
}

spec = importlib.util.spec_from_file_location("new_component", SCRIPT)
new_component = importlib.util.module_from_spec(spec)
spec.loader.exec_module(new_component)


@pytest.fixture
def checkout(tmp_path):
    """The packages that components are written to, the settings of the tools, and an empty documentation."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for plural in PLURALS.values():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "packages" / plural, tmp_path / "packages" / plural, ignore=ignore)
    return tmp_path


def run(folder, *command):
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)


def test_roles():
    assert sorted(PLURALS) == new_component.ROLES


@pytest.mark.slow
def test_what_is_written_passes(checkout):
    written = []
    for role, plural in PLURALS.items():
        paths = new_component.write_component(checkout, role, "quick_sketch")
        assert [path.relative_to(checkout).as_posix() for path in paths] == [
            f"packages/{plural}/src/partita_{plural}/quick_sketch.py",
            f"packages/{plural}/src/partita_{plural}/__init__.py",
            f"packages/{plural}/tests/test_{plural}_conformance.py",
            f"docs/components/{role}_quick_sketch.md",
        ]
        assert f"automodule:: partita_{plural}.quick_sketch" in paths[-1].read_text()
        written += paths
    assert "newcomer" not in "".join(path.read_text() for path in written).lower()
    for command in (["check"], ["format", "--check"]):
        done = run(checkout, "-m", "ruff", *command, "--no-cache", *(p for p in written if p.suffix == ".py"))
        assert done.returncode == 0, done.stdout
    # The copies go before the installed packages.
    sources = [str(checkout / "packages" / plural / "src") for plural in PLURALS.values()]
    code = f"import sys, pytest; sys.path[:0] = {sources!r}; sys.exit(pytest.main(sys.argv[1:]))"
    suites = [path for path in written if path.name.endswith("_conformance.py")]
    done = run(checkout, "-c", code, "-q", "-p", "no:cacheprovider", "-k", "quick_sketch or entry", *suites)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 20 * len(PLURALS)


@pytest.mark.parametrize(
    "role, name", [("bottleneck", "tanh"), ("bottleneck", "Tanh"), ("bottleneck", "class"), ("x", "y")]
)
def test_what_cannot_be_written_leaves_the_checkout_as_it_is(checkout, role, name):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match="new: "):
        new_component.write_component(checkout, role, name)
    assert before == {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
