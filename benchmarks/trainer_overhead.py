"""Overhead of our trainer over a plain PyTorch loop with the same computations.

    python benchmarks/trainer_overhead.py [--threads N] [--steps N] [--rounds N] [--crop-seconds S]

`genae_tiny` on synthesized music, batches of six. The plain loop has the same model, losses, batches, optimizer,
clipping and moving average, without accelerate, schedules, seeds per step, guards, log and checkpoints. Runs alternate;
seconds per step are measured between the first and the last line of the log, without evaluations and the first steps,
and over the same steps of the plain loop.
"""

# ruff: noqa: E402
import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import machine, publish, summary, table
from partita.data import build_loader, open_dataset, synthesize
from partita.objectives import TrainState
from partita.recipes import genae_tiny
from partita.training import RunConfig, train
from partita.training.logs import read_log
from partita_core import override
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# Steps between lines of the log; timing starts at the first line.
EVERY = 10


def main() -> None:
    """Time both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crop-seconds", type=float, default=0.91)
    options = parser.parse_args()
    if options.steps <= EVERY:
        parser.error(f"--steps is {options.steps}; it must be more than {EVERY}")
    torch.set_num_threads(options.threads)
    settings = [f"trainer.steps={options.steps}", f"trainer.log_every={EVERY}", "trainer.evaluate_seconds=1"]
    settings += ["trainer.statistics_seconds=1", "data.num_workers=0", f"data.crop_seconds={options.crop_seconds}"]
    config = override(genae_tiny(), settings)
    seconds: dict[str, list[float]] = {"plain loop": [], "our trainer": []}
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "music")
        synthesize(data, minutes=1, seed=0)
        for number in range(options.rounds):
            seconds["plain loop"].append(bare(config, data))
            seconds["our trainer"].append(trained(config, data, Path(scratch, f"run_{number}")))
    found = summary(seconds)
    facts = machine("accelerate") | {"steps": options.steps, "rounds": options.rounds, "batch": config.data.batch_size}
    base = found["plain loop"]
    rows = [
        [name, *(f"{1e3 * times[key]:.1f}" for key in ("median", "best"))]
        + [f"{100 * (times[key] / base[key] - 1):+.1f} %" for key in ("median", "best")]
        for name, times in found.items()
    ]
    header = ["per step", "median, ms", "best, ms", "overhead, medians", "overhead, best"]
    publish("trainer_overhead", facts, seconds, table(header, rows))


def trained(config: RunConfig, data: Path, output: Path) -> float:
    """Seconds per step of our trainer."""
    train(config, data=data, output=output, progress=False)
    lines = [line for line in read_log(output / "log.jsonl") if "seconds" in line]
    return (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])


def bare(config: RunConfig, data: Path) -> float:
    """Seconds per step of a plain loop."""
    torch.manual_seed(0)
    objective = config.objective.build(model=config.model.build()).train()
    batches = iter(
        build_loader(
            open_dataset(data, split="train"),
            config.data,
            audio_spec=objective.codec.audio_spec,
            crop_multiple=objective.crop_multiple,
            seed=0,
        )
    )
    (phase,) = objective.phases
    settings = config.trainer.optimizers[phase]
    optimizer = settings.build(groups=objective.parameter_groups(phase))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    average = AveragedModel(objective.model, multi_avg_fn=get_ema_multi_avg_fn(config.trainer.ema_decay))
    state = TrainState(0, config.trainer.steps)
    begin = 0.0
    for state.step in range(1, config.trainer.steps + 1):
        batch: Any = next(batches)
        batch.pop("broken", None)
        output = objective(batch, state, phase)
        output.total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(objective.model)
        if state.step == EVERY:
            begin = time.perf_counter()
    return (time.perf_counter() - begin) / (config.trainer.steps - EVERY)


if __name__ == "__main__":
    main()
