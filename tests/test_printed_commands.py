"""Every command that a page prints is one that the command line takes, and names fields that recipes have."""

import re
import shlex
from pathlib import Path

import pytest
from partita import cli, process
from partita.recipes import RECIPES, recipe
from partita_core import override

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), ROOT / "integration" / "README.md"]
PAGES += [page for page in sorted(ROOT.glob("docs/**/*.md")) if "templates" not in page.parts]
BLOCK = re.compile(r"^```(?!python)\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:torchrun .*-m )?partita (.*)")


def commands(page: Path) -> list[list[str]]:
    """The arguments of all commands of a page; forms, with options in brackets, are none."""
    lines = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    found = [shlex.split(match[1], comments=True) for line in lines if (match := COMMAND.match(line))]
    return [words for words in found if not any(word.startswith("[") or word.endswith("...") for word in words)]


COMMANDS = {page: found for page in PAGES if (found := commands(page))}


def test_commands_are_found():
    assert len(COMMANDS) > 10 and sum(map(len, COMMANDS.values())) > 80
    assert {words[0] for found in COMMANDS.values() for words in found} >= {"train", "encode", "decode", "report"}


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_printed_commands_are_taken(page, monkeypatch):
    given = []
    monkeypatch.setattr(process, "prepare_process", lambda: None)
    for name in cli.COMMANDS:
        monkeypatch.setattr(f"partita.cli.{name}.run", given.append)
    for words in COMMANDS[page]:
        assert cli.main(words) == 0, words
        ours = not any("softclip" in word for word in words)  # the template package is not installed
        if words[0] == "train" and words[1] in RECIPES and ours:
            override(recipe(words[1]), given[-1].overrides)
    assert len(given) == len(COMMANDS[page])
