"""Texts of new components: templates with names filled in, and lists of the repository with one more entry."""

import ast
import keyword
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from roles import ROLES, Role

TEMPLATES = Path(__file__).resolve().parent
WIDTH = 120  # of a line


class NewError(SystemExit):
    """A component that cannot be written; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(f"new: {message}")


def check_names(role: str, name: str) -> Role:
    """Return the role called `role`, and check the name of a component.

    Raises:
        NewError: there is no such role, or the name is not a lower-case Python name.
    """
    if role not in ROLES:
        raise NewError(f"unknown role {role!r}; valid: {', '.join(ROLES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or keyword.iskeyword(name):
        raise NewError(f"{name!r} is not a name for a component; write it in lower case, as in noise_regularized")
    return ROLES[role]


def public_names(role: str, name: str) -> list[str]:
    """Names that a component exports: its class and Config class, or its function if it is a recipe."""
    if role == "recipe":
        return [name]
    made = "".join(part.capitalize() for part in name.split("_")) + ROLES[role].suffix
    return [made, f"{made}Config"] if ROLES[role].config else [made]


def fill(kind: str, role: str, name: str) -> str:
    """Text of a template of the folder `kind`, with the names of the component."""
    text = (TEMPLATES / kind / f"{role}.py").read_text(encoding="utf-8")
    return text.replace("Newcomer", public_names(role, name)[0]).replace("newcomer", name)


def with_sorted_imports(text: str, home: str = "") -> str:
    """Text of a module with its imports as ruff sorts them: standard library, others, the package `home`."""
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict[tuple[bool, str], set[str]] = {}
    for node in nodes:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        found = names.setdefault((isinstance(node, ast.ImportFrom), module), set())
        found |= {alias.name for alias in node.names}
    blocks: list[list[str]] = [[], [], []]
    for (is_from, module), found in sorted(names.items()):
        top = module.partition(".")[0]
        block = blocks[2 if top == home else 0 if top in sys.stdlib_module_names else 1]
        block.append(_import(module, found) if is_from else f"import {module}\n")
    lines = text.splitlines(keepends=True)
    lines[nodes[0].lineno - 1 : nodes[-1].end_lineno] = ["\n".join("".join(block) for block in blocks if block)]
    return "".join(lines)


def with_export(text: str, module: str, names: list[str]) -> str:
    """Text of an `__init__.py` with names from one of its modules, imported and listed in `__all__` if it has one."""
    lines, body = text.splitlines(keepends=True), ast.parse(text).body
    edits: list[tuple[int, int, str]] = []  # lines to replace, and the new text
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.level == 1]
    present = next((node for node in imports if node.module == module), None)
    if present is not None:
        statement = _import(f".{module}", [*names, *(alias.name for alias in present.names)])
        edits.append((present.lineno - 1, present.end_lineno or 0, statement))
    else:
        later = [node.lineno - 1 for node in imports if (node.module or "") > module]
        at = later[0] if later else imports[-1].end_lineno or 0
        edits.append((at, at, _import(f".{module}", names)))
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = sorted({*names, *ast.literal_eval(node.value)}, key=_order)
            listing = "".join(f'    "{entry}",\n' for entry in public)
            edits.append((node.lineno - 1, node.end_lineno or 0, f"__all__ = [\n{listing}]\n"))
    for start, end, new in sorted(edits, reverse=True):
        lines[start:end] = [new]
    return "".join(lines)


def with_entry(text: str, before: str, entry: str) -> str:
    """Text with a line added to the list that follows `before`: in order if the list is sorted, else at the end."""
    start = text.index(before) + len(before)
    rows = text[start:].splitlines(keepends=True)
    margin = rows[0][: len(rows[0]) - len(rows[0].lstrip())]
    first = rows[0][len(margin)]
    count = next(i for i, row in enumerate(rows) if not row.startswith(margin) or row.lstrip()[:1] in ("", *")]"))
    kept, rest = rows[:count], rows[count:]
    added = [*kept, f"{margin}{entry}\n"]
    return text[:start] + "".join([*(sorted(added) if kept == sorted(kept) and first != "|" else added), *rest])


def _import(module: str, names: Iterable[str]) -> str:
    names = sorted(set(names), key=_order)
    line = f"from {module} import {', '.join(names)}\n"
    if len(line) <= WIDTH + 1:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"


def _order(name: str) -> tuple[int, str]:
    """Ruff's order of names: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
