"""Packages that `nox -s new -- package` writes: Partita finds their components once they are installed."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from partita_core import components

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "docs" / "templates"

sys.path.insert(0, str(TEMPLATES))
try:
    from new_component import main
    from roles import ROLES
finally:
    sys.path.remove(str(TEMPLATES))


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with a package for every role."""
    folder = tmp_path_factory.mktemp("packages")
    for role in ROLES:
        main(["package", role, f"own_{role}", "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def environment(packages, tmp_path_factory):
    """Environment variables of a process in which the packages are installed, in addition to the workspace."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    sources = [str(path) for path in packages.iterdir()]
    subprocess.run([*command, "--disable-pip-version-check", "--target", str(site), *sources], check=True)
    path = os.pathsep.join([str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(environment, *command):
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.parametrize("role", ROLES)
def test_package_has_the_requirements_of_this_repository(packages, role):
    project = tomllib.loads((packages / f"partita-own-{role}" / "pyproject.toml").read_text())["project"]
    core = tomllib.loads((ROOT / "packages" / "core" / "pyproject.toml").read_text())["project"]
    losses = tomllib.loads((ROOT / "packages" / "losses" / "pyproject.toml").read_text())["project"]
    known = {Requirement(text).name: Requirement(text) for text in [*losses["dependencies"], *core["dependencies"]]}
    for text in project["dependencies"]:
        requirement = Requirement(text)
        if requirement.name == "torch":
            assert requirement == known["torch"]
        else:
            assert requirement.specifier == known["partita-core"].specifier
    (group,) = project["entry-points"]
    assert group == ("partita.recipes" if role == "recipe" else "partita.components")
    assert (packages / f"partita-own-{role}" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_install_lines_of_the_readme_name_files_of_a_checkout(packages):
    text = (packages / "partita-own-loss" / "README.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("pip install") and "PARTITA" in line)
    patterns = re.findall(r'"\$PARTITA"/(\S+)', line)
    named = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
    projects = [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "integration" / "pyproject.toml"]
    assert named == {path.parent.relative_to(ROOT).as_posix() for path in projects} | {"constraints.txt"}
    assert '-c "$PARTITA"/constraints.txt' in line


def test_package_is_not_written_over_another(packages, tmp_path):
    before = {path: path.read_bytes() for path in packages.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match="partita-own-loss.*--output"):
        main(["package", "loss", "own_loss", "--output", str(packages)])
    assert before == {path: path.read_bytes() for path in packages.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match="partita_losses"):
        main(["package", "loss", "losses", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="'nothing'.*discriminator"):
        main(["package", "nothing", "own", "--output", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_component_is_unknown_without_its_package():
    assert "bottleneck/tanh" in components() and "bottleneck/own_bottleneck" not in components()


@pytest.mark.slow
def test_installed_components_are_listed_with_their_packages(environment):
    listed = json.loads(run(environment, "-m", "partita", "components", "*/own_*", "--json"))
    expected = {f"{role}/own_{role}": f"partita_own_{role}" for role in ROLES if role != "recipe"}
    assert {tag: facts["package"] for tag, facts in listed.items()} == expected


@pytest.mark.slow
def test_installed_components_train_on_the_command_line(environment, tmp_path):
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        soundfile.write(tmp_path / "data" / f"{i}.wav", rng.uniform(-0.3, 0.3, (50_000, 2)), 44_100)
    overrides = ["model.bottleneck=own_bottleneck", "model.bottleneck.initial_gain=0.5", "data.batch_size=2"]
    overrides += ["model.decoder=own_decoder", "objective.losses.own=own_loss", "objective.weights.own=1.0"]
    overrides += ["data.crop_seconds=0.2", "data.num_workers=0", "trainer.evaluate_seconds=0.5"]
    arguments = ["--data", tmp_path / "data", "--output", tmp_path / "run", "--steps", "2", *overrides]
    run(environment, "-m", "partita", "train", "own_recipe", *arguments)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["model"]["bottleneck"] == {"type": "bottleneck/own_bottleneck", "initial_gain": 0.5}
    assert config["model"]["decoder"]["type"] == "decoder/own_decoder"
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("own" in key for line in logged for key in line)
    assert json.loads(run(environment, "-m", "partita", "info", tmp_path / "run" / "model", "--json"))
    settings = ["--split", "train", "--seconds", "0.5", "--metrics", "own_metric", "--json", tmp_path / "found.json"]
    run(environment, "-m", "partita", "evaluate", tmp_path / "run" / "model", "--data", tmp_path / "data", *settings)
    assert "own_metric" in (tmp_path / "found.json").read_text()
    without = subprocess.run(
        [sys.executable, "-m", "partita", "info", tmp_path / "run" / "model"], capture_output=True, text=True
    )
    assert without.returncode == 2 and without.stderr.count("\n") == 1 and "own_" in without.stderr


@pytest.mark.slow
def test_tests_of_the_packages_pass(environment, packages):
    tests = [path / "tests" for path in packages.iterdir()]
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", packages]
    out = run(environment, "-m", "pytest", *options, *tests)
    assert int(out.split(" passed")[0].split()[-1]) > 15 * len(ROLES) and "skipped" not in out
