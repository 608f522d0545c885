"""Python examples of the READMEs and the documentation run, and their commands can be parsed."""

import re
import shlex
import tomllib
import warnings
from pathlib import Path

import pytest
import torch
from partita import cli
from partita.cli import _runtime as process
from partita.recipes import RECIPES, recipe
from partita_core import components, override, registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), ROOT / "integration" / "README.md"]
PACKAGES = len(PAGES) - 1
PAGES += [page for page in sorted(ROOT.glob("docs/**/*.md")) if "templates" not in page.parts]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHER = re.compile(r"^```(?!python)\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:torchrun .*-m )?partita (.*)")


def test_every_package_shows_an_example():
    assert [page for page in PAGES if page.name == "README.md" and not BLOCK.search(page.read_text())] == []


def test_each_system_is_assembled_in_a_few_lines():
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [name for name in ("GenAEEncoderConfig", "SummaryEncoderConfig") if not any(name in b for b in blocks)] == []
    assert max(block.count("\n") for block in blocks) <= 15


@pytest.mark.parametrize("readme", PAGES[1 : 1 + PACKAGES], ids=lambda page: page.parent.name)
def test_installing_with_pip_names_every_sibling(readme):
    """pip finds packages of this repository only if the command names all of them."""
    manifests = [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "integration" / "pyproject.toml"]
    folders = {tomllib.loads(path.read_text())["project"]["name"]: path.parent for path in manifests}
    needed, waiting = set(), [readme.parent]
    while waiting:
        folder = waiting.pop()
        needed.add(folder.relative_to(ROOT).as_posix())
        requirements = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
        names = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
        waiting += [folders[name] for name in names if name in folders]
    command = readme.read_text().split("\npip install ")[1].split("```")[0]
    assert set(re.findall(r"#subdirectory=([\w/]+)", command)) == needed


SLOW = {
    "README.md",
    "docs/corpus.md",
    "docs/long_files.md",
    "docs/training.md",
    "docs/use_latents.md",
    "packages/decoders/README.md",
}


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=shown(page), marks=[pytest.mark.slow] if shown(page) in SLOW else [])
        for page in PAGES
        if BLOCK.search(page.read_text())
    ],
)
def test_examples_run(page, tmp_path, monkeypatch):
    """The blocks of a page run in order, in one namespace."""
    monkeypatch.chdir(tmp_path)
    components()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))  # discards what the page registers
    text, names = page.read_text(), {"__name__": "__main__"}
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(1))
            exec(compile("\n" * line + match.group(1), str(page), "exec"), names)


def commands(page: Path) -> list[list[str]]:
    """Arguments of all commands of a page, without synopses, which have options in brackets."""
    lines = "\n".join(OTHER.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    found = [shlex.split(match[1], comments=True) for line in lines if (match := COMMAND.match(line))]
    return [words for words in found if not any(word.startswith("[") or word.endswith("...") for word in words)]


COMMANDS = {page: found for page in PAGES if (found := commands(page))}


def test_commands_are_found():
    assert len(COMMANDS) > 10 and sum(map(len, COMMANDS.values())) > 80
    assert {words[0] for found in COMMANDS.values() for words in found} >= {"train", "encode", "decode", "report"}


@pytest.mark.parametrize("page", COMMANDS, ids=shown)
def test_printed_commands_can_be_parsed(page, monkeypatch):
    given = []
    monkeypatch.setattr(process, "prepare_process", lambda: None)
    for name in cli.COMMANDS:
        monkeypatch.setattr(f"partita.cli.{name}.run", given.append)
    for words in COMMANDS[page]:
        assert cli.main(words) == 0, words
        ours = not any("my_" in word for word in words)  # components that the page defines as examples
        if words[0] == "train" and words[1] in RECIPES and ours:
            override(recipe(words[1]), given[-1].overrides)
    assert len(given) == len(COMMANDS[page])
