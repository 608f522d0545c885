"""Config classes derived from constructors."""

import pickle
from dataclasses import dataclass, fields, replace

import pytest
import torch
from partita_core import (
    AudioSpec,
    Bottleneck,
    BottleneckOutput,
    ChannelLayout,
    Config,
    Discriminator,
    DiscriminatorOutput,
    Loss,
    PartitaError,
    components,
    config_of,
    from_dict,
    override,
    register,
    registry,
    to_dict,
)
from partita_core.ranges import Positive, Width
from torch import nn


class Scaled(Bottleneck):
    """Multiply by a gain."""

    def __init__(self, dim: int, *, gain: Positive = 2.0, sizes: tuple[Width, ...] = (1, 2)) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.gain, self.sizes = gain, sizes

    def forward(self, hidden, *, stochastic=None, lengths=None):
        return BottleneckOutput(hidden * self.gain, None, {}, {})


class Rated(Loss):
    """Needs only the number of channels of the audio."""

    def __init__(self, sample_rate: int, channels: int = 1, *, weight: Positive = 1.0) -> None:
        super().__init__()
        self.sample_rate, self.channels, self.weight = sample_rate, channels, weight

    def forward(self, prediction, target, *, lengths=None):
        return (prediction - target).abs().mean((1, 2)) * self.weight


class Mapped(nn.Module):
    """Map between two widths that other parts determine."""

    def __init__(self, width: int, out_dim: int, *, hidden: Width = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, out_dim))

    def forward(self, x):
        return self.layers(x)


class Leveled(Discriminator):
    """Classifies by level."""

    def __init__(self, audio_channels: int = 1, *, gain: Positive = 1.0) -> None:
        super().__init__()
        self.audio_channels, self.gain = audio_channels, gain

    def forward(self, signal):
        return [DiscriminatorOutput(self.gain * signal.abs().mean(2), (signal,))]


class Summing(nn.Module):
    """A balancer that balances nothing."""

    def __init__(self, weights: dict[str, float], *, norm: Positive = 1.0) -> None:
        super().__init__()
        self.weights, self.norm = weights, norm


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    classes = (Scaled, Rated, Mapped, Leveled, Summing)
    plain = [cls.__init__ for cls in classes]
    register("bottleneck/test_scaled", example={"gain": 0.5})(Scaled)
    register("loss/test_rated")(Rated)
    register("adapter/test_mapped")(Mapped)
    register("discriminator/test_leveled")(Leveled)
    register("balancer/test_summing")(Summing)
    yield
    for cls, init in zip(classes, plain):
        cls.__init__ = init


def test_settings_are_the_keyword_only_parameters_with_their_defaults():
    config = config_of(Scaled)()
    assert [field.name for field in fields(config)] == ["gain", "sizes"]
    assert (config.gain, config.sizes) == (2.0, (1, 2)) and config_of(Scaled).example().gain == 0.5
    assert components("bottleneck/test_*") == {"bottleneck/test_scaled": config_of(Scaled)}


def test_module_built_by_hand_equals_module_built_from_config():
    by_hand, built = Scaled(3, gain=4.0), config_of(Scaled)(gain=4.0).build(dim=3)
    assert by_hand.config == built.config == config_of(Scaled)(gain=4.0)
    assert (built.dim, built.gain, built.sizes) == (by_hand.dim, by_hand.gain, by_hand.sizes) == (3, 4.0, (1, 2))
    assert torch.equal(by_hand(torch.ones(1, 3, 2)).values, torch.full((1, 3, 2), 4.0))


def test_derived_arguments_are_passed_if_the_constructor_has_them():
    stereo = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
    loss = config_of(Rated)(weight=3.0).build(audio_spec=stereo)
    assert (loss.sample_rate, loss.channels, loss.weight) == (8000, 2, 3.0)
    assert (Rated(16_000).sample_rate, Rated(16_000).channels) == (16_000, 1)


def test_any_module_can_be_a_component():
    mapped = config_of(Mapped)(hidden=3).build(width=2, out_dim=5, latent_spec=None)
    assert mapped(torch.ones(7, 2)).shape == (7, 5) and mapped.config == config_of(Mapped)(hidden=3)


def test_discriminators_take_the_channels_of_the_audio():
    stereo = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
    built = config_of(Leveled)(gain=2.0).build(audio_spec=stereo)
    assert (built.audio_channels, built.gain, Leveled().audio_channels) == (2, 2.0, 1)
    assert to_dict(built.config) == {"type": "discriminator/test_leveled", "gain": 2.0}


def test_balancers_take_the_weights_of_the_losses():
    weights = {"stft": 1.0, "mel": 2.0}
    built = config_of(Summing)(norm=3.0).build(weights=weights)
    assert built.weights == Summing(weights).weights == weights
    assert to_dict(built.config) == {"type": "balancer/test_summing", "norm": 3.0}


def test_derived_configs_round_trip_override_and_pickle():
    config = config_of(Scaled)(gain=0.25)
    assert to_dict(config) == {"type": "bottleneck/test_scaled", "gain": 0.25, "sizes": [1, 2]}
    assert from_dict(Config, to_dict(config)) == config == pickle.loads(pickle.dumps(config))
    assert override(config, ["gain=8", "sizes=[3]"]) == replace(config, gain=8.0, sizes=(3,))


@pytest.mark.parametrize("make", [lambda **s: config_of(Scaled)(**s), lambda **s: Scaled(3, **s)])
@pytest.mark.parametrize("wrong", [{"gain": 0.0}, {"gain": float("nan")}, {"sizes": (1, 0)}])
def test_ranges_are_checked_by_config_and_constructor(make, wrong):
    with pytest.raises(PartitaError, match="gain is|sizes.1. is 0"):
        make(**wrong)


def test_subclass_has_no_config():
    class Derived(Scaled):
        pass

    assert not hasattr(Derived(3), "config") and Scaled(3).config == config_of(Scaled)()


def test_setting_without_a_default_raises():
    class Incomplete(Bottleneck):
        def __init__(self, dim: int, *, gain: float) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="'gain' has no default"):
        register("bottleneck/test_incomplete")(Incomplete)


@dataclass(frozen=True)
class Pace(Config):
    """A component that is its own settings."""

    steps: int = 1

    def build(self):
        return self

    @classmethod
    def example(cls):
        return cls()


def test_setting_that_holds_a_component():
    register("sampler/test_pace")(Pace)

    class Paced(Loss):
        def __init__(self, *, pace: Pace = Pace()) -> None:
            super().__init__()
            self.pace = pace

        def forward(self, prediction, target, *, lengths=None):
            return prediction.sum((1, 2))

    register("loss/test_paced")(Paced)
    config = override(config_of(Paced)(), ["pace=test_pace", "pace.steps=3"])
    assert config.build().pace == Paced(pace=Pace(3)).config.pace == Pace(3)
    assert to_dict(config) == {"type": "loss/test_paced", "pace": {"type": "sampler/test_pace", "steps": 3}}
    assert from_dict(Config, to_dict(config)) == config
    with pytest.raises(PartitaError, match="loss/test_rated|test_rated"):
        from_dict(Config, {"type": "loss/test_paced", "pace": {"type": "loss/test_rated"}})
