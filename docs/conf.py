"""Sphinx: MyST pages, the reference from docstrings, warnings as errors (see the session `docs`)."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from partita_core import components

project = "Partita"
author = "The Partita authors"
copyright = author
_manifest = Path(__file__).parents[1] / "packages" / "core" / "pyproject.toml"
release = tomllib.loads(_manifest.read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
default_role = "code"  # docstrings write code in single backticks
exclude_patterns = ["_build", "templates"]
html_theme = "furo"
html_title = f"Partita {release}"

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses are described in the class, once

_REFERENCE = """```{{include}} ../../{folder}/README.md
```

## Reference

{modules}"""
_ROLE = """# {role}

| name | what it is | settings |
|---|---|---|
{rows}

`partita components {role} --json` prints the defaults; [Add a component](../add_a_component.md) describes the role.
"""
_MODULE = """### {name}

```{{eval-rst}}
.. automodule:: {name}
```

"""


def _write_reference() -> None:
    """Write a page per package: its README, and its public modules from their docstrings."""
    root, pages = Path(__file__).parents[1], Path(__file__).parent / "packages"
    pages.mkdir(exist_ok=True)
    for manifest in [*root.glob("packages/*/pyproject.toml"), root / "integration" / "pyproject.toml"]:
        folder, source = manifest.parent, manifest.parent / "src"
        names = (path.relative_to(source).with_suffix("").parts for path in sorted(source.rglob("*.py")))
        public = [".".join(parts) for parts in names if not any(part.startswith("_") for part in parts)]
        # The commands are described where their users look: by --help, and in the README.
        public = [name for name in public if not name.startswith("partita.cli")]
        page = pages / f"{'partita' if folder.name == 'integration' else folder.name}.md"
        text = _REFERENCE.format(
            folder=folder.relative_to(root).as_posix(), modules="".join(_MODULE.format(name=name) for name in public)
        )
        if not page.exists() or page.read_text(encoding="utf-8") != text:  # unchanged pages are not built again
            page.write_text(text, encoding="utf-8")


def _write_components() -> None:
    """Write a page per role: its registered components, with the first line of their docstrings and their settings."""
    roles: dict[str, list[str]] = {}
    for tag, config in components().items():
        role, _, name = tag.partition("/")
        if name and config.__module__.partition(".")[0].startswith("partita"):
            cls = getattr(config, "component", config)
            about = (cls.__doc__ or "").strip().splitlines()[0].replace("|", r"\|")
            settings = ", ".join(f"`{one.name}`" for one in fields(config))  # pyright: ignore[reportArgumentType]
            row = f"| {{py:class}}`{name} <{cls.__module__}.{cls.__qualname__}>` | {about} | {settings} |"
            roles.setdefault(role, []).append(row)
    folder = Path(__file__).parent / "components"
    folder.mkdir(exist_ok=True)
    for role, rows in roles.items():
        page, text = folder / f"{role}.md", _ROLE.format(role=role, rows="\n".join(rows))
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
    for page in folder.glob("*.md"):
        if page.stem not in roles:
            page.unlink()


_write_reference()
_write_components()


def setup(app):
    """A vertical bar outside of code is an absolute value, never a substitution."""

    def escape(app, what, name, obj, options, lines):
        lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or r"\|", line) for line in lines]

    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon
