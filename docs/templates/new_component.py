"""Write a new component, into this repository or as a package of its own.

    nox -s new -- ROLE NAME
    nox -s new -- package ROLE NAME [--output FOLDER]

A component in this repository is its source file, its exports, its entry in the list of components of its role, and a
test. Everything that is written works and passes the tests: it is made from `sources/ROLE.py` and `tests/ROLE.py` next
to this file, in which the component is called Newcomer.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

from new_package import package_texts
from roles import ROLES
from texts import NewError, check_names, fill, public_names, with_entry, with_export, with_sorted_imports

TEMPLATES = Path(__file__).resolve().parent


def component_texts(root: Path, role: str, name: str) -> dict[Path, str]:
    """Files of a new component in the repository at `root`, with their new texts.

    Raises:
        NewError: the component exists, or its names cannot be used.
    """
    home = check_names(role, name)
    public = public_names(role, name)
    package = root / home.folder / "src" / home.package
    folder = package / home.module.replace(".", "/")
    source = folder / f"{name}.py"
    test = root / home.folder / "tests" / f"test_{role}_{name}.py"
    # A sampler is exported by its folder, and from there by the package.
    exports = [(folder / "__init__.py", name)]
    if role == "sampler":
        exports.append((package / "__init__.py", home.module))
    listed = {path: path.read_text(encoding="utf-8") for path, _ in exports}
    if source.exists() or test.exists() or any(re.search(rf"\b{public[0]}\b", text) for text in listed.values()):
        raise NewError(f"{home.package} already has a {name} or {public[0]}; choose another name")

    texts = {source: with_sorted_imports(fill("sources", role, name), home.package)}
    texts |= {path: with_export(listed[path], module, public) for path, module in exports}
    where, before, entry = home.listing
    text = (root / where).read_text(encoding="utf-8")
    if role == "recipe":
        text = with_export(text, name, public)
    title = (ast.get_docstring(ast.parse(texts[source])) or "").rstrip(".")
    texts[root / where] = with_entry(text, before, entry.replace("NAME", name).replace("TITLE", title))
    texts[test] = with_sorted_imports(fill("tests", role, name).replace(f"partita_{name}", home.public))
    return texts


def write(texts: dict[Path, str]) -> None:
    """Write files, all of which have been made before the first is written."""
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    root = TEMPLATES.parents[1]
    parser = argparse.ArgumentParser(
        prog="new",
        usage="nox -s new -- [package] ROLE NAME [--output FOLDER]",
        description=f"Write a component into this repository, or a package with one. Roles: {', '.join(ROLES)}.",
    )
    parser.add_argument("words", nargs="+", metavar="[package] ROLE NAME")
    parser.add_argument("--output", type=Path, default=root.parent, help="folder of the package; next to the checkout")
    options = parser.parse_args(arguments)
    of_its_own = options.words[0] == "package"
    words = options.words[1:] if of_its_own else options.words
    if len(words) != 2:
        parser.error(f"expected a role and a name, got {' '.join(words) or 'neither'}")
    role, name = words
    if of_its_own:
        texts = package_texts(root, options.output, role, name)
    else:
        texts = component_texts(root, role, name)
    write(texts)
    for path in texts:
        sys.stdout.write(f"{path.relative_to(root) if path.is_relative_to(root) else path}\n")


if __name__ == "__main__":
    main()
