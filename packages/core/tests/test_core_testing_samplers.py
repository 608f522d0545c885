"""Every check of the suite of samplers fails for a sampler that is broken in its way, and passes for a sound one."""

from dataclasses import dataclass

import pytest
import torch
from partita_core import Config, DenoisingDecoder, keyed_noise, register, registry
from partita_testing import SAMPLER_CHECKS, check_sampler


@dataclass(frozen=True)
class Sampler(Config):
    """Sampler that denoises each chunk alone in one step."""

    @property
    def latency(self):
        return 0

    def build(self):
        return self

    @classmethod
    def example(cls):
        return cls()

    def start(self, decoder: DenoisingDecoder, seeds):
        return Stream(decoder, seeds)


class Stream:
    dtype = None

    def __init__(self, decoder, seeds):
        self.decoder, self.seeds, self.count = decoder, seeds, 0

    def push(self, features, *, last=False):
        done = []
        for i in range(features[0].shape[1]):
            done.append(self.denoise(features[0][:, i : i + 1]))
            self.count += 1
        empty = self.denoise(features[0].new_zeros(len(self.seeds), 1, *features[0].shape[2:]))[..., :0]
        return torch.cat([empty, *done], dim=-1)

    def denoise(self, feature):
        decoder = self.decoder
        shape = (decoder.audio_spec.channels, decoder.representation.hop, decoder.chunk_frames)
        x = self.noise(shape).to(feature)
        result = decoder(x, torch.ones(len(x), 1).to(x), (feature,))
        return result.to(self.dtype or torch.promote_types(result.dtype, torch.float32))

    def noise(self, shape):
        return keyed_noise(self.seeds, self.count, "step", shape=shape)


class Hoarding(Stream):
    held = None

    def push(self, features, *, last=False):
        chunks = super().push(features)
        chunks = chunks if self.held is None else torch.cat([self.held, chunks], dim=-1)
        self.held = chunks[..., :0] if last else chunks
        return chunks if last else chunks[..., :0]


class PerPush(Stream):
    """Noise that depends on the number of pushes."""

    def push(self, features, *, last=False):
        self.count += 100
        return super().push(features)


class Global(Stream):
    def noise(self, shape):
        return torch.randn(len(self.seeds), *shape)


class Position(Stream):
    """Noise that depends on the position in the batch."""

    def noise(self, shape):
        return keyed_noise(self.seeds[0] + torch.arange(len(self.seeds)) * 2, self.count, "step", shape=shape)


class InPlace(Stream):
    def denoise(self, feature):
        return super().denoise(feature.mul_(0.5))


class Single(Stream):
    dtype = torch.float32


BROKEN = {
    "latency_is_as_declared": Hoarding,
    "pushes_do_not_matter": PerPush,
    "noise_depends_on_the_seeds_only": Global,
    "batch_composition_does_not_matter": Position,
    "features_are_left_unchanged": InPlace,
    "runs_in_half_and_double_precision": Single,
}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


@pytest.mark.parametrize("check", [None, *BROKEN])
def test_sampler_check_fails_for_its_broken_sampler(check, registered):
    stream = BROKEN.get(check, Stream)
    start = {"start": lambda self, decoder, seeds: stream(decoder, seeds)}
    sampler = register("sampler/tested")(dataclass(frozen=True)(type("Tested", (Sampler,), start)))()
    if check is None:
        check_sampler(sampler)
        return
    with pytest.raises(AssertionError, match=f"sampler/tested: {check}"):
        SAMPLER_CHECKS[check](sampler)


def test_sampler_round_trip_fails_for_an_unregistered_config(registered):
    sampler = register("sampler/tested")(dataclass(frozen=True)(type("Tested", (Sampler,), {})))()
    del registry._registry["sampler/tested"]
    with pytest.raises(AssertionError, match="config_round_trip"):
        SAMPLER_CHECKS["config_round_trip"](sampler)
    assert set(SAMPLER_CHECKS.names) == {*BROKEN, "config_round_trip"}
