"""Package with one component, to install next to Partita: no file of this repository names it."""

import ast
import tomllib
from pathlib import Path

from texts import NewError, check_names, fill, public_names, with_sorted_imports

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "partita-{dashed}"
version = "0.1.0"
description = "{title}"
readme = "README.md"
requires-python = ">=3.11"
license = "Apache-2.0"
license-files = ["LICENSE"]
dependencies = [
{dependencies}]

[project.optional-dependencies]
tests = ["partita-testing{sibling}", "pytest>=8"]

# Partita finds the component by this entry point.
[project.entry-points."{group}"]
{entry}

[tool.hatch.build.targets.wheel]
packages = ["src/partita_{name}"]

[tool.pytest.ini_options]
testpaths = ["tests"]
filterwarnings = ["error"]
"""

README = """\
# partita-{dashed}

{title}

## Install

In a new environment of Python 3.11, with `PARTITA` the folder of a checkout of Partita:

```
pip install -c "$PARTITA"/constraints.txt "$PARTITA"/packages/* "$PARTITA"/integration
pip install -e '.[tests]'
pytest
```

## Use

```
{use}
```

```python
from partita_{name} import {made}
```

## What to change

1. `src/partita_{name}/{name}.py`: the {role}. {settings}
2. `tests/test_{name}.py`: values that a person can check.{conformance}
3. `pyproject.toml`: description and dependencies. Its entry point makes the {role} known; `{listing}` shows it.

## License

Apache-2.0, as Partita itself: `LICENSE`. For another one, change that file and `license` in `pyproject.toml`.
"""

CONFORMANCE = '''\
"""Conformance of {role}/{name}, and its entry point."""

import pytest
from partita_core import components
from partita_testing import {suite}
from partita_{name} import {config}


def test_is_announced_by_its_entry_point():
    assert list(components("{role}/{name}").values()) == [{config}]


@pytest.mark.parametrize("check", {suite})
def test_conformance(check):
    check({config}.example())
'''

_SETTINGS = "The keyword-only parameters of its constructor are its settings."
_FIELDS = "The fields of its dataclass are its settings."


def package_texts(root: Path, output: Path, role: str, name: str) -> dict[Path, str]:
    """Files of a new package with a component of a role.

    Args:
        root: checkout of this repository, for versions and the license.
        output: folder in which the folder of the package is made.
        role: role of the component.
        name: name of the component; the package is `partita-NAME`.

    Raises:
        NewError: the folder exists, or the names cannot be used.
    """
    home = check_names(role, name)
    dashed = name.replace("_", "-")
    folder = output / f"partita-{dashed}"
    if folder.exists():
        raise NewError(f"{folder} exists; choose another name, or another folder by --output")
    if f"partita_{name}" in {path.name for path in root.glob("packages/*/src/*")}:
        raise NewError(f"partita_{name} is a package of Partita; choose another name")

    public = public_names(role, name)
    source = with_sorted_imports(fill("sources", role, name))
    title = ast.get_docstring(ast.parse(source)) or ""
    sibling, torch = _requirements(root)
    required = [f"{distribution}{sibling}" for distribution in home.distributions] + [torch] * (role != "recipe")
    if role == "recipe":
        group, entry = "partita.recipes", f'{name} = "partita_{name}:{name}"'
    else:
        group, entry = "partita.components", f'partita_{name} = "partita_{name}"'
    values = {
        "name": name,
        "dashed": dashed,
        "role": role,
        "made": public[0],
        "title": title,
        "dependencies": "".join(f'    "{requirement}",\n' for requirement in required),
        "sibling": sibling,
        "group": group,
        "entry": entry,
        "use": home.use.replace("NAME", name),
        "settings": "" if role == "recipe" else _SETTINGS if home.config and role != "objective" else _FIELDS,
        "conformance": f" `tests/test_{name}_conformance.py` stays as it is." if home.suite else "",
        "listing": f"partita info {name}" if role == "recipe" else f"partita components '{role}/*'",
        "suite": home.suite,
        "config": public[-1],
    }
    package = folder / "src" / f"partita_{name}"
    exports = ", ".join(public)
    listed = ", ".join(f'"{one}"' for one in public)
    texts = {
        folder / "pyproject.toml": PYPROJECT.format(**values),
        folder / "README.md": README.format(**values),
        folder / "LICENSE": (root / "LICENSE").read_text(encoding="utf-8"),
        package / "__init__.py": f'"""{title}"""\n\nfrom .{name} import {exports}\n\n__all__ = [{listed}]\n',
        package / f"{name}.py": source,
        package / "py.typed": "",
        folder / "tests" / f"test_{name}.py": with_sorted_imports(fill("tests", role, name)),
    }
    if home.suite:
        conformance = with_sorted_imports(CONFORMANCE.format(**values))
        texts[folder / "tests" / f"test_{name}_conformance.py"] = conformance
    return texts


def _requirements(root: Path) -> tuple[str, str]:
    """Range of versions of Partita's packages, and the lowest torch, as partita-core declares them."""
    project = tomllib.loads((root / "packages" / "core" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    major, minor = project["version"].split(".")[:2]
    torch = next(text for text in project["dependencies"] if text.startswith("torch"))
    return f">={major}.{minor},<{major}.{int(minor) + 1}", torch
