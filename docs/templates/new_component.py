"""Writes a new component: its file, its export, its entry in the conformance test and its page in the documentation.

Called as `nox -s new -- ROLE NAME`. What it writes is a small component that works, from `components/ROLE.py` beside
this file, in which it is called Newcomer.
"""

import argparse
import ast
import keyword
import re
import sys
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent / "components"
ROLES = sorted(path.stem for path in TEMPLATES.glob("*.py"))


def with_export(text: str, name: str, class_name: str) -> str:
    """The text of an `__init__.py` with the import of `name` and its two public names, each in its place."""
    lines, tree = text.splitlines(keepends=True), ast.parse(text)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1]
    listing = next(
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node).startswith("__all__")
    )
    public = ast.literal_eval(ast.unparse(listing).removeprefix("__all__ = "))
    for new in (class_name, f"{class_name}Config"):
        # Names all in capitals, such as VAE, lead the list and are passed over.
        later = [at for at, other in enumerate(public) if not other.isupper() and other > new]
        public.insert(later[0] if later else len(public), new)
    entries = "".join(f'    "{entry}",\n' for entry in public)
    lines[listing.lineno - 1 : listing.end_lineno] = [f"__all__ = [\n{entries}]\n"]
    later = [node.lineno - 1 for node in imports if node.module > name]
    lines.insert(
        later[0] if later else imports[-1].end_lineno, f"from .{name} import {class_name}, {class_name}Config\n"
    )
    return "".join(lines)


def with_entry(text: str, tag: str) -> str:
    """The text of a conformance test with an entry for `tag`, in its place."""
    start = text.index("COMPONENTS = [\n") + len("COMPONENTS = [\n")
    end = text.index("]\n", start)
    entries = sorted([*text[start:end].splitlines(keepends=True), f'    "{tag}",\n'])
    return text[:start] + "".join(entries) + text[end:]


def write_component(root: Path, role: str, name: str) -> list[Path]:
    """Writes all that belongs to a component called `role/name` into the checkout at `root` and names the files."""
    if role not in ROLES:
        raise SystemExit(f"new: unknown role {role!r}; valid: {', '.join(ROLES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name) or keyword.iskeyword(name):
        raise SystemExit(f"new: {name!r} is no name for a component; write it in lower case, as in noise_regularized")
    plural = "losses" if role == "loss" else f"{role}s"
    package, folder = f"partita_{plural}", root / "packages" / plural
    class_name = "".join(part.capitalize() for part in name.split("_"))
    class_name += role.capitalize() if role in ("encoder", "decoder") else ""  # they come in pairs of one name
    source = folder / "src" / package / f"{name}.py"
    exports = source.with_name("__init__.py")
    suite = folder / "tests" / f"test_{plural}_conformance.py"
    page = root / "docs" / "components" / f"{role}_{name}.md"
    listed = exports.read_text()
    if source.exists() or page.exists() or re.search(rf"\b{class_name}\b", listed):
        raise SystemExit(f"new: {package} has a {name} already")

    # All texts are made before the first is written: a checkout that does not fit is left as it is.
    texts = {
        source: (TEMPLATES / f"{role}.py").read_text().replace("Newcomer", class_name).replace("newcomer", name),
        exports: with_export(listed, name, class_name),
        suite: with_entry(suite.read_text(), f"{role}/{name}"),
        page: f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {package}.{name}\n```\n",
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(texts)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="new", description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("name", help="in lower case, as in noise_regularized")
    arguments = parser.parse_args()
    root = TEMPLATES.parents[2]
    for path in write_component(root, arguments.role, arguments.name):
        sys.stdout.write(f"{path.relative_to(root)}\n")


if __name__ == "__main__":
    main()
