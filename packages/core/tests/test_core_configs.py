import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

import pytest
from partita_core import (
    AudioSpec,
    AutoencoderConfig,
    ChannelLayout,
    Config,
    LatentSpec,
    PartitaError,
    component_field,
    from_dict,
    override,
    parse_config,
    register,
    registry,
    to_dict,
)
from partita_testing.dummies import CumulativeConfig, NoisyConfig, RoundingConfig, StridedConfig, TransposedConfig


class Color(Enum):
    RED = 1
    DARK_BLUE = 2


@dataclass(frozen=True)
class Inner:
    width: int = 3
    label: str = "1"


@dataclass(frozen=True)
class Everything(Config):
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    text: str = "a"
    choice: Literal["x", "y"] = "x"
    color: Color = Color.RED
    layout: ChannelLayout = ChannelLayout.MONO
    maybe: int | None = None
    either: int | str = 1
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    nested: tuple[tuple[float, ...], ...] = ((1.0,), (2.0, 3.0))
    names: list[str] = field(default_factory=lambda: ["a"])
    weights: dict[str, float] = field(default_factory=lambda: {"kl": 0.1, "adv": 1.0})
    terms: dict[str, Config] = field(default_factory=lambda: {"a": NoisyConfig()}, metadata={"roles": ("bottleneck",)})
    inner_by_name: dict[str, Inner] = field(default_factory=lambda: {"a": Inner()})
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = (Inner(), Inner(4))
    part: Config = component_field("bottleneck", "quantizer", default=NoisyConfig())
    parts: tuple[Config, ...] = component_field("encoder", default=(StridedConfig(), CumulativeConfig()))
    attached: Config | None = component_field("quantizer", default=None)
    anything: Any = None

    def build(self):
        return None

    @classmethod
    def example(cls):
        return cls()


@dataclass(frozen=True)
class Demanding(Config):
    size: int

    def build(self):
        return None

    @classmethod
    def example(cls):
        return cls(1)


@pytest.fixture(autouse=True)
def everything(monkeypatch):
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    register("test/everything")(Everything)
    register("bottleneck/demanding")(Demanding)


FULL = AutoencoderConfig(
    AudioSpec(44100, 2, (ChannelLayout.MONO, ChannelLayout.MID_SIDE)),
    4,
    StridedConfig(2),
    NoisyConfig(noise=0.0),
    TransposedConfig(),
    RoundingConfig(),
)

OTHERWISE = {
    "count": 2,
    "rate": 2.0,
    "flag": True,
    "text": "None",
    "choice": "y",
    "color": Color.DARK_BLUE,
    "layout": ChannelLayout.MID_SIDE,
    "maybe": 0,
    "either": "word",
    "sizes": (),
    "pair": (2, "3"),
    "nested": ((),),
    "names": [],
    "weights": {},
    "terms": {"b": NoisyConfig(noise=2.0)},
    "inner_by_name": {},
    "inner": Inner(5, "true"),
    "inners": (),
    "part": RoundingConfig(7),
    "parts": (CumulativeConfig(),),
    "attached": RoundingConfig(3),
    "anything": {"a": [1, None, "x"]},
}


@pytest.mark.parametrize(
    "config", [Everything(), *(Everything(**{name: value}) for name, value in OTHERWISE.items()), FULL]
)
def test_round_trip_through_json(config):
    back = from_dict(Config, json.loads(json.dumps(to_dict(config))))
    assert back == config
    assert [type(getattr(back, name)) for name in vars(config)] == [type(value) for value in vars(config).values()]


def test_round_trip_cases_cover_every_type():
    assert set(OTHERWISE) == set(Everything.__dataclass_fields__)


def test_to_dict():
    data = to_dict(FULL)
    assert data["type"] == "autoencoder"
    assert data["audio"] == {"sample_rate": 44100, "channels": 2, "layouts": ["mono", "mid_side"]}
    assert data["encoder"] == {"type": "encoder/strided", "tokens_per_frame": 2}
    assert to_dict(LatentSpec(2, 8000, 16, mean=(0.0, 1.0), std=(1.0, 1.0)))["mean"] == [0.0, 1.0]


def test_integers_become_floats_and_missing_keys_defaults():
    config = from_dict(Config, {"type": "test/everything", "rate": 3})
    assert config == Everything(rate=3.0) and type(config.rate) is float


@pytest.mark.parametrize(
    "data, message",
    [
        ({"count": 1.5}, "config.count: expected int, got 1.5"),
        ({"count": "1"}, "config.count: expected int, got '1'"),
        ({"count": True}, "config.count: expected int, got True"),
        ({"count": None}, "config.count: expected int, got None"),
        ({"rate": "fast"}, "config.rate: expected float, got 'fast'"),
        ({"rate": False}, "config.rate: expected float, got False"),
        ({"flag": 1}, "config.flag: expected bool, got 1"),
        ({"text": 1}, "config.text: expected str, got 1"),
        ({"choice": "z"}, "config.choice: 'z' is not one of 'x', 'y'"),
        ({"color": "dark_blu"}, "config.color: unknown Color 'dark_blu'; did you mean dark_blue?"),
        ({"layout": 1}, "config.layout: unknown ChannelLayout 1; valid: mid_side, mono, stereo"),
        ({"maybe": "x"}, "config.maybe: expected int, got 'x'"),
        ({"either": 1.5}, "config.either: expected int, got 1.5"),
        ({"sizes": 3}, "config.sizes: expected a list, got 3"),
        ({"sizes": [1, "2"]}, "config.sizes[1]: expected int, got '2'"),
        ({"pair": [1]}, "config.pair: expected 2 values, got 1"),
        ({"nested": [[1], 2]}, "config.nested[1]: expected a list, got 2"),
        ({"weights": [1]}, "config.weights: expected a mapping, got [1]"),
        ({"weights": {"kl": "x"}}, "config.weights.kl: expected float, got 'x'"),
        ({"inner": 3}, "config.inner: expected a mapping, got 3"),
        ({"inner": {"widht": 3}}, "config.inner: unknown key 'widht'; did you mean width?"),
        ({"inners": [{}, {"width": "x"}]}, "config.inners[1].width: expected int, got 'x'"),
        ({"part": "noisy"}, "config.part: expected a component with its type, got 'noisy'"),
        ({"part": {"noise": 1}}, "config.part: expected a component with its type, got {'noise': 1}"),
        (
            {"part": {"type": "bottleneck/noizy"}},
            "config.part: unknown bottleneck or quantizer 'bottleneck/noizy'; did you mean bottleneck/noisy",
        ),
        ({"part": {"type": "encoder/strided"}}, "config.part: unknown bottleneck or quantizer 'encoder/strided'; "),
        ({"part": {"type": "bottleneck/noisy", "nose": 1}}, "config.part: unknown key 'nose'; did you mean noise"),
        ({"parts": [{"type": "strided"}, {"type": "x"}]}, "config.parts[1]: unknown encoder 'x'; "),
        ({"attached": {"type": "noisy"}}, "config.attached: unknown quantizer 'noisy'; "),
        ({"cuont": 1}, "config: unknown key 'cuont'; did you mean count"),
    ],
)
def test_invalid_values_raise_with_their_path(data, message):
    with pytest.raises(PartitaError) as caught:
        from_dict(Config, {"type": "test/everything"} | data)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, 3, [], {}, {"type": 3}])
def test_values_without_a_type_raise(data):
    with pytest.raises(PartitaError, match="config: expected a component with its type"):
        from_dict(Config, data)


def test_missing_key_raises_with_its_name():
    with pytest.raises(PartitaError, match="config: key 'dim' is missing"):
        from_dict(LatentSpec, {"sample_rate": 8000, "hop": 16})


def test_invalid_values_of_a_config_raise_with_their_path():
    data = to_dict(FULL)
    data["audio"]["channels"] = 1
    with pytest.raises(PartitaError, match=r"^config\.audio: channels is 1, but the layouts mono, mid_side need 2; "):
        from_dict(Config, data)


def test_config_of_another_class_raises():
    with pytest.raises(PartitaError, match="config: bottleneck/noisy .*AutoencoderConfig"):
        from_dict(AutoencoderConfig, {"type": "bottleneck/noisy"})


def test_deeply_nested_data_raises():
    data: dict = {"type": "autoencoder"}
    data["audio"], bottom = {}, data
    for _ in range(100_000):
        bottom["encoder"] = {"type": "autoencoder"}
        bottom = bottom["encoder"]
    with pytest.raises(PartitaError):
        from_dict(AutoencoderConfig, data)


# ------------------------------------------------------------------ override


@pytest.mark.parametrize(
    "text, name, value",
    [
        ("count=3", "count", 3),
        ("rate=2", "rate", 2.0),
        ("rate=1e-3", "rate", 1e-3),
        ("flag=true", "flag", True),
        ("flag=True", "flag", True),
        ("text=3", "text", "3"),
        ("text=a=b", "text", "a=b"),
        ("text=", "text", ""),
        ("choice=y", "choice", "y"),
        ("color=dark_blue", "color", Color.DARK_BLUE),
        ("layout=stereo", "layout", ChannelLayout.STEREO),
        ("maybe=4", "maybe", 4),
        ("maybe=none", "maybe", None),
        ("either=word", "either", "word"),
        ("either=4", "either", 4),
        ("sizes=[4, 5, 6]", "sizes", (4, 5, 6)),
        ("sizes.1=7", "sizes", (1, 7)),
        ("nested.1.0=9", "nested", ((1.0,), (9.0, 3.0))),
        ('pair=[2, "x"]', "pair", (2, "x")),
        ("weights.kl=0.2", "weights", {"kl": 0.2, "adv": 1.0}),
        ('weights={"mel": 2}', "weights", {"mel": 2.0}),
        ("weights.mel=2", "weights", {"kl": 0.1, "adv": 1.0, "mel": 2.0}),
        ("terms.b=noisy", "terms", {"a": NoisyConfig(), "b": NoisyConfig()}),
        ('terms.b={"type": "noisy", "noise": 3}', "terms", {"a": NoisyConfig(), "b": NoisyConfig(noise=3.0)}),
        ("inner_by_name.a.width=8", "inner_by_name", {"a": Inner(8)}),
        ("parts.0=cumulative", "parts", (CumulativeConfig(), CumulativeConfig())),
        ('parts.0={"type": "cumulative"}', "parts", (CumulativeConfig(), CumulativeConfig())),
        ("names.0=b", "names", ["b"]),
        ("pair.1=b", "pair", (1, "b")),
        ("inner.width=8", "inner", Inner(8)),
        ("inner.label=8", "inner", Inner(label="8")),
        ("inners.1.width=8", "inners", (Inner(), Inner(8))),
        ("part=rounding", "part", RoundingConfig()),
        ("part=bottleneck/noisy", "part", NoisyConfig()),
        ('part={"type": "rounding", "levels": 9}', "part", RoundingConfig(9)),
        ("part.noise=0", "part", NoisyConfig(noise=0.0)),
        ("parts.0.tokens_per_frame=2", "parts", (StridedConfig(2), CumulativeConfig())),
        ("attached=rounding", "attached", RoundingConfig()),
        ("attached=none", "attached", None),
    ],
)
def test_override(text, name, value):
    config = Everything()
    changed = override(config, [text])
    assert getattr(changed, name) == value and type(getattr(changed, name)) is type(value)
    assert changed == Everything(**{name: value})
    assert config == Everything()


PAIRS = [
    ["audio.channels=1", 'audio.layouts=["mono"]'],
    ["bottleneck=rounding", "bottleneck.levels=7"],
    ['bottleneck={"type": "rounding"}', "bottleneck.levels=7"],
    ['audio={"sample_rate": 8000, "channels": 1, "layouts": ["stereo"]}', 'audio.layouts=["mono"]'],
    ["quantizer.levels=3", "quantizer=rounding"],
]


@pytest.mark.parametrize("texts", PAIRS)
def test_overrides_are_merged_and_built_once_in_any_order(texts):
    first, second = (override(replace(FULL, quantizer=None), order) for order in (texts, texts[::-1]))
    assert first == second != FULL
    assert first.encoder is FULL.encoder


def test_overrides_of_a_component_apply_to_its_own_defaults():
    changed = override(FULL, ["bottleneck.levels=7", "audio.sample_rate=8000", "bottleneck=rounding", "quantizer=none"])
    assert (changed.bottleneck, changed.audio.sample_rate, changed.quantizer) == (RoundingConfig(7), 8000, None)
    mono = override(FULL, ['audio.layouts=["mono"]', "audio.channels=1"])
    assert mono.audio == AudioSpec(44100, 1, (ChannelLayout.MONO,))


def test_last_override_of_a_path_applies():
    assert override(Everything(), ["count=2", "count=3"]).count == 3


def test_component_without_defaults_is_set_by_its_fields():
    changed = override(Everything(), ["part.size=3", "part=demanding"])
    assert changed.part == Demanding(3)
    assert parse_config("demanding:size=4") == Demanding(4)


def test_parse_config_accepts_lists():
    assert parse_config("test/everything:sizes=[4,5],count=3") == Everything(sizes=(4, 5), count=3)


def test_swapped_component_has_its_own_defaults():
    changed = override(Everything(part=NoisyConfig(noise=9.0)), ["part=rounding", "part=noisy"])
    assert changed.part == NoisyConfig()


@pytest.mark.parametrize(
    "text, message",
    [
        ("count", "'count' is not an override; write path.to.key=value"),
        ("=3", "'=3' is not an override; write path.to.key=value"),
        ("inner..width=3", "'inner..width=3' is not an override; write path.to.key=value"),
        ("cuont=3", "unknown key 'cuont'; did you mean count"),
        ("inner.widht=3", "unknown key 'inner.widht'; did you mean width?"),
        ("count.deep=3", "'count' is 1, which has no fields; cannot set 'count.deep'"),
        ("attached.levels=3", "'attached' is None, which has no fields; cannot set 'attached.levels'"),
        ("sizes.2=3", "'sizes' has 2 items, numbered from 0; cannot set 'sizes.2'"),
        ("sizes.x=3", "'sizes' has 2 items, numbered from 0; cannot set 'sizes.x'"),
        ("sizes.\u00b2=3", "'sizes' has 2 items, numbered from 0; "),
        ("weights.lk=x", "weights.lk: expected float, got 'x'"),
        ("weights.lk.deep=3", "'weights.lk' is not set"),
        ("inner_by_name.b.width=3", "unknown key 'inner_by_name.b'; "),
        ("inner_by_name.b={}", "unknown key 'inner_by_name.b'; "),
        ("terms.b=strided", "terms.b: unknown bottleneck 'strided'; "),
        ("part=demanding", "part: key 'size' is missing"),
        ("count=x", "count: expected int, got 'x'"),
        ("count=1.5", "count: expected int, got 1.5"),
        ("flag=1", "flag: expected bool, got 1"),
        ("part=nois", "part: unknown bottleneck or quantizer 'nois'; did you mean noisy"),
        ("attached=noisy", "attached: unknown quantizer 'noisy'; "),
        ("part.levels=3", "unknown key 'part.levels'; "),
        ("sizes=3", "sizes: expected a list, got 3"),
    ],
)
def test_invalid_override_raises(text, message):
    with pytest.raises(PartitaError) as caught:
        override(Everything(), [text])
    assert str(caught.value).startswith(message)


def test_invalid_override_of_a_spec_raises():
    with pytest.raises(PartitaError, match="channels is 1, but the layouts mono, mid_side need 2"):
        override(FULL, ["audio.channels=1"])
