"""Agreement of docs/provenance.md with the recipes, and no citations of parts of papers that were not read."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from partita import recipes
from partita_core import Config, override

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "provenance.md").read_text()
SECTIONS = re.findall(r"^## [^\n]*: `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S)
ROWS = [
    (name, *row) for name, body in SECTIONS for row in re.findall(r"^\| (.+?) \| (.+?) \| (.+) \|$", body, flags=re.M)
]
ROWS = [row for row in ROWS if row[2] != "source"]
SETTINGS = [
    (name, what, setting)
    for name, what, _, where in ROWS
    for setting in re.findall(r"`([a-z][\w.]*(?:=[^`]*)?)`", where)
]
SETTINGS = [
    row
    for row in SETTINGS
    if row[2].partition(".")[0].partition("=")[0] in ("model", "objective", "data", "trainer", "codec")
]
UNREAD = ("2602.15749", "2501.17578", "2606.06357")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("provenance") / "codec")
    recipes.f3_tiny().model.build().eval().save_pretrained(folder)

    @cache
    def of(name: str) -> Any:
        if name in recipes.RECIPES:
            return recipes.recipe(name)
        return recipes.recipe(name, folder, **({"llm": "folder"} if name.startswith("representation") else {}))

    return of


def at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return config


def test_every_base_recipe_has_a_section():
    named = {name for name, _ in SECTIONS}
    bases = {name for name in (*recipes.RECIPES, *recipes.CODEC_RECIPES) if name.endswith("_base")}
    assert named == bases and len(SETTINGS) > 100


def test_every_row_has_one_of_three_sources():
    assert {source for _, _, source, _ in ROWS} == {"published", "secondary", "ours"}


@pytest.mark.parametrize("name", [name for name, _ in SECTIONS])
def test_settings_of_the_page_equal_the_recipe(name, recipe):
    """A stated value is equal, a stated component has the same type, and any other stated setting exists."""
    config = recipe(name)
    for _, what, setting in [row for row in SETTINGS if row[0] == name]:
        path, equals, _ = setting.partition("=")
        value = at(config, path)
        if equals:
            stated = at(override(config, [setting]), path)
            same = type(stated) is type(value) if isinstance(value, Config) else stated == value
            assert same, f"{name}: {setting} of {what!r}, and the recipe has {value!r}"


def sources():
    for pattern in (
        "packages/*/src/**/*.py",
        "integration/src/**/*.py",
        "docs/**/*.md",
        "*.md",
        "*/README.md",
        "packages/*/README.md",
    ):
        yield from ROOT.glob(pattern)


def test_no_section_or_equation_of_an_unread_paper_is_cited():
    """Only the abstracts, introductions and figures of these three papers were available."""
    cited = re.compile(
        rf"(?:{'|'.join(map(re.escape, UNREAD))})[^.;\n]*\n?[^.;\n]*\b(?:[Ss]ections?|eq\.|equations?|appendix)\s+\d"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}" for path in sources() for match in cited.finditer(path.read_text())
    ]
    assert not found


def test_no_claim_about_a_paper_that_was_not_read():
    claim = re.compile(
        r"papers?(?: is| are|'s| have| has)? (?:silent|scale|size)|where (?:the paper|it) is silent|at the paper's",
        re.I,
    )
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}" for path in sources() for match in claim.finditer(path.read_text())
    ]
    assert not found
