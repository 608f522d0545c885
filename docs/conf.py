"""Sphinx: MyST pages, the reference from docstrings, warnings as errors (see the session `docs`)."""

import re
import tomllib
from pathlib import Path

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


def setup(app):
    """A vertical bar outside of code is an absolute value, never a substitution."""

    def escape(app, what, name, obj, options, lines):
        lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or r"\|", line) for line in lines]

    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon
