"""The benchmark page: its tables are filled from results, and nothing else on it changes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = "a\n<!-- results: one -->\nold\n<!-- end -->\nb\n<!-- results: two -->\nkept\n<!-- end -->\nc\n"


@pytest.fixture(scope="module")
def suite():
    spec = importlib.util.spec_from_file_location("benchmark_suite", ROOT / "benchmarks" / "suite.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_filled_with_machine_and_versions(suite):
    machine = {"cpu": "X1", "threads": 2, "python": "3.11", "torch": "2.13"}
    results = {"one": {"machine": machine, "tables": ["| t |", "| u |"]}, "two": {"rows": {}}, "three": {"tables": []}}
    found = suite.filled(PAGE, results)
    line = "X1, 2 threads, Python 3.11, torch 2.13."
    assert found == PAGE.replace("old", f"{line}\n\n| t |\n\n| u |")
    assert suite.filled(found, results) == found


def test_page_and_suite_have_the_same_benchmarks(suite):
    page = suite.PAGE.read_text(encoding="utf-8")
    named = {match[1].removesuffix("_cpu_float32") for match in suite.BLOCK.findall(page)}
    assert named == set(suite.QUICK)
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in suite.QUICK)
    assert page.count("<!-- results:") == page.count("<!-- end -->") == len(suite.QUICK)


def test_unknown_benchmark_is_an_error(suite, capsys):
    with pytest.raises(SystemExit) as end:
        suite.main(["encode_sped"])
    assert end.value.code == 2 and "encode_sped" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_results_go_to_another_folder(tmp_path):
    """The cheapest benchmark, end to end."""
    command = [sys.executable, str(ROOT / "benchmarks" / "spectral_loss.py"), "--rounds", "1"]
    subprocess.run(command, check=True, env=os.environ | {"PARTITA_RESULTS": str(tmp_path)}, capture_output=True)
    found = json.loads((tmp_path / "spectral_loss.json").read_text())
    assert found["tables"][0].startswith("| forward and backward | median, ms |")
    assert found["machine"]["auraloss"] and found["rows"]["ours, one channel"]["median"] > 0
