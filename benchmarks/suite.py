"""Run the benchmarks against other libraries, one process each, and fill the tables of docs/benchmarks.md.

    python benchmarks/suite.py [--quick] [NAME ...]

Results are written to `results/<name>.json`. On the page, the text between `<!-- results: NAME -->` and `<!-- end -->`
is replaced by the machine and the tables; the text around them is written by hand and must be updated by hand. With
--quick all run with minimal settings, to check that they run; their results go to a temporary folder.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# Minimal settings of each benchmark.
QUICK: dict[str, list[str]] = {
    "encode_speed": ["--seconds", "0.5", "--rounds", "1", "--skip-compiled"],
    "decode_speed": ["--chunks", "1", "--rounds", "1", "--durations"],
    "encoder_ladder": ["--seconds", "0.5", "--rounds", "1"],
    "spectral_loss": ["--rounds", "1"],
    "activations": ["--rounds", "1"],
    "quantizers": ["--rounds", "1"],
    "step_time": ["f3_tiny", "--rounds", "1"],
    "trainer_overhead": ["--steps", "12", "--rounds", "1", "--crop-seconds", "0.2"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all, and return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run, of {', '.join(QUICK)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in QUICK:
            parser.error(f"unknown benchmark {name}; choose from {', '.join(QUICK)}")
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | ({"PARTITA_RESULTS": scratch} if options.quick else {})
        for name in options.names or QUICK:
            print(f"\n{name}\n", flush=True)
            command = [sys.executable, str(HERE / f"{name}.py"), *(QUICK[name] if options.quick else [])]
            if subprocess.run(command, env=environment).returncode:
                failed.append(name)
    if not options.quick:
        found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (HERE / "results").glob("*.json")}
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    if failed:
        print(f"\n{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def filled(page: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Fill a page with the tables of the results."""

    def block(match: re.Match[str]) -> str:
        found = results.get(match[2], {})
        if not found.get("tables"):
            return match[0]
        return "\n\n".join([match[1] + describe(found["machine"]), *found["tables"]]) + f"\n{match[3]}"

    return BLOCK.sub(block, page)


def describe(machine: Mapping[str, Any]) -> str:
    """One line with machine, versions and settings of a run."""
    plain = {"cpu": "{}", "gpu": "{}", "threads": "{} threads", "python": "Python {}"}
    return ", ".join(plain.get(key, f"{key} {{}}").format(value) for key, value in machine.items()) + "."


if __name__ == "__main__":
    sys.exit(main())
