"""Processor time of a training step by phase, and against another checkout of the repository.

    python benchmarks/step_time.py [RECIPE ...] [--against PATH] [--precisions no bf16] [--rounds N] [--profile]

Each recipe as shipped, with random weights and a batch of tones in noise, on one thread: forward pass by part, losses,
backward pass, and optimizer with clipping and moving average. A cycle is five steps spread over the run, so that stages
of an objective count by their share. With --against, such as a git worktree of an older commit, the same measuring core
(`step_worker.py`) runs with the sources of both checkouts, in one process each, which take turns cycle by cycle.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import machine, publish, table

HERE = Path(__file__).parent
ROOT = HERE.parent
RECIPES = ("f3_tiny", "genae_tiny", "music2latent2_tiny")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", default=list(RECIPES))
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout of the repository")
    parser.add_argument("--precisions", nargs="+", default=["no"], choices=["no", "bf16"])
    parser.add_argument("--rounds", type=int, default=9, help="cycles per recipe, precision and checkout")
    parser.add_argument("--profile", action="store_true", help="print the operations that take most of the time")
    options = parser.parse_args()
    trees = {"now": ROOT} | ({"before": options.against} if options.against else {})
    rows, results = [], {}
    with workers(trees) as ask:
        for recipe in options.recipes:
            for precision in options.precisions:
                request = f"{recipe} {precision}"
                cycles = alternate_cycles(ask, request, rounds=options.rounds)
                results[request] = cycles
                rows += rows_of(recipe, precision, cycles)
            if options.profile:
                print(f"{recipe}\n{ask['now'](f'{recipe} profile')}", file=sys.stderr)
    facts = machine() | {"threads": 1, "rounds": options.rounds}
    if options.against:
        facts["before"] = commit_of(options.against)
    phases = list(next(iter(results.values()))["now"][0])
    header = ["recipe", "sources", "precision", *phases, "step, ms", "times faster"]
    publish("step_time", facts, results, table(header, rows))


def alternate_cycles(ask: dict[str, Any], request: str, *, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds per step by phase, in every round of each checkout; the first round of each warms up."""
    cycles: dict[str, list[dict[str, float]]] = {name: [] for name in ask}
    for number in range(-1, rounds):
        for name, call in ask.items():
            found = call(request)
            if number >= 0:
                cycles[name].append(found)
    return cycles


def rows_of(recipe: str, precision: str, cycles: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    """One row per checkout: medians in milliseconds, and the ratio of whole steps with its range over rounds."""
    totals = {name: [sum(each.values()) for each in rounds] for name, rounds in cycles.items()}
    rows = []
    for name in reversed(cycles):
        phases = cycles[name][0]
        medians = [f"{1e3 * statistics.median(each[phase] for each in cycles[name]):.0f}" for phase in phases]
        ratio = ""
        if name == "now" and "before" in cycles:
            ratios = [before / now for before, now in zip(totals["before"], totals["now"])]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        shown = "float32" if precision == "no" else precision
        rows.append([recipe, name, shown, *medians, f"{1e3 * statistics.median(totals[name]):.0f}", ratio])
    return rows


@contextmanager
def workers(trees: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """A function per checkout that sends a request to its worker and returns the answer."""
    started = {name: start(tree) for name, tree in trees.items()}

    def ask(name: str, request: str) -> Any:
        worker = started[name]
        assert worker.stdin is not None and worker.stdout is not None
        print(request, file=worker.stdin, flush=True)
        answer = worker.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker of {trees[name]} failed at {request!r}; see its error above")
        return json.loads(answer)

    try:
        yield {name: lambda request, name=name: ask(name, request) for name in started}
    finally:
        for worker in started.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()


def start(tree: Path) -> "subprocess.Popen[str]":
    """A worker with the sources of a checkout."""
    sources = [*sorted(tree.resolve().glob("packages/*/src")), tree.resolve() / "integration" / "src"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "step_worker.py")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def commit_of(tree: Path) -> str:
    """Abbreviated commit of a checkout."""
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or str(tree)


if __name__ == "__main__":
    main()
