"""The option `--slow`, which chooses the tests marked `slow` that run."""

import gc
from argparse import ArgumentTypeError
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

OPTION = """slow tests to run: none, all, or K/N, the K-th of N shares that together are all of them.
Default: those of the files and node ids that the command names, and no others."""


def share_of(text: str) -> str | tuple[int, int]:
    """Value of `--slow`.

    Raises:
        argparse.ArgumentTypeError: the value is not one of those of `OPTION`.
    """
    if text in ("none", "all"):
        return text
    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise ArgumentTypeError(f"{text!r} is not none, all or K/N with 1 <= K <= N")


def shares(tests: set[str], parts: int) -> dict[str, int]:
    """Share of each file of tests, from 1: files with more functions first, each to the share with the fewest.

    Files are not divided, so that a share sets up the fixtures of a module once. Functions are counted instead of
    tests, because those with many parameters take less time per test.
    """
    sizes = dict.fromkeys(range(1, parts + 1), 0)
    found = {}
    functions = Counter(test.split("::")[0] for test in {test.split("[")[0] for test in tests})
    for file, count in sorted(functions.items(), key=lambda item: (-item[1], item[0])):
        found[file] = min(sizes, key=lambda share: (sizes[share], share))
        sizes[found[file]] += count
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", type=share_of, metavar="none|all|K/N", help=OPTION)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--slow")
    # Tests marked `endurance` have sessions of their own.
    slow = [item for item in items if item.get_closest_marker("slow") and not item.get_closest_marker("endurance")]
    if chosen == "all":
        kept = set(slow)
    elif isinstance(chosen, tuple):
        part, parts = chosen
        share = shares({item.nodeid for item in slow}, parts)
        kept = {item for item in slow if share[item.nodeid.split("::")[0]] == part}
    else:
        paths = {Path(argument.split("::")[0]) for argument in config.args} if chosen is None else set()
        named = {(config.invocation_params.dir / path).resolve() for path in paths}
        kept = {item for item in slow if item.path in named}
    left_out = set(slow) - kept
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Exempt what was imported and collected from garbage collection, which otherwise takes seconds per worker."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    gc.unfreeze()


# ------------------------------------------------------------------ pytest-xdist counts no deselected tests by itself


def pytest_deselected(items: list[pytest.Item]) -> None:
    output = getattr(items[0].config, "workeroutput", None) if items and isinstance(items[0], pytest.Item) else None
    if output is not None:
        output["deselected"] = output.get("deselected", 0) + len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Report the deselected tests of the first worker, which are those of every worker."""
    if node.gateway.id == "gw0":
        count = getattr(node, "workeroutput", {}).get("deselected", 0)  # a worker that crashed has no output
        node.config.hook.pytest_deselected(items=[SimpleNamespace()] * count)
