"""Recipes by name: those of other packages by entry point, and the configs that runs have written."""

import json
import sys
from pathlib import Path

import pytest
from partita.recipes import genae_tiny, load_run, recipe, recipe_names
from partita.training import RunFolder
from partita_core import PartitaError

MODULE = """
from dataclasses import replace
from partita.recipes import genae_tiny

def named():
    return replace(genae_tiny(), codec=None)

def on_codec(codec, llm=None):
    return replace(genae_tiny(), codec=codec)

def broken():
    raise ValueError("no such luck")

def wrong():
    return 3
"""


@pytest.fixture
def announced(tmp_path, monkeypatch):
    """A package on the path that announces recipes by entry points."""
    info = tmp_path / "site" / "otherwise-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "otherwise_recipes.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherwise\nVersion: 1.0\n")
    lines = [
        "[partita.recipes]",
        *(f"other_{name} = otherwise_recipes:{name}" for name in ("named", "broken", "wrong")),
    ]
    lines += ["other_absent = otherwise_recipes:absent", "genae_tiny = otherwise_recipes:wrong"]
    lines += ["[partita.codec_recipes]", "other_codec = otherwise_recipes:on_codec"]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    sys.modules.pop("otherwise_recipes", None)


def test_recipes_of_other_packages_have_names(announced):
    assert recipe("other_named") == genae_tiny() == recipe("genae_tiny")  # names of this package come first
    assert recipe("other_codec", "folder", llm="x").codec == "folder"
    assert {"other_named", "genae_tiny"} < set(recipe_names()) and "other_codec" not in recipe_names()
    assert {"other_codec", "vq_tiny"} < set(recipe_names(on_codec=True))
    with pytest.raises(PartitaError, match="other_named"):
        recipe("other_name")


@pytest.mark.parametrize(
    "name, message", [("broken", "ValueError: no such luck"), ("wrong", "int"), ("absent", "AttributeError")]
)
def test_recipe_that_fails_is_one_line_with_its_source(announced, name, message):
    with pytest.raises(PartitaError, match=rf"other_{name}.*otherwise_recipes:{name}.*{message}") as caught:
        recipe(f"other_{name}")
    assert "\n" not in str(caught.value)


def test_recipe_of_another_package_on_the_command_line(announced, ok):
    printed, _ = ok("info", "other_named", "--json")
    assert json.loads(printed)["latent_dim"] == 64


@pytest.mark.slow
def test_config_of_a_run_in_place_of_a_recipe(run, tones, tmp_path, ok, refused):
    config = run / "config.json"
    assert load_run(str(config)) == (RunFolder(run).read_config(), "tiny")
    ok("train", config, "--data", tones, "--output", tmp_path / "again", "--steps", 1, "trainer.seed=3")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written["recipe"] == "tiny"
    assert (written["config"]["trainer"]["steps"], written["config"]["trainer"]["seed"]) == (1, 3)
    assert written["config"]["model"] == json.loads(config.read_text())["config"]["model"]
    printed, _ = ok("info", config, "--json")
    assert json.loads(printed)["latent_dim"] == 4
    assert "none.json" in refused("train", "none.json", "--data", tones, "--output", tmp_path / "new")


@pytest.mark.parametrize("content", ["[]", "{}", '{"config": {"model": 3}}', "not JSON"])
def test_file_that_is_not_the_config_of_a_run(tmp_path: Path, content: str):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(PartitaError, match="config.json") as caught:
        load_run(str(path))
    assert "\n" not in str(caught.value)
