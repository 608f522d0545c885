"""A component of somebody else's, in a package that nothing here names, is known as soon as it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from partita_core import components

TEMPLATE = Path(__file__).resolve().parents[1] / "docs" / "templates" / "partita-softclip"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process for which the template is installed, from a copy, beside what is here."""
    folder = tmp_path_factory.mktemp("softclip")
    shutil.copytree(TEMPLATE, folder / "source", ignore=shutil.ignore_patterns("dist", "build", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--no-index", "--disable-pip-version-check", "--target", folder / "site", folder / "source"],
        check=True,
    )
    return os.environ | {"PYTHONPATH": str(folder / "site"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(environment, *command):
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_is_not_known_without_being_installed():
    assert "bottleneck/tanh" in components() and "bottleneck/softclip" not in components()


@pytest.mark.slow
def test_is_listed(environment):
    listed = json.loads(run(environment, "-m", "partita", "components", "bottleneck/*", "--json"))
    assert listed["bottleneck/softclip"]["package"] == "partita_softclip"


@pytest.mark.slow
def test_trains_in_a_recipe(environment, tmp_path):
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        soundfile.write(tmp_path / "data" / f"{i}.wav", rng.uniform(-0.3, 0.3, (50_000, 2)), 44_100)
    overrides = ["model.bottleneck=softclip", "model.bottleneck.initial_gain=0.5", "data.batch_size=2"]
    arguments = ["--data", tmp_path / "data", "--output", tmp_path / "run", "--steps", "2", *overrides]
    run(environment, "-m", "partita", "train", "genae_tiny", *arguments)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["model"]["bottleneck"] == {"type": "bottleneck/softclip", "initial_gain": 0.5}
    assert json.loads(run(environment, "-m", "partita", "info", tmp_path / "run" / "model", "--json"))
    without = subprocess.run(
        [sys.executable, "-m", "partita", "info", tmp_path / "run" / "model"], capture_output=True, text=True
    )
    assert without.returncode == 2 and without.stderr.count("\n") == 1 and "softclip" in without.stderr


@pytest.mark.slow
def test_passes_its_own_tests(environment, tmp_path):
    tests = shutil.copytree(TEMPLATE / "tests", tmp_path / "tests")
    out = run(environment, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", tmp_path, tests)
    assert " passed" in out and "skipped" not in out
