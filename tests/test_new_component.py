"""Components that `nox -s new` writes into a checkout pass their suites, and all other tests still pass."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import partita_testing
import pytest
from partita_core import components

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "docs" / "templates"
PREFIX = "quick"  # prefix of all names, before the role

sys.path.insert(0, str(TEMPLATES))
try:
    from new_component import component_texts, write
    from roles import ROLES
finally:
    sys.path.remove(str(TEMPLATES))

# Tests of the repository that depend on the list of components, recipes, files or exports.
REPOSITORY = [
    "tests/test_mixes.py::test_table_of_the_page_is_up_to_date",
    "tests/test_provenance.py",
    "tests/test_ranges.py",
    "tests/test_repository.py",
    "integration/tests/test_evaluation_conformance.py",
    "integration/tests/test_evaluation_degradations.py",
    "integration/tests/test_recipes_promises.py",
]


def copy_checkout(folder: Path) -> Path:
    """Copy the checkout without built files."""
    built = shutil.ignore_patterns("__pycache__", "_build", "*.egg-info", "dist", "build", ".*")
    for part in ("packages", "integration", "tests", "docs", "benchmarks", "examples"):
        shutil.copytree(ROOT / part, folder / part, ignore=built)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with a new component of every role, and the files that were written."""
    folder = copy_checkout(tmp_path_factory.mktemp("checkout"))
    written = []
    for role in ROLES:
        texts = component_texts(folder, role, f"{PREFIX}_{role}")
        write(texts)
        written += texts
    return folder, written


def run(folder, *command):
    """Run Python with the sources of the copy instead of the installed ones."""
    sources = [str(path) for path in [*folder.glob("packages/*/src"), folder / "integration" / "src"]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sources)}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def pytest_in(folder, *arguments):
    """Run pytest in the copy; returns the number of tests that passed."""
    out = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    return int(out.split(" passed")[0].split()[-1])


def test_page_lists_every_role_with_its_suite():
    page = (ROOT / "docs" / "add_a_component.md").read_text()
    roles = {tag.split("/")[0] for tag in components("*/*")}
    assert {role for role in roles | ROLES.keys() if f"`{role}`" not in page} == set()
    checks = {name for name in partita_testing.__all__ if name.startswith("check_")}
    assert {name for name in checks if f"`{name}`" not in page} == set()
    assert {role.suite for role in ROLES.values()} - {""} <= set(partita_testing.__all__)


def test_every_role_writes_source_test_exports_and_list_entry(checkout):
    folder, written = checkout
    names = {path.relative_to(folder).as_posix() for path in written}
    assert {
        "packages/bottlenecks/src/partita_bottlenecks/quick_bottleneck.py",
        "packages/bottlenecks/src/partita_bottlenecks/__init__.py",
        "packages/bottlenecks/tests/test_bottlenecks_conformance.py",
        "packages/bottlenecks/tests/test_bottleneck_quick_bottleneck.py",
        "packages/decoders/src/partita_decoders/samplers/quick_sampler.py",
        "packages/decoders/src/partita_decoders/samplers/__init__.py",
        "integration/src/partita/evaluation/metrics/quick_metric.py",
        "integration/src/partita/recipes/catalog.py",
        "docs/evaluation.md",
    } < names
    assert len([name for name in names if PREFIX in name]) == 2 * len(ROLES)
    assert "newcomer" not in "".join(path.read_text() for path in written).lower()


def test_new_components_follow_the_style(checkout):
    folder, written = checkout
    files = [path for path in written if path.suffix == ".py"]
    run(folder, "-m", "ruff", "check", "--no-cache", *files)
    run(folder, "-m", "ruff", "format", "--check", "--no-cache", *files)


@pytest.mark.slow
def test_new_components_are_registered(checkout):
    folder, _ = checkout
    found = json.loads(run(folder, "-m", "partita", "components", f"*/{PREFIX}_*", "--json"))
    assert set(found) == {f"{role}/{PREFIX}_{role}" for role in ROLES if role != "recipe"}


@pytest.mark.slow
def test_new_components_pass_their_suites_and_tests(checkout):
    folder, written = checkout
    tests = sorted({path for path in written if path.name.startswith("test_")})
    suites = [path for path in tests if path.name.endswith("_conformance.py")]
    assert pytest_in(folder, "-k", f"{PREFIX} or list", *suites) > 15 * len(suites)
    assert pytest_in(folder, *(path for path in tests if PREFIX in path.name)) >= len(ROLES)


@pytest.mark.slow
def test_tests_of_the_repository_pass_for_new_components(checkout):
    folder, _ = checkout
    selected = f"{PREFIX} or test_repository or documented or table or section"
    assert pytest_in(folder, "-m", "not slow", "-k", selected, *REPOSITORY) > 100


@pytest.mark.endurance
def test_tests_of_the_repository_pass_for_old_components_next_to_new_ones(checkout):
    folder, _ = checkout
    assert pytest_in(folder, *REPOSITORY) > 300


@pytest.mark.endurance
def test_new_parts_mix_with_all_others(checkout):
    folder, _ = checkout
    assert pytest_in(folder, "-k", PREFIX, "tests/test_mixes.py", "tests/test_two_ranks.py") > 100


@pytest.mark.parametrize(
    "role, name, message",
    [
        ("bottleneck", "tanh", "partita_bottlenecks.*tanh"),
        ("bottleneck", "Tanh", "'Tanh'"),
        ("bottleneck", "class", "'class'"),
        ("x", "y", "'x'.*bottleneck"),
    ],
)
def test_names_that_cannot_be_used_write_nothing(role, name, message):
    with pytest.raises(SystemExit, match=message):
        component_texts(ROOT, role, name)
