"""What can be run on a checkout. On a fresh machine: `python -m pip install nox && python -m nox -s tests`."""

import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"
TOOLS = nox.project.load_toml(ROOT / "pyproject.toml")
PACKAGES = {
    nox.project.load_toml(manifest)["project"]["name"]: manifest.parent
    for manifest in [*sorted(ROOT.glob("packages/*/pyproject.toml")), ROOT / "integration" / "pyproject.toml"]
}
WORKSPACE_BIN = ROOT / ".nox" / "workspace" / ("Scripts" if os.name == "nt" else "bin")


def tools(*groups: str) -> tuple[str, ...]:
    """The requirements of dependency groups of the root `pyproject.toml`."""
    return nox.project.dependency_groups(TOOLS, *groups)


def install(session: nox.Session, *arguments: str) -> None:
    session.install("-c", str(CONSTRAINTS), *arguments)


def run(session: nox.Session, command: str, *arguments: str, **environment: str) -> None:
    """Runs a command of the environment that the session `workspace` keeps, from the root."""
    session.chdir(ROOT)
    path = os.pathsep.join([str(WORKSPACE_BIN), os.environ["PATH"]])
    session.run(
        str(WORKSPACE_BIN / command), *arguments, external=True, env={"PATH": path, "PYTHONPATH": None, **environment}
    )


def built(session: nox.Session, names: Iterable[str], scratch: str) -> tuple[dict[str, Path], Path]:
    """Wheels of packages, built in `scratch`, and constraints that hold their names to them."""
    sources = [str(PACKAGES[name]) for name in names]
    session.run(
        "pip", "wheel", "--quiet", "--no-deps", "-w", scratch, *sources, env={"PIP_CONSTRAINT": str(CONSTRAINTS)}
    )
    wheels = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in Path(scratch).glob("*.whl")}
    # As a constraint, the built sibling is what its name means; no index can put another in its place.
    pins = Path(scratch, "constraints.txt")
    pins.write_text(CONSTRAINTS.read_text() + "".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    return wheels, pins


@nox.session(default=False)
def workspace(session: nox.Session) -> None:
    """All packages, editable, with all tools: the environment of the sessions below. Installs only what changed."""
    manifests = [CONSTRAINTS, ROOT / "pyproject.toml", *(path / "pyproject.toml" for path in PACKAGES.values())]
    state = hashlib.sha256(str(ROOT).encode() + b"".join(path.read_bytes() for path in manifests)).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed"
    if stamp.exists() and stamp.read_text() == state:
        session.log("up to date")
        return
    # Our packages are built with what is installed here: one environment instead of one for each build.
    install(session, *tools("build"))
    editable = [argument for path in PACKAGES.values() for argument in ("-e", str(path))]
    install(session, "--no-build-isolation", *editable, *tools("tests", "types", "docs", "lint"))
    stamp.write_text(state)


@nox.session(venv_backend="none", requires=["workspace"])
def demo(session: nox.Session) -> None:
    """The main job on made music: trains, encodes, decodes and writes runs/demo/report.html."""
    run(session, "partita", "demo", *session.posargs)


@nox.session(venv_backend="none", requires=["workspace"])
def tests(session: nox.Session) -> None:
    """The tests of the whole workspace, or of the paths and options given after `--`."""
    # Each process is one thread wide, so that two of them do not fight for two cores.
    parallel = [] if session.posargs else ["-n", "logical", "--maxprocesses", "8"]
    run(session, "pytest", *parallel, *session.posargs, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


@nox.session(venv_backend="none", requires=["workspace"], default=False)
def endurance(session: nox.Session) -> None:
    """The tests that take minutes and that `tests` leaves out."""
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run(session, "pytest", "-m", "endurance", *session.posargs, **environment)


@nox.session(venv_backend="none", requires=["workspace"])
def conformance(session: nox.Session) -> None:
    """The conformance suites over every registered component."""
    suites = sorted(str(path) for path in ROOT.glob("**/tests/test_*conformance.py") if ".nox" not in path.parts)
    run(session, "pytest", *suites, *session.posargs, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    install(session, *tools("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none", requires=["workspace"])
def types(session: nox.Session) -> None:
    """Pyright over the packages."""
    run(session, "pyright", "--pythonpath", str(WORKSPACE_BIN / "python"), *session.posargs)


@nox.session(venv_backend="none", requires=["workspace"])
def docs(session: nox.Session) -> None:
    """The documentation, in docs/_build/html; a warning is an error."""
    run(session, "sphinx-build", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Side by side with the peers, in an environment of their own; `-- --quick` sees that all run, `-- NAME` one."""
    install(session, *(str(path) for path in PACKAGES.values()), *tools("peers"))
    # Its network is run with random weights and nothing of it is taken (CC BY-NC); the rest of what it asks for is not.
    install(session, "--no-deps", "music2latent")
    session.chdir(ROOT)
    session.run("python", "benchmarks/suite.py", *session.posargs, env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": None})


@nox.session(name="install", reuse_venv=False, default=False)
def install_alone(session: nox.Session) -> None:
    """Each package alone, as its README says it with pip, from this checkout's last commit, and from built wheels."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels, pins = built(session, PACKAGES, scratch)
        for package in session.posargs or PACKAGES:
            readme = (PACKAGES[package] / "README.md").read_text(encoding="utf-8")
            printed = readme.split("\npip install ")[1].split("```")[0]
            from_git = shlex.split(printed.replace("\\\n", " ").replace("$PARTITA", ROOT.as_uri()))
            for form in (["-c", str(CONSTRAINTS), *from_git], ["-c", str(pins), str(wheels[package])]):
                session.run("pip", "uninstall", "--quiet", "--yes", *PACKAGES, silent=True)
                session.install("--quiet", *form)
                session.run("pip", "check", silent=True)
                session.chdir(scratch)  # where no checkout can be imported by chance
                session.run("python", "-c", f"import {package.replace('-', '_')}")
                session.chdir(ROOT)
    shutil.rmtree(session.virtualenv.location)


@nox.session(reuse_venv=False, default=False)
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def isolated(session: nox.Session, package: str) -> None:
    """One package from its wheel: nothing but what it declares is installed, and its tests run elsewhere."""
    closure = [package]
    for name in closure:  # grows while it is walked
        declared = nox.project.load_toml(PACKAGES[name] / "pyproject.toml")["project"]["dependencies"]
        siblings = [re.split(r"[^\w-]", requirement)[0] for requirement in declared]
        closure += [sibling for sibling in siblings if sibling in PACKAGES and sibling not in closure]
    with tempfile.TemporaryDirectory() as scratch:
        wheels, pins = built(session, closure, scratch)
        session.install("-c", str(pins), str(wheels[package]), *tools("tests"))
        versions = {name: wheel.name.split("-")[1] for name, wheel in wheels.items()}
        check = (
            "from importlib.metadata import distributions as d;"
            "found = {x.name: x.version for x in d() if x.name.split('-')[0] == 'partita'};"
            f"assert found == {versions!r}, found"
        )
        session.chdir(scratch)
        session.run("python", "-c", check)
        session.run(
            "pytest",
            *("-c", str(ROOT / "pyproject.toml"), "--rootdir", scratch, "-p", "no:cacheprovider"),
            *(str(PACKAGES[package] / "tests"), *session.posargs),
            env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": None},
        )
    shutil.rmtree(session.virtualenv.location)  # a gigabyte a package; one that failed stays to be looked at


@nox.session(venv_backend="none", default=False)
def ci_full(session: nox.Session) -> None:
    """Everything, as before an issue is closed: lint, types, tests, conformance, docs and all isolated packages."""
    for name in ("lint", "workspace", "types", "tests", "conformance", "docs"):
        session.notify(name)
    for package in PACKAGES:
        session.notify(f"isolated({package})")


@nox.session(venv_backend="none", default=False)
def new(session: nox.Session) -> None:
    """`-- ROLE NAME`: writes file, export, conformance entry and docs page of a new component."""
    session.run(sys.executable, str(ROOT / "docs/templates/new_component.py"), *session.posargs, external=True)
