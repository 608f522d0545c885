"""The option `--slow` of the root `conftest.py`, on a small folder of tests."""

import shutil
from pathlib import Path

import pytest

pytest_plugins = "pytester"
CONFTEST = Path(__file__).parents[1] / "conftest.py"
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # every run would import hypothesis
COUNTS = {"test_a": 4, "test_b": 3, "test_c": 2, "test_d": 1, "test_e": 1}  # slow tests per file
FAST = {f"{name}.py::test_fast" for name in COUNTS}
SLOW = {f"{name}.py::test_slow_{i}" for name, count in COUNTS.items() for i in range(count)}


@pytest.fixture
def chosen(pytester):
    """Function that runs pytest and returns the ids of the tests that ran, and the number of deselected ones."""
    shutil.copy(CONFTEST, pytester.path)
    pytester.makeini("[pytest]\nmarkers =\n    slow\n    endurance\naddopts = -m 'not endurance' --strict-markers")
    mark = "@pytest.mark."
    for name, count in COUNTS.items():
        slow = [f"{mark}slow\ndef test_slow_{i}(): pass" for i in range(count)]
        hours = f"{mark}endurance\n{mark}slow\ndef test_hours(): pass"
        text = "\n".join(["import pytest", "def test_fast(): pass", *slow, hours])
        pytester.makepyfile(**{name: text})

    def run(*arguments: str) -> tuple[set[str], int]:
        result = pytester.runpytest_inprocess(*PLUGINS, "-rA", *arguments)
        ids = {line.split()[1] for line in result.outlines if line.startswith("PASSED ")}
        outcomes = result.parseoutcomes()
        assert outcomes["passed"] == len(ids)
        return ids, outcomes.get("deselected", 0)

    return run


def test_slow_tests_are_deselected_unless_all_run(chosen):
    assert chosen() == (FAST, len(SLOW) + len(COUNTS))
    assert chosen("--slow", "none", "test_a.py")[0] == {"test_a.py::test_fast"}
    assert chosen("--slow", "all") == (FAST | SLOW, len(COUNTS))
    assert chosen("--slow", "all", "-m", "slow and not endurance")[0] == SLOW


def test_slow_tests_of_named_files_run(chosen):
    ids = {name for name in FAST | SLOW if name.startswith("test_b")}
    assert chosen("test_b.py")[0] == ids
    assert chosen("test_b.py::test_slow_1", "test_c.py::test_fast")[0] == {
        "test_b.py::test_slow_1",
        "test_c.py::test_fast",
    }
    assert chosen(".")[0] == FAST


def test_endurance_tests_run_as_before(chosen):
    assert chosen("-m", "endurance")[0] == {f"{name}.py::test_hours" for name in COUNTS}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.slow
def test_shares_divide_the_slow_tests_by_file(chosen, parts):
    found = [chosen("--slow", f"{part}/{parts}")[0] for part in range(1, parts + 1)]
    assert all(ids >= FAST for ids in found)
    shares = [ids - FAST for ids in found]
    assert set.union(*shares) == SLOW and sum(map(len, shares)) == len(SLOW)
    files = [{name.split("::")[0] for name in share} for share in shares]
    assert sum(map(len, files)) == len(COUNTS)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert chosen("--slow", f"1/{parts}")[0] == found[0]


@pytest.mark.parametrize("value", ["some", "0/3", "4/3", "1/", "a/b", "1.5/3"])
def test_invalid_values_end_pytest(pytester, value):
    shutil.copy(CONFTEST, pytester.path)
    result = pytester.runpytest_inprocess(*PLUGINS, "--slow", value)
    assert result.ret == pytest.ExitCode.USAGE_ERROR and f"'{value}'" in result.stderr.str()


@pytest.mark.slow
def test_workers_report_what_is_deselected(pytester):
    shutil.copy(CONFTEST, pytester.path)
    pytester.makepyfile(test_a="import pytest\n@pytest.mark.slow\ndef test_slow(): pass\ndef test_fast(): pass")
    result = pytester.runpytest_subprocess(*PLUGINS, "-n", "2", "-W", "ignore")
    result.assert_outcomes(passed=1, deselected=1)
