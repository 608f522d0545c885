"""Tasks of a checkout. On a fresh machine: `python -m pip install nox && python -m nox -s tests`."""

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import nox
from nox.command import CommandFailed
from packaging.requirements import Requirement
from packaging.version import Version

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

# Variables that emulate an older processor, or a rounding that depends on shapes.
PROCESSORS = {
    "baseline": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",  # for Intel processors only; MKL_CBWR is for all
        "MKL_CBWR": "COMPATIBLE",
        "PARTITA_KERNELS": "none",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "MKL_CBWR": "AVX2",
        "PARTITA_KERNELS": "avx2",
    },
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "MKL_CBWR": "AVX512",
        "PARTITA_KERNELS": "avx512",
    },
    "threads": {"OMP_NUM_THREADS": "2"},
    "rounding": {"PYTHONPATH": str(ROOT / "tests"), "PYTEST_ADDOPTS": "-p rounding"},
}


def tools(*groups: str) -> tuple[str, ...]:
    """Requirements of dependency groups of the root `pyproject.toml`."""
    return nox.project.dependency_groups(TOOLS, *groups)


def install(session: nox.Session, *arguments: str) -> None:
    session.install("-c", str(CONSTRAINTS), *arguments)


def run(session: nox.Session, command: str, *arguments: str, **environment: str) -> None:
    """Run a command of the environment of the session `workspace`, from the root."""
    session.chdir(ROOT)
    path = os.pathsep.join([str(WORKSPACE_BIN), os.environ["PATH"]])
    session.run(
        str(WORKSPACE_BIN / command), *arguments, external=True, env={"PATH": path, "PYTHONPATH": None, **environment}
    )


def requirements(package: str, *, extras: bool = False) -> list[Requirement]:
    """Requirements that a package declares."""
    project = nox.project.load_toml(PACKAGES[package] / "pyproject.toml")["project"]
    optional = project.get("optional-dependencies", {}).values() if extras else []
    return [Requirement(line) for line in chain(project["dependencies"], *optional)]


def closure(package: str) -> list[str]:
    """The package, and all packages of this repository that it depends on."""
    names = [package]
    for name in names:  # grows during the iteration
        names += [r.name for r in requirements(name) if r.name in PACKAGES and r.name not in names]
    return names


def tested(package: str) -> list[str]:
    """Packages of this repository that the tests of a package need: its dependencies, and the conformance suites."""
    return sorted({*closure(package), *closure("partita-testing")})


def built(session: nox.Session, names: Iterable[str], scratch: str, pins: str) -> tuple[dict[str, Path], Path]:
    """Wheels of packages, built in `scratch`, and a constraints file of `pins` and these wheels."""
    sources = [str(PACKAGES[name]) for name in names]
    session.run(
        "pip", "wheel", "--quiet", "--no-deps", "-w", scratch, *sources, env={"PIP_CONSTRAINT": str(CONSTRAINTS)}
    )
    wheels = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in Path(scratch).glob("*.whl")}
    # The constraint makes pip take the built wheel for its name, never a package of an index.
    constraints = Path(scratch, "constraints.txt")
    constraints.write_text(pins + "".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    return wheels, constraints


def test_elsewhere(session: nox.Session, package: str, scratch: str, *arguments: str) -> None:
    """Run the tests of an installed package from `scratch`, where the checkout cannot be imported by accident."""
    session.chdir(scratch)
    session.run(
        "pytest",
        *("-c", str(ROOT / "pyproject.toml"), "--rootdir", scratch, "-p", "no:cacheprovider", "--slow", "all"),
        *(str(PACKAGES[package] / "tests"), *arguments),
        env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": None},
    )
    session.chdir(ROOT)


@nox.session(default=False)
def workspace(session: nox.Session) -> None:
    """Environment of the sessions below: all packages, editable, with all tools. Only changes are installed."""
    manifests = [CONSTRAINTS, ROOT / "pyproject.toml", *(path / "pyproject.toml" for path in PACKAGES.values())]
    state = hashlib.sha256(str(ROOT).encode() + b"".join(path.read_bytes() for path in manifests)).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed"
    if stamp.exists() and stamp.read_text() == state:
        session.log("up to date")
        return
    # Packages are built in this environment, instead of a new one for each build.
    install(session, *tools("build"))
    editable = [argument for path in PACKAGES.values() for argument in ("-e", str(path))]
    install(session, "--no-build-isolation", *editable, *tools("tests", "types", "docs", "lint"))
    try:
        install(session, *tools("compiled"))
    except CommandFailed:
        session.warn(f"tests that need these are skipped, since there is no compiler: {', '.join(tools('compiled'))}")
    stamp.write_text(state)


@nox.session(venv_backend="none", requires=["workspace"])
def demo(session: nox.Session) -> None:
    """Decode speech with a pretrained model, train one on synthesized music, and write runs/demo/report.html."""
    run(session, "partita", "demo", *session.posargs)


@nox.session(venv_backend="none", requires=["workspace"])
def tests(session: nox.Session) -> None:
    """Tests of the workspace but the slow ones, or those given by paths and options after `--`."""
    suite(session)


def suite(session: nox.Session, *default: str, **environment: str) -> None:
    """Run pytest with the arguments after `--`, else with `default`."""
    arguments = session.posargs or list(default)
    # One thread per process, so that processes do not compete for cores. Each process runs all tests of a file, so that
    # fixtures of modules are set up once.
    workers = ["-n", "logical", "--maxprocesses", "8", "--dist", "loadfile"]
    parallel = workers if arguments[:1] in ([], ["--slow"]) else []
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    run(session, "pytest", *parallel, *arguments, **environment)


@nox.session(venv_backend="none", requires=["workspace"], default=False)
@nox.parametrize("processor", [nox.param(name, id=name) for name in PROCESSORS])
def processors(session: nox.Session, processor: str) -> None:
    """All tests under emulated processors; those that this one cannot emulate are skipped."""
    info = Path("/proc/cpuinfo")
    if processor.startswith("avx") and not (info.exists() and f" {processor}" in info.read_text()):
        session.skip(f"the processor has no {processor}")
    suite(session, "--slow", "all", **PROCESSORS[processor])


@nox.session(venv_backend="none", requires=["workspace"], default=False)
def endurance(session: nox.Session) -> None:
    """Tests that take minutes, which `tests` leaves out."""
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run(session, "pytest", "-m", "endurance", *session.posargs, **environment)


@nox.session(venv_backend="none", requires=["workspace"])
def conformance(session: nox.Session) -> None:
    """Conformance suites of every registered component."""
    suites = sorted(str(path) for path in ROOT.glob("**/tests/test_*conformance.py") if ".nox" not in path.parts)
    run(session, "pytest", *suites, *session.posargs, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, for rules and format, and codespell, for American spelling."""
    install(session, *tools("lint"))
    session.run("codespell")
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
    """Benchmarks next to other libraries, in a separate environment; `-- --quick` is short, `-- NAME` runs one."""
    install(session, *(str(path) for path in PACKAGES.values()), *tools("peers"))
    # CC BY-NC: only run for comparison, with random weights. Its other dependencies are not needed.
    install(session, "--no-deps", "music2latent")
    session.chdir(ROOT)
    session.run("python", "benchmarks/suite.py", *session.posargs, env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": None})


@nox.session(name="install", reuse_venv=False, default=False)
def install_alone(session: nox.Session) -> None:
    """Install each package alone as in its README, with pip from the last commit and from built wheels, and test it."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels, pins = built(session, PACKAGES, scratch, CONSTRAINTS.read_text())
        for package in session.posargs or PACKAGES:
            readme = (PACKAGES[package] / "README.md").read_text(encoding="utf-8")
            printed = readme.split("\npip install ")[1].split("```")[0]
            from_git = shlex.split(printed.replace("\\\n", " ").replace("$PARTITA", ROOT.as_uri()))
            for form in (["-c", str(CONSTRAINTS), *from_git], ["-c", str(pins), str(wheels[package])]):
                session.run("pip", "uninstall", "--quiet", "--yes", *PACKAGES, silent=True)
                session.install("--quiet", *form)
                session.run("pip", "check", silent=True)
                session.chdir(scratch)  # where the checkout cannot be imported by accident
                session.run("python", "-c", f"import {package.replace('-', '_')}")
                session.chdir(ROOT)
    shutil.rmtree(session.virtualenv.location)


@nox.session(reuse_venv=False, default=False)
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def isolated(session: nox.Session, package: str) -> None:
    """Test one package from its wheel, with nothing installed but what it declares, outside the checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels, pins = built(session, tested(package), scratch, CONSTRAINTS.read_text())
        session.install("-c", str(pins), *(str(wheel) for wheel in wheels.values()), *tools("tests"))
        versions = {name: wheel.name.split("-")[1] for name, wheel in wheels.items()}
        check = (
            "from importlib.metadata import distributions as d;"
            "found = {x.name: x.version for x in d() if x.name.split('-')[0] == 'partita'};"
            f"assert found == {versions!r}, found"
        )
        session.chdir(scratch)
        session.run("python", "-c", check)
        test_elsewhere(session, package, scratch, *session.posargs)
    shutil.rmtree(session.virtualenv.location)  # a gigabyte per package; that of a failed one is kept for inspection


def lowest(package: str) -> dict[str, str]:
    """Lowest versions declared by a package with its extras, and by the packages of this repository that it needs."""
    found: dict[str, str] = {}
    for requirement in chain.from_iterable(requirements(name, extras=name == package) for name in tested(package)):
        name = requirement.name
        if name not in PACKAGES and (requirement.marker is None or requirement.marker.evaluate()):
            (floor,) = (part.version for part in requirement.specifier if part.operator == ">=")
            found[name] = max(found.get(name, floor), floor, key=Version)
    return found


@nox.session(default=False)
def floors(session: nox.Session) -> None:
    """Test packages (all, or those after `--`) from their wheels, with the lowest versions that they declare.

    They share one environment, since the torch that comes with an old version's CUDA libraries has five gigabytes.
    """
    # Tools have the versions of constraints.txt; pip resolves the dependencies of the lowest versions.
    undeclared = [tool for tool in tools("tests") if Requirement(tool).name not in lowest("partita")]
    names = {Requirement(tool).name for tool in undeclared}
    pinned = [line for line in CONSTRAINTS.read_text().splitlines() if line.split("==")[0] in names]
    for package in session.posargs or PACKAGES:
        floor = lowest(package)
        pins = [*pinned, *(f"{name}=={version}" for name, version in floor.items())]
        with tempfile.TemporaryDirectory() as scratch:
            wheels, constraints = built(session, tested(package), scratch, "".join(f"{pin}\n" for pin in pins))
            session.run("pip", "uninstall", "--quiet", "--yes", *PACKAGES, silent=True)
            session.install("-c", str(constraints), *(str(wheel) for wheel in wheels.values()), *undeclared, *floor)
            # Old versions cause deprecation warnings of newer dependencies.
            quiet = (f"-Wdefault::{warning}" for warning in ("DeprecationWarning", "FutureWarning"))
            test_elsewhere(session, package, scratch, *quiet)


@nox.session(venv_backend="none", default=False)
def ci_full(session: nox.Session) -> None:
    """Everything: lint, types, all tests with the slow ones, docs and all isolated packages."""
    for name in ("lint", "workspace", "types"):
        session.notify(name)
    session.notify("tests", ["--slow", "all"])
    for name in ("docs", *(f"isolated({package})" for package in PACKAGES)):
        session.notify(name)


@nox.session(venv_backend="none", default=False)
def new(session: nox.Session) -> None:
    """Write a new component, by `-- ROLE NAME`, or a new package, by `-- package ROLE NAME [--output DIR]`."""
    session.run(sys.executable, str(ROOT / "docs/templates/new_component.py"), *session.posargs, external=True)
