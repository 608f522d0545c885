"""Steps of a training run, measured by phase in a process of their own; the measuring core of `step_time.py`.

Reads lines `RECIPE PRECISION` from standard input, runs one cycle of steps for each, and answers with one line of JSON:
processor seconds per step by phase; for `RECIPE profile`, the profile of a cycle as text. It works with the sources of
older commits as well, whose modules have other names.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

# Freed memory is kept, as the command line does; before torch is imported.
if sys.platform.startswith("linux"):
    for setting in ((-4, 0), (-1, 2**30), (-2, 2**26)):
        ctypes.CDLL("libc.so.6").mallopt(*setting)

import torch

# Progress of the run at each step of a cycle, so that objectives with stages count by their share of the run.
PROGRESS = (0.1, 0.3, 0.5, 0.7, 0.9)
PHASES = ("encoder", "bottleneck", "decoder", "losses", "backward", "optimizer")


def found(name: str, *modules: str) -> Any:
    """Object of the first of these modules that exists and has it."""
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(modules)} has {name}")


class Clock:
    """Processor time by phase; the innermost phase counts."""

    def __init__(self) -> None:
        """Start with the losses."""
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "losses", time.process_time()

    def enter(self, phase: str) -> str:
        """Start to count for `phase`, and return the phase before."""
        now, before = time.process_time(), self._phase
        self.seconds[before] += now - self._since
        self._phase, self._since = phase, now
        return before

    def timed(self, call: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """`call`, counted for `phase`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            before = self.enter(phase)
            try:
                return call(*args, **kwargs)
            finally:
                self.enter(before)

        return run


class Run:
    """A recipe with random weights, one batch of music-like noise, and its optimizer."""

    def __init__(self, recipe: str) -> None:
        """Build the recipe, and replace the calls of its parts by timed ones."""
        recipes = import_module("partita.recipes")
        self.state_type = found("TrainState", "partita.objectives", "partita.training")
        ema = found("EMA", "partita.training.ema", "partita.training.optimization")
        torch.manual_seed(0)
        config = getattr(recipes, recipe)()
        self.objective = config.objective.build(model=config.model.build()).train()
        self.batch = batch_of(config, self.objective)
        if hasattr(type(self.objective), "initialize"):
            self.objective.initialize(iter(lambda: dict(self.batch), None), seconds=None)
        (self.phase,) = self.objective.phases
        self.settings = config.trainer.optimizers[self.phase]
        self.optimizer = self.settings.build(groups=self.objective.parameter_groups(self.phase))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = ema(self.objective.model, config.trainer.ema_decay)
        self.clock = Clock()
        model = self.objective.model
        for phase in ("encoder", "bottleneck", "decoder"):
            part = getattr(model, phase)
            part.forward = self.clock.timed(part.forward, phase)
        if hasattr(model.decoder, "condition"):
            model.decoder.condition = self.clock.timed(model.decoder.condition, "decoder")

    def cycle(self, precision: str) -> dict[str, float]:
        """Take the steps of a cycle, and return the seconds per step by phase."""
        self.clock.enter("losses")
        self.clock.seconds = dict.fromkeys(PHASES, 0.0)
        for progress in PROGRESS:
            self.step(progress, precision)
        self.clock.enter("losses")
        return {phase: seconds / len(PROGRESS) for phase, seconds in self.clock.seconds.items()}

    def profile(self) -> str:
        """Profile of a cycle in float32, by operation."""
        self.cycle("no")
        with torch.profiler.profile() as found:
            self.cycle("no")
        return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=48)

    def step(self, progress: float, precision: str) -> None:
        """Take one step."""
        clock, state = self.clock, self.state_type(int(1000 * progress), 1000)
        torch.manual_seed(0)
        clock.enter("losses")
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = self.objective(dict(self.batch), state, self.phase)
        clock.enter("backward")
        output.total.backward()
        clock.enter("optimizer")
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.objective.model, state.step)
        clock.enter("losses")


def batch_of(config: Any, objective: Any) -> dict[str, Any]:
    """A batch of the recipe's size: tones in noise, at levels that differ by item."""
    spec = objective.codec.audio_spec
    samples = round(config.data.crop_seconds * spec.sample_rate / objective.crop_multiple) * objective.crop_multiple
    size = config.data.batch_size
    generator = torch.Generator().manual_seed(0)
    time_axis = torch.arange(samples) / spec.sample_rate
    pitch = 80 * 2 ** (4 * torch.rand(size, spec.channels, 8, 1, generator=generator))
    tones = (2 * torch.pi * pitch * time_axis).sin().mean(2)
    noise = torch.randn(size, spec.channels, samples, generator=generator)
    levels = torch.logspace(-2, -0.5, size)[:, None, None]
    layout = torch.full((size,), int(spec.layouts[-1 if spec.channels == 1 else min(1, len(spec.layouts) - 1)]))
    lengths = torch.full((size,), samples)
    audio = levels * (tones + 0.03 * noise)
    return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": layout}


def main() -> None:
    """Answer requests until standard input ends."""
    torch.set_num_threads(1)
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        recipe, precision = line.split()
        if recipe not in runs:
            runs[recipe] = Run(recipe)
        run = runs[recipe]
        print(json.dumps(run.profile() if precision == "profile" else run.cycle(precision)), flush=True)


if __name__ == "__main__":
    main()
