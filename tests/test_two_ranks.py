"""State of every bottleneck and quantizer after training on two ranks with different data."""

import os
import subprocess
import sys

import pytest
from partita_core import components


@pytest.mark.slow
def test_state_is_equal_on_two_ranks():
    """One pair of processes serves all components; each builds them before the process group."""
    module = ["-m", "partita_testing.two_ranks", "bottleneck/*", "quantizer/*"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *module]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    tags = sorted(components("bottleneck/*") | components("quantizer/*"))
    assert len(tags) >= 8
    assert done.stdout.count(f"equal on two ranks: {', '.join(tags)}\n") == 2
