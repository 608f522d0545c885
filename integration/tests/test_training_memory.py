"""Memory of a run does not grow with the number of steps."""

from pathlib import Path

import pytest
from partita.training import train
from partita.training.logs import Log
from partita_core import override


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.endurance
def test_memory_does_not_grow_over_a_thousand_steps(config, tones, tmp_path, monkeypatch):
    used: dict[int, float] = {}
    write = Log.write

    def recorded(self, step, **values):
        used[step] = resident()
        write(self, step, **values)

    monkeypatch.setattr(Log, "write", recorded)
    settings = ["trainer.steps=1000", "trainer.log_every=50", "trainer.evaluate_every=200"]
    train(override(config(), settings), data=tones, output=tmp_path / "run", checkpoint_every=200, progress=False)
    assert used[1000] - used[400] < 30, used
