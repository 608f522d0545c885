from dataclasses import replace

from partita.recipes import genae_tiny, recipe
from partita.training import RunConfig
from partita_bottlenecks import TanhConfig
from partita_core import from_dict, to_dict
from partita_newcomer import newcomer


def test_newcomer_differs_from_genae_tiny_in_its_bottleneck():
    config, tiny = newcomer(), genae_tiny()
    assert config.model.bottleneck == TanhConfig()
    assert replace(config, model=tiny.model) == tiny


def test_newcomer_has_a_name_and_comes_back_from_a_file():
    assert recipe("newcomer") == newcomer() == from_dict(RunConfig, to_dict(newcomer()))
