"""Rules of the repository: versions, imports between packages, public names, docstrings, and forbidden content."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from partita_core import components

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [*sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml")), ROOT / "integration"]
IMPORTS = {"partita" if path.name == "integration" else f"partita_{path.name}": path for path in FOLDERS}
LEAVES = sorted(IMPORTS.keys() - {"partita_core", "partita_testing", "partita_blocks", "partita_pretrained", "partita"})
MAY_IMPORT = {
    "partita_core": set(),
    "partita_testing": {"partita_core"},
    "partita_blocks": {"partita_core"},
    "partita_pretrained": set(),
    **{leaf: {"partita_core", "partita_blocks"} for leaf in LEAVES},
    "partita": IMPORTS.keys() - {"partita_testing"},
}
# Packages that may import libraries which are slow to import or large.
HEAVY = {
    "accelerate": {"partita"},
    "datasets": {"partita"},
    "transformers": {"partita", "partita_representation"},
    "diffusers": {"partita"},
    "vector_quantize_pytorch": {"partita_quantizers", "partita"},
    "huggingface_hub": {"partita_core", "partita"},
}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "vector_quantize_pytorch": "vector-quantize-pytorch",
    "visqol": "visqol-python",
}


@cache
def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


@cache
def imports(package: str) -> list[tuple[Path, int, str, bool]]:
    """(file, line, top-level module, inside a function) for each absolute import in the sources of a package."""
    found = []
    for path in sorted((IMPORTS[package] / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(), str(path))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        late = {id(inner) for function in functions for inner in ast.walk(function)}
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found += [(path, node.lineno, name.split(".")[0], id(node) in late) for name in names]
    return found


def tracked_files() -> list[Path]:
    """Tracked files and untracked files that are not ignored; without git, all files that are not hidden or built."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        built = {"_build", "build", "dist", "runs", "__pycache__"}
        files = [path for path in ROOT.rglob("*") if not built & set(path.relative_to(ROOT).parts)]
        files = [path for path in files if not any(part[0] == "." for part in path.relative_to(ROOT).parts)]
    return sorted(path for path in files if path.is_file())


# ------------------------------------------------------------------ versions


def test_every_package_is_found():
    assert {"partita", "partita_core", "partita_blocks"} < set(IMPORTS)
    assert len(LEAVES) >= 5


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_distribution_and_import_names_agree(folder):
    name = next(name for name, path in IMPORTS.items() if path == folder)
    assert project(folder)["name"] == name.replace("_", "-")
    assert (folder / "src" / name / "__init__.py").is_file()
    assert (folder / "src" / name / "py.typed").is_file()
    assert (folder / "README.md").is_file()
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert project(folder)["license-files"] == sorted(path.name for path in folder.glob("LICENSE*"))


def test_one_version():
    versions = {project(folder)["version"] for folder in FOLDERS}
    assert len(versions) == 1
    version = versions.pop()
    assert re.findall(r"^ *version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [version] * 2
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_siblings_are_required_by_compatible_ranges(folder):
    major, minor = project(FOLDERS[0])["version"].split(".")[:2]
    siblings = [Requirement(text) for text in project(folder)["dependencies"] if text.startswith("partita")]
    expected = {f">={major}.{minor}", f"<{major}.{int(minor) + 1}"}
    for requirement in siblings:
        assert {str(part) for part in requirement.specifier} == expected, requirement


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_other_requirements_are_floors_without_exact_pins(folder):
    for text in project(folder)["dependencies"]:
        requirement = Requirement(text)
        assert any(part.operator == ">=" for part in requirement.specifier), text
        assert not any(part.operator in ("==", "===", "~=") for part in requirement.specifier), text


def test_constraints_pin_every_requirement_to_a_version_it_accepts():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["torch"] == "2.13.0"
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    texts = [text for folder in FOLDERS for text in project(folder)["dependencies"]]
    for text in [*texts, *(text for group in groups.values() for text in group)]:
        requirement = Requirement(text)
        if not requirement.name.startswith("partita"):
            assert requirement.specifier.contains(pins[requirement.name.lower()]), text


# ------------------------------------------------------------------ imports


@pytest.mark.parametrize("package", sorted(IMPORTS))
def test_packages_import_only_what_the_architecture_allows(package):
    allowed = MAY_IMPORT[package] | {package}
    wrong = [(path.name, line, name) for path, line, name, _ in imports(package) if name.startswith("partita")]
    assert [entry for entry in wrong if entry[2] not in allowed] == []


@pytest.mark.parametrize("package", sorted(IMPORTS))
def test_heavy_libraries_stay_where_they_belong(package):
    for path, line, name, late in imports(package):
        if name in HEAVY:
            assert package in HEAVY[name], f"{path.name}:{line} imports {name}"
            assert late or package == "partita", f"{path.name}:{line} imports {name} before it is needed"


@pytest.mark.parametrize("package", sorted(IMPORTS))
def test_every_import_is_declared(package):
    facts = project(IMPORTS[package])
    extras = [text for group in facts.get("optional-dependencies", {}).values() for text in group]
    declared = {Requirement(text).name.lower() for text in [*facts["dependencies"], *extras]}
    for path, line, name, _ in imports(package):
        if name not in sys.stdlib_module_names and name != package:
            distribution = DISTRIBUTIONS.get(name, name.replace("_", "-"))
            assert distribution in declared, f"{path.name}:{line} imports {name}, which is not declared"


IMPORTED = """
import importlib, os, sys, torch
before = set(sys.modules)
for package in sys.argv[1:]:
    if not os.fork():  # each has torch, and nothing that another brought
        importlib.import_module(package)
        print(package, *(set(sys.modules) - before), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.slow
def test_import_costs_little_over_torch():
    """Modules are counted instead of seconds, which depend on the load of the machine."""
    command = [sys.executable, "-c", IMPORTED, *IMPORTS]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    # The last one is part of torch; einops has five small modules.
    known = {*IMPORTS, *sys.stdlib_module_names, "torch", "einops", "_remote_module_non_scriptable"}
    foreign = {
        package: [name for name in names if name.split(".")[0] not in known]
        for package, *names in map(str.split, lines)
    }
    assert foreign == dict.fromkeys(IMPORTS, [])
    others = [[name for name in line.split() if name.split(".")[0] not in IMPORTS] for line in lines]
    assert max(map(len, others)) <= 30  # modules of the standard library, torch and einops


@pytest.mark.slow
def test_model_loading_imports_no_adapters():
    command = [sys.executable, "-c", IMPORTED, "partita.model_loading"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "partita_representation" in names
    foreign = {"transformers", "diffusers", "datasets", "accelerate"} & set(names)
    assert not foreign and not [name for name in names if name.startswith("partita.interop")]


def internal_imports(package: str) -> dict[str, set[str]]:
    """Modules of a package -> modules of the same package that each imports, also inside functions."""
    source = IMPORTS[package] / "src"
    files = {}
    for path in (source / package).rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for name, path in files.items():
        base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                above = base[: len(base) - node.level + 1] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    targets.add(f"{module}.{alias.name}" if f"{module}.{alias.name}" in files else module)
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        found[name] = targets & files.keys() - {name}
    return found


@pytest.mark.parametrize("package", sorted(IMPORTS))
def test_modules_and_folders_import_each_other_in_one_direction(package):
    modules = internal_imports(package)
    top = {name: name.split(".")[1] for name in modules if "." in name}
    folders: dict[str, set[str]] = {}
    for name, targets in modules.items():
        if name in top:
            folders.setdefault(top[name], set()).update({top[one] for one in targets & top.keys()} - {top[name]})
    # The package itself imports all of its modules.
    parts = {name: targets - {package} for name, targets in modules.items() if name != package}
    for graph in (folders, parts):
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


# ------------------------------------------------------------------ public names


@pytest.mark.parametrize("package", sorted(IMPORTS))
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert len(set(names)) == len(names) > 0
    for name in names:
        value = getattr(module, name)
        if callable(value) and getattr(value, "__module__", "").startswith("partita"):
            assert (value.__doc__ or "").strip(), f"{package}.{name} has no docstring"
            # The default docstring of a dataclass is its signature.
            assert not value.__doc__.startswith(f"{name}("), f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", sorted(IMPORTS))
def test_names_imported_by_the_package_are_public(package):
    source = (IMPORTS[package] / "src" / package / "__init__.py").read_text()
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom) and node.level]
    names = {alias.asname or alias.name for node in nodes for alias in node.names}
    assert names <= set(importlib.import_module(package).__all__)


def test_every_metric_is_on_the_page_of_evaluation():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    found = components("metric/*").items()
    names = [tag.split("/")[1] for tag, config in found if config.__module__.startswith("partita.")]
    assert [name for name in names if f"`{name}`" not in page] == []


# ------------------------------------------------------------------ files

# Written in parts, so that this file does not match.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?:^|[^.\w])/(?:" + "work|farm|home|Users|tmp" + r")/[\w.]", re.MULTILINE),
    "a package index": re.compile("pypi" + r"\.org|python" + "hosted|/simple" + r"/|download\.py" + "torch"),
    "a leftover": re.compile("TO" + r"DO|FIX" + "ME|XX" + r"X\b"),
}
TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".cff", ".json", ".yml", ".yaml", ".svg", ".css", ".html", ""}


def test_no_file_contains_local_paths_or_leftovers():
    found = []
    for path in tracked_files():
        if path.suffix in TEXT and path.name != "LICENSE":
            text = path.read_text()
            found += [
                f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {what}"
                for what, pattern in FORBIDDEN.items()
                for match in pattern.finditer(text)
            ]
    assert found == []


def test_docstrings_begin_with_a_noun_or_an_imperative():
    found = []
    for path in tracked_files():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    word = (ast.get_docstring(node) or "").split(" ", 1)[0]
                    if word in ("What", "Whether", "How", "Of", "Where", "Who", "Which"):
                        found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: begins with {word}")
    assert found == []


def test_source_files_are_short():
    sizes = {path: path.read_text().count("\n") for path in tracked_files() if path.suffix == ".py"}
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > 500} == {}


def test_no_large_files():
    """The weights of pretrained models are limited by a test of their package."""
    weights = set(IMPORTS["partita_pretrained"].glob("src/partita_pretrained/models/*/model.safetensors"))
    assert [path for path in tracked_files() if path not in weights and path.stat().st_size > 1024 * 1024] == []


def test_test_files_have_unique_names():
    names = [path.name for path in tracked_files() if path.name.startswith("test_") and path.suffix == ".py"]
    assert sorted(names) == sorted(set(names))
