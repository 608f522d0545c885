"""Speed of data loading: crops out of long files, and the share of a training step spent waiting for its batch.

    python benchmarks/data_loading.py [--minutes M] [--rounds N] [--crops N] [--data DIR] [--steps N]

Crops of 1.5 s at random positions of one file of `--minutes` per format are read by seeking (`read_resampled`), as in
training, and by decoding the full file and slicing, alternating in one process. The files are noise, the slowest signal
to decode, and are in the page cache.

With `--data`, `genae_tiny` is trained on it for some steps, and the waiting time of each step is read from the log.
"""

# ruff: noqa: E402
import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import alternate, machine, publish, summary, table
from partita.data import audio_info, read_audio, read_resampled, write_audio
from partita.recipes import recipe
from partita.training import train
from partita.training.logs import read_log

RATE, SECONDS = 44_100, 1.5
FORMATS = {
    "WAV, 16 bit": ("wav", "PCM_16"),
    "FLAC, 16 bit": ("flac", "PCM_16"),
    "OGG Vorbis": ("ogg", None),
    "MP3": ("mp3", None),
}

# Steps at the start of a run that are not counted, while workers start.
WARM_UP = 5


def main() -> None:
    """Time all, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=4, help="crops per round")
    parser.add_argument("--data", type=Path, help="a data set to train on")
    parser.add_argument("--recipe", default="genae_tiny")
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows["crops"] = crops(Path(folder), options)
        if options.data is not None:
            rows["waiting"] = waiting(Path(folder), options)
    facts = machine("soundfile", "soxr", "datasets", "accelerate") | {
        "file": f"{options.minutes:g} min of stereo noise at {RATE} Hz",
        "crops": f"{options.crops} of {SECONDS} s per round",
        "rounds": options.rounds,
    }
    header = ["format", "full file, ms per crop", "seeking, ms per crop", "speed-up"]
    tables = [table(header, [[name, *(f"{x:.4g}" for x in found.values())] for name, found in rows["crops"].items()])]
    if options.data is not None:
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in rows["waiting"].values()]
        tables.append(table(list(rows["waiting"]), [cells]))
    publish("data_loading", facts, rows, *tables)


def crops(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds per crop of each format, with both methods."""
    generator = torch.Generator().manual_seed(0)
    samples, length = round(60 * options.minutes * RATE), round(SECONDS * RATE)
    audio = 0.1 * torch.randn(2, samples, generator=generator)
    starts = torch.randint(samples - length, (options.crops,), generator=generator).tolist()
    subjects: dict[str, Callable[[], Any]] = {}
    for name, (suffix, subtype) in FORMATS.items():
        path = folder / f"file.{suffix}"
        write_audio(path, audio, RATE, subtype=subtype)
        subjects[f"{name}, full"] = lambda path=path: [read_audio(path)[0][:, i : i + length].clone() for i in starts]
        subjects[f"{name}, seeking"] = lambda path=path: [
            read_resampled(path, audio_info(path), i, length, RATE) for i in starts
        ]
    found = summary(alternate(subjects, rounds=options.rounds))
    times = {}
    for name in FORMATS:
        full, seeking = (1000 * found[f"{name}, {how}"]["median"] / options.crops for how in ("full", "seeking"))
        times[name] = {"full_ms": full, "seeking_ms": seeking, "ratio": full / seeking}
    return times


def waiting(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Share of its time that a training step of a recipe waits for its batch."""
    config = recipe(options.recipe)
    trainer = replace(config.trainer, steps=options.steps, log_every=1, evaluate_seconds=0.5, statistics_seconds=1.0)
    train(replace(config, trainer=trainer), data=options.data, output=folder / "run", progress=False)
    lines = [line for line in read_log(folder / "run" / "log.jsonl") if "waited" in line]
    steps = [(after["seconds"] - before["seconds"], after["waited"]) for before, after in zip(lines, lines[1:])][
        WARM_UP:
    ]
    taken, waited = (sum(step[i] for step in steps) for i in (0, 1))
    return {
        "recipe": options.recipe,
        "workers": config.data.num_workers,
        "steps": len(steps),
        "step_s": statistics.median(step[0] for step in steps),
        "waited_s": statistics.median(step[1] for step in steps),
        "share": waited / taken,
    }


if __name__ == "__main__":
    main()
