"""Utilities of the benchmarks: alternating timing, description of the machine, and tables."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

# Folder of the results; `suite.py --quick` sets another one.
RESULTS = Path(os.environ.get("PARTITA_RESULTS") or Path(__file__).parent / "results")


def alternate(subjects: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Time calls in seconds, every subject once per round, so that disturbances affect all subjects equally."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for round_number in range(-warm_up, rounds):
        for name, call in subjects.items():
            _synchronize()
            begin = time.perf_counter()
            call()
            _synchronize()
            if round_number >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profiled(call: Callable[[], Any], *, rows: int = 15) -> str:
    """Profile of the second call of `call`, by operation."""
    from torch.profiler import profile

    call()
    with profile() as found:
        call()
        _synchronize()
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=48)


def machine(*packages: str) -> dict[str, Any]:
    """Describe the processor, GPU and versions that results depend on."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    facts: dict[str, Any] = {"cpu": cpu, "threads": torch.get_num_threads(), "python": platform.python_version()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts | {package: version(package) for package in ("torch", *packages)}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and best time of each subject."""
    return {name: {"median": statistics.median(times), "best": min(times)} for name, times in seconds.items()}


def publish(name: str, facts: Mapping[str, Any], rows: Any, *tables: str) -> None:
    """Write `results/<name>.json`, from which `suite.py` fills docs/benchmarks.md, and print the tables."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {"machine": facts, "rows": rows, "tables": tables}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print("\n\n".join([str(facts), *tables]))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
