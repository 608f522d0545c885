"""The example of `docs/add_a_component.md`: a component in a separate file that runs the command line."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from partita.cli import _runtime
from partita_core import components, registry

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "add_a_component.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python)?\n(.*?)^```", PAGE.partition("## A file of your own")[2], re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the file of the page with arguments, and return its exit code."""
    (tmp_path / "my_loss.py").write_text("\n\n".join(BLOCKS[:2]))
    monkeypatch.setattr(_runtime, "prepare_process", lambda: None)
    components()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))  # discards what the file registers

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["my_loss.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(tmp_path / "my_loss.py"), run_name="__main__")
        return ended.value.code

    return start


def test_commands_find_the_component_of_the_file(run, capsys):
    terms = ["objective.losses.mine=my_loss", "objective.losses.mine.power=2", "objective.weights.mine=1.0"]
    assert run("info", "genae_tiny", "--config", *terms) == 0
    assert '"type": "loss/my_loss",' in capsys.readouterr().out
    assert run("info", "genae_tiny", terms[0], "objective.losses.mine.power=-1", terms[2]) == 2
    assert "power is -1" in capsys.readouterr().err
    assert run("components", "loss/my_*") == 0
    assert capsys.readouterr().out.startswith("loss/my_loss")


def test_loss_without_weight_is_reported_with_its_path(run, capsys):
    assert run("info", "genae_tiny", "objective.losses.mine=my_loss") == 2
    assert "objective.weights.mine" in capsys.readouterr().err
