"""Two processes with half of the batch each equal one process with all of it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile
import torch
from partita.training import train
from partita.training.logs import read_log
from partita_core import override, read_tensors

FAMILIES = ("reconstruction", "adversarial", "consistency", "quantization", "representation", "generation")

# Dead codes are replaced by vectors of each process, which has no equivalent in a single process.
CHANGES = {"quantization": ["model.quantizer.dead_after=0"]}

# Rounding errors, which Adam amplifies where gradients are near zero, do not grow at this rate.
SLOW = "trainer.optimizers.{}.lr=0.0001"

# Values that are equal. Others are means over processes of statistics of a part of the batch.
SAME = ("total", "loss/", "gradient/", "lr/", "metric/in_use_", "metric/real_logit", "metric/fake_logit")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Seven files of 0.1 to 4 crops, so that epochs end within batches; some have no label."""
    folder = tmp_path_factory.mktemp("uneven") / "train"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    lines = ["file_name,label"]
    for i, seconds in enumerate((0.02, 0.8, 0.05, 0.5, 0.13, 0.3, 0.04)):
        audio = (0.02 + 0.1 * i) * torch.randn(round(8000 * seconds), 2, generator=generator)
        soundfile.write(folder / f"{i}.wav", audio.clamp(-1, 1).numpy(), 8000, subtype="FLOAT")
        lines.append(f"{i}.wav,{'x' * i if i % 3 else ''}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder.parent


@pytest.fixture
def both(python, family, llm, uneven, tmp_path):
    """Train families in one process and then in two; returns their folders, that of one process first.

    A run is a family and its accumulation. One start of two processes serves all runs, because starting is slow.
    """

    def trained(runs: Sequence[tuple[str, int]], *, steps: int, dtype: str = "float32") -> list[tuple[Path, Path]]:
        jobs, folders = [], []
        torch.set_default_dtype(getattr(torch, dtype))
        for name, accumulation in runs:
            config = family(name, llm=llm, steps=steps)
            slow = [SLOW.format(phase) for phase in config.trainer.optimizers]
            changes = [*CHANGES.get(name, ()), *slow, f"trainer.accumulation={accumulation}"]
            config = override(config, changes)
            folders.append(tuple(tmp_path / count / f"{name} {accumulation}" for count in ("one", "two")))
            train(config, data=uneven, output=folders[-1][0], progress=False)
            settings = {"codec": config.codec, "llm": os.fspath(llm), "steps": steps}
            job = {"family": name, "settings": settings, "overrides": changes, "dtype": dtype}
            jobs.append(job | {"data": os.fspath(uneven), "output": os.fspath(folders[-1][1])})
        (tmp_path / "jobs.json").write_text(json.dumps(jobs))
        done = python(Path(__file__).with_name("two_processes.py"), tmp_path / "jobs.json", processes=2, timeout=1800)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("process 0 of 2 has trained") == done.stdout.count("process 1 of 2 has trained") == 1
        return folders

    yield trained
    torch.set_default_dtype(torch.float32)


def lines(run: Path) -> list[dict[str, float]]:
    return [line for line in read_log(run / "log.jsonl") if "total" in line]


def farthest(one: Path, two: Path) -> dict[str, float]:
    """Largest difference of each value, relative to that of one process, or to 0.01 if that is larger."""
    apart: dict[str, float] = {}
    for a, b in zip(lines(one), lines(two), strict=True):
        names = {name for name in a if name.startswith(SAME)}
        assert names == {name for name in b if name.startswith(SAME)}
        for name in names:
            apart[name] = max(apart.get(name, 0.0), abs(a[name] - b[name]) / max(0.01, abs(a[name])))
    return apart


def check(folders: list[tuple[Path, Path]], *, steps: int) -> None:
    for one, two in folders:
        apart = farthest(one, two)
        assert len(lines(one)) == steps and len(apart) > 3
        losses = {name: gap for name, gap in apart.items() if not name.startswith("gradient/")}
        print(f"{one.name}, {steps} steps: losses {max(losses.values()):.1e}, gradients {max(apart.values()):.1e}")
        assert max(losses.values()) < 1e-5, (one.name, losses)
        assert max(apart.values()) < 1e-3, (one.name, apart)  # norms of gradients that nearly cancel


@pytest.mark.slow
def test_two_processes_equal_one(both):
    """All objectives, both phases, stages, the balancer, accumulation, losses over unequal numbers of frames in the
    halves, and epochs that end within batches. Codebooks are equal in both processes."""
    runs = [*((name, 1) for name in FAMILIES), ("staged", 2), ("quantization", 2)]
    folders = both(runs, steps=3)
    check(folders, steps=3)
    mine, other = (read_tensors(folders[-1][1] / f"buffers_{rank}.safetensors")[0] for rank in (0, 1))
    assert any(name.endswith("codebook.embed") for name in mine) and mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.endurance
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_equal_one_for_twenty_steps(both, accumulation):
    """In double precision: in single, Adam amplifies the rounding of near-zero gradients beyond the tolerance."""
    check(both([(name, accumulation) for name in FAMILIES], steps=20, dtype="float64"), steps=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reconstruction", "representation"])
def test_accumulated_halves_equal_the_batch(family, tones, tmp_path, name):
    """For losses that weight items equally, without random draws or batch statistics."""
    quiet = {
        "reconstruction": ["data.augmentation=none", "model.bottleneck=identity"],
        "representation": ["objective.supervisions.rq.whitening_steps=0"],
    }
    whole = override(family(name, steps=4), [*quiet[name], SLOW.format("generator")])
    half = override(whole, ["data.batch_size=2", "trainer.accumulation=2"])
    for config, folder in ((whole, "whole"), (half, "half")):
        train(config, data=tones, output=tmp_path / folder, progress=False)
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "half"), strict=True):
        assert a["total"] == pytest.approx(b["total"], rel=1e-5)
        # Signs in the gradient of spectral losses depend on the last bit.
        assert a["gradient/generator"] == pytest.approx(b["gradient/generator"], rel=1e-2)
