import warnings
from dataclasses import dataclass

import pytest
from partita_core import Config, PartitaError, build, components, lookup, register, registry, suggest
from partita_testing.dummies import NoisyBottleneck, NoisyConfig, RoundingConfig, StridedConfig


@pytest.fixture
def only_dummies(monkeypatch):
    """Register only the dummies, whatever is installed."""
    dummies = {tag: cls for tag, cls in registry._registry.items() if ".dummies." in cls.__module__}
    monkeypatch.setattr(registry, "_registry", dummies)
    return dummies


@pytest.fixture
def scratch(monkeypatch):
    """Restore the registry after the test."""
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


def test_components_are_listed_by_pattern(only_dummies):
    assert list(components()) == sorted(only_dummies)
    assert list(components("bottleneck/*")) == ["bottleneck/noisy"]
    assert list(components("*coder/*d*")) == ["decoder/denoising", "decoder/transposed", "encoder/strided"]
    assert components("vocoder/*") == {}


def test_lookup_takes_a_tag_or_its_last_part(only_dummies):
    assert lookup("bottleneck/noisy") is NoisyConfig
    assert lookup("noisy") is NoisyConfig
    assert lookup("rounding", ("bottleneck", "quantizer")) is RoundingConfig
    assert lookup("quantizer/rounding", ("bottleneck", "quantizer")) is RoundingConfig


@pytest.mark.parametrize(
    "name, roles, message",
    [
        ("nosy", ("bottleneck",), "unknown bottleneck 'nosy'; did you mean noisy?"),
        ("bottleneck/nosy", (), "unknown component 'bottleneck/nosy'; did you mean bottleneck/noisy"),
        ("noisy", ("encoder",), "unknown encoder 'noisy'; valid: cumulative, strided"),
        ("zzz", ("bottleneck", "quantizer"), "unknown bottleneck or quantizer 'zzz'; valid: noisy, rounding"),
        ("x", ("vocoder",), "unknown vocoder 'x'; no valid names"),
    ],
)
def test_unknown_names_raise_with_suggestions(only_dummies, name, roles, message):
    with pytest.raises(PartitaError) as caught:
        lookup(name, roles)
    assert str(caught.value).startswith(message)


def twin(tag):
    @register(tag)
    @dataclass(frozen=True)
    class TwinConfig(StridedConfig):
        pass

    return TwinConfig


def test_ambiguous_name_raises(scratch):
    other = twin("decoder/strided")
    with pytest.raises(PartitaError, match="'strided' .*decoder/strided, encoder/strided"):
        lookup("strided")
    assert lookup("strided", ("encoder",)) is StridedConfig
    # The role named first is preferred.
    assert lookup("strided", ("decoder", "encoder")) is other


def test_duplicate_tag_raises(scratch):
    with pytest.raises(TypeError, match="encoder/strided is already registered by partita_testing.dummies"):
        twin("encoder/strided")


def test_config_that_is_not_a_frozen_dataclass_raises(scratch):
    class Plain(Config):
        def build(self):
            return None

        @classmethod
        def example(cls):
            return cls()

    for cls in (Plain, dataclass(Plain)):
        with pytest.raises(TypeError, match="Plain must be a frozen dataclass"):
            register("encoder/plain")(cls)
    assert "encoder/plain" not in components()


def test_built_component_has_its_config():
    config = NoisyConfig(noise=0.5)
    bottleneck = config.build(dim=3)
    assert type(bottleneck) is NoisyBottleneck and bottleneck.config is config and bottleneck.noise == 0.5
    assert config.tag == "bottleneck/noisy"


def test_build_accepts_a_config_or_dict():
    assert build(NoisyConfig(gain=2.0), dim=3).gain.tolist() == [[2.0]] * 3
    assert build({"type": "bottleneck/noisy", "gain": 3.0}, dim=2).config == NoisyConfig(gain=3.0)
    with pytest.raises(PartitaError, match="'bottleneck/nosy'.*bottleneck/noisy.*install the package"):
        build({"type": "bottleneck/nosy"}, dim=2)


class EntryPoint:
    def __init__(self, value, load):
        self.value, self.load = value, load


def broken():
    raise ImportError("no module named gone")


def test_broken_package_does_not_break_others(scratch, monkeypatch):
    loaded = []
    points = [EntryPoint("partita_gone", broken), EntryPoint("partita_good", lambda: loaded.append("good"))]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "partita.components" else [])
    registry.load_entry_points.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="partita_gone: no module named gone"):
            found = components("encoder/*")
        assert loaded == ["good"] and "encoder/strided" in found
        with warnings.catch_warnings():  # the warning is given once
            warnings.simplefilter("error")
            assert components("encoder/*") == found
    finally:
        registry.load_entry_points.cache_clear()


def test_suggestions():
    valid = ["stereo", "mono", "mid_side"]
    assert suggest("sterio", valid) == "did you mean stereo?"
    assert suggest("xyz", valid) == "valid: mid_side, mono, stereo"
    assert suggest("xyz", []) == "no valid names are registered"
    assert suggest("abcd", ["abce", "abcf"]) == "did you mean abcf or abce?"
