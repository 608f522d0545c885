"""A script: trains a run without interruption, and again with kills at random moments, each followed by a resumption.

`killed_runs.py JOB`, where JOB is a JSON file of `{"family", "settings", "data", "output", "every", "kills", "seed"}`.
The first run is in `output/whole`, the other in `output/killed`, and `output/kills.json` has statistics of the kills.
Runs are forked from this process, which has imported all modules, so that they start fast.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from partita.training import train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log

from conftest import family_config

# Modules that runs import late.
LATE = ("accelerate", "datasets", "transformers.models.llama.modeling_llama", "vector_quantize_pytorch")


def start(job: dict[str, Any], output: Path, *, resume: bool) -> int:
    """Fork a child that trains; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        config = family_config(job["family"], **job["settings"])
        every, keep = job["every"], job["keep"]
        settings = {"checkpoint_every": every, "keep": keep, "resume": resume, "progress": False}
        train(config, data=job["data"], output=output, **settings)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def last_logged_step(run: Path) -> int:
    """Last step in the log."""
    return max((line["step"] for line in read_log(run / "log.jsonl")), default=0)


def killed(child: int, run: Path, step: int, pause: float) -> bool:
    """Kill a child some time after its log reaches a step; False if it ends before."""
    while last_logged_step(run) < step:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    time.sleep(pause)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main(job: dict[str, Any]) -> None:
    output, draws = Path(job["output"]), random.Random(job["seed"])
    for module in LATE:
        import_module(module)
    begin = time.monotonic()
    _, status = os.waitpid(start(job, output / "whole", resume=False), 0)
    assert status == 0, "the uninterrupted run has failed"
    steps = job["settings"]["steps"]
    pause = (time.monotonic() - begin) / steps
    run, kills, writing, lost = output / "killed", 0, 0, 0
    while True:
        done = checkpoints(run / "checkpoints")
        at = int(done[-1].name.split("_")[1]) if done else 0
        child = start(job, run, resume=(run / "config.json").exists())
        if kills == job["kills"]:
            _, status = os.waitpid(child, 0)
            assert status == 0, "the last run has failed"
            break
        if not killed(child, run, min(steps, at + draws.randint(0, 2 * job["every"])), draws.uniform(0, pause)):
            break  # finished before all kills
        kills += 1
        unfinished = list((run / "checkpoints").glob(".step_*")) if (run / "checkpoints").exists() else []
        writing += bool(unfinished)
        lost += last_logged_step(run) - at
    (output / "kills.json").write_text(json.dumps({"kills": kills, "writing": writing, "lost": lost}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
