"""Calls and results of each sequential sampler, with a tiny denoiser and with decoders of known outputs."""

import math
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch
from partita_core import (
    AudioSpec,
    ChannelLayout,
    DenoisingDecoder,
    NoiseSchedule,
    PartitaError,
    keyed_noise,
    override,
)
from partita_decoders import Autoregressive, Independent, Overlap, Parallel, TwoStep
from partita_testing.dummies import Lapped

LOW = NoiseSchedule().sigma_min
AT_04, HALF = 0.965, NoiseSchedule().sigma(0.5)


# ------------------------------------------------------------------ calls of the decoder


@pytest.fixture
def calls(tiny, features, sampled, recorded_calls):
    def levels(sampler, chunks):
        recorded_calls.clear()
        sampled(sampler, tiny, features(chunks))
        return rounded(*(levels for levels, _ in recorded_calls))

    return levels


def rounded(*levels):
    return [[round(level, 5) for level in call] for call in levels]


@pytest.mark.parametrize("chunks", [1, 2, 3, 7])
def test_two_step_calls_the_decoder_once_per_chunk_and_once_more(calls, chunks):
    pairs = [[AT_04, 80]] * (chunks - 1)
    assert calls(TwoStep(), chunks) == rounded([80], *pairs, [AT_04])
    assert calls(TwoStep(refine=False), chunks) == rounded([80], *pairs)
    assert calls(TwoStep(sigma_context=0), chunks) == rounded([80], *[[LOW, 80]] * (chunks - 1), [LOW])


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_autoregressive_calls_the_decoder_steps_times_per_chunk(calls, chunks):
    pairs = [[AT_04, 80], [AT_04, HALF]] * (chunks - 1)
    assert calls(Autoregressive(), chunks) == rounded([80], [HALF], *pairs)


@pytest.mark.parametrize("chunks", [1, 4])
def test_independent_calls_the_decoder_on_single_chunks(calls, chunks):
    assert calls(Independent(steps=2), chunks) == rounded([80], [HALF]) * chunks


def test_overlap_calls_the_decoder_on_every_pair_twice(calls):
    pair = [0.5, 80], [0.5, 0.5]
    assert calls(Overlap(sigma=0.5), 4) == rounded([80], *pair, *pair, *pair)
    assert calls(Overlap(sigma=0.5), 1) == rounded([80], [0.5])


# ------------------------------------------------------------------ results


@pytest.fixture
def noise(tiny, seeds):
    shape = (2, tiny.representation.hop, tiny.chunk_frames)
    return lambda chunk, step: keyed_noise(seeds, chunk, step, shape=shape)


def renoise(y, sigma, noise):
    return y + math.sqrt(sigma**2 - LOW**2) * noise


def by_hand(decoder, given, x, sigma, chunks):
    return decoder(torch.cat(x, -1), torch.tensor([sigma] * 2), (given[0][:, chunks],)).chunk(len(x), -1)


@torch.no_grad()
def test_two_step_equals_explicit_computation(tiny, features, sampled, noise):
    given = features(3)
    start = [80 * noise(t, "step 0") for t in range(3)]
    (y,) = by_hand(tiny, given, start[:1], [80], [0])
    refined, first = [], [y]
    for t in (1, 2):
        context = renoise(y, 0.5, noise(t - 1, "context"))
        left, y = by_hand(tiny, given, [context, start[t]], [0.5, 80], [t - 1, t])
        refined, first = [*refined, left], [*first, y]
    refined += by_hand(tiny, given, [renoise(y, 0.5, noise(2, "context"))], [0.5], [2])
    near = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(sampled(TwoStep(0.5), tiny, given), torch.cat(refined, -1), **near)
    torch.testing.assert_close(sampled(TwoStep(0.5, refine=False), tiny, given), torch.cat(first, -1), **near)


@torch.no_grad()
def test_autoregressive_equals_explicit_computation(tiny, features, sampled, noise):
    given = features(2)
    context, chunks = [], []
    for t in range(2):
        x = 80 * noise(t, "step 0")
        for step, sigma in ((1, 80), (2, HALF)):
            levels = [0.1, sigma][-len(context) - 1 :]
            y = by_hand(tiny, given, [*context, x], levels, list(range(t + 1))[-len(levels) :])[-1]
            x = renoise(y, HALF, noise(t, f"step {step}"))
        context = [renoise(y, 0.1, noise(t, "context"))]
        chunks.append(y)
    out = sampled(Autoregressive(sigma_context=0.1), tiny, given)
    torch.testing.assert_close(out, torch.cat(chunks, -1), rtol=0, atol=1e-6)


def test_one_autoregressive_step_equals_two_step_without_refining(tiny, features, sampled):
    given = features(5)
    first = sampled(TwoStep(refine=False), tiny, given)
    assert torch.equal(sampled(Autoregressive(steps=1), tiny, given), first)
    assert torch.equal(sampled(Independent(), tiny, given)[..., :4], first[..., :4])
    assert not torch.allclose(sampled(Independent(), tiny, given)[..., 4:8], first[..., 4:8])


@torch.no_grad()
def test_without_new_noise_steps_are_those_of_the_probability_flow(features, sampled, seeds):
    """For unit-variance Gaussian data the factor of a step is (1 + s t) / (1 + s**2), from level s to level t."""
    given = (torch.zeros(2, 3, 1),)
    levels = [80, *(NoiseSchedule().sigma(1 - step / 4) for step in (1, 2, 3)), 0]
    factor = math.prod((1 + s * t) / (1 + s**2) for s, t in pairwise(levels))
    start = torch.cat([80 * keyed_noise(seeds, t, "step 0", shape=(1, 1, 8)) for t in range(3)], dim=-1)
    for sampler in (Autoregressive(steps=4, new_noise=False), Independent(steps=4, new_noise=False)):
        torch.testing.assert_close(sampled(sampler, Gaussian(), given), factor * start)
        assert not torch.allclose(sampled(replace(sampler, new_noise=True), Gaussian(), given), factor * start)


def test_overlap_takes_both_sides_of_a_seam_from_one_call(features, sampled):
    # Call k on a pair returns k + 0.25 on the left and k + 0.5 on the right. The pairs are calls 2, 4 and 6.
    out = sampled(Overlap(), CallNumber(), features(4))[0, 0, 0].unflatten(0, (4, -1))
    rise = torch.sin(math.pi / 2 * (torch.arange(8) + 0.5) / 8).square()
    torch.testing.assert_close(out[0], torch.full((8,), 2.25))
    torch.testing.assert_close(out[1], 2.5 + rise * (4.25 - 2.5))
    torch.testing.assert_close(out[2], 4.5 + rise * (6.25 - 4.5))
    torch.testing.assert_close(out[3], torch.full((8,), 6.5))


def test_overlap_has_the_smallest_seams(sampled):
    """Chunks have one common level, independent of latents: a seam is the difference of two estimates of it."""

    def seam(sampler):
        x = sampled(sampler, Level(), (torch.zeros(2, 200, 1),))[:, 0, 0]
        return (x[:, 8::8] - x[:, 7:-1:8]).abs().mean().item()

    independent, refined, first = seam(Independent()), seam(TwoStep()), seam(TwoStep(refine=False))
    assert seam(Overlap()) < 0.6 * min(refined, first) and refined < 0.3 * independent


# ------------------------------------------------------------------ settings


def test_samplers_are_registered_configs_of_themselves():
    for cls in (Autoregressive, Independent, Overlap, Parallel, TwoStep):
        sampler = cls.example()
        assert sampler.build() is sampler and sampler == cls() and asdict(sampler)
    assert override(TwoStep(), ["refine=false", "sigma_context=0"]) == TwoStep(0, refine=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoStep(sigma_context=-0.1), "sigma_context is -0.1.* 0"),
        (lambda: TwoStep(sigma_context=math.nan), "sigma_context is nan"),
        (lambda: Autoregressive(steps=0), "steps is 0.* 1"),
        (lambda: Autoregressive(sigma_context=math.inf), "sigma_context is inf"),
        (lambda: Independent(steps=-1), "steps is -1"),
        (lambda: Parallel(steps=0), "steps is 0"),
        (lambda: Parallel(batch=0), "batch is 0"),
        (lambda: Overlap(sigma=0), "sigma is 0.* 0"),
    ],
)
def test_settings_out_of_range_raise(make, message):
    with pytest.raises(PartitaError, match=message):
        make()


def test_noise_levels_above_sigma_max_raise(tiny, seeds):
    with pytest.raises(PartitaError, match="sigma_context is 90.* 80.*sigma_max"):
        TwoStep(sigma_context=90).start(tiny, seeds)
    with pytest.raises(PartitaError, match="sigma is 81.* 80.*sigma_max"):
        Overlap(sigma=81).start(tiny, seeds)


def test_only_independent_accepts_a_window_of_one_chunk(tiny, features, sampled, seeds):
    tiny.window = 1
    for sampler in (TwoStep(), Autoregressive(), Parallel(), Overlap()):
        with pytest.raises(PartitaError, match="window of 2 chunks, TinyDenoiser has 1.*independent"):
            sampler.start(tiny, seeds)
    assert sampled(Independent(), tiny, features(3)).shape[-1] == 12


# ------------------------------------------------------------------ decoders of known outputs


class Known(DenoisingDecoder):
    """One bin and no weights; subclasses define a step on chunks `(batch, 1, 1, w, T)`."""

    window, frames_per_chunk, hop, in_dim = 2, 1, 8, 1
    schedule, sampler = NoiseSchedule(), TwoStep()
    audio_spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))

    def __init__(self) -> None:
        super().__init__()
        self.representation = Lapped(1)

    def condition(self, hidden, layout):
        return (hidden.transpose(1, 2),)

    def forward(self, x, sigma, features):
        chunks = x.unflatten(-1, (sigma.shape[1], -1))
        return self.step(chunks, sigma[:, None, None, :, None]).flatten(-2)


class CallNumber(Known):
    """Return the number of the call, plus 0.25 for the left chunk and 0.5 for the right."""

    count = -1

    def step(self, x, sigma):
        self.count += 1
        return 0 * x + self.count + torch.tensor([0.25, 0.5])[: x.shape[-2], None]


class Gaussian(Known):
    """Exact denoiser of least squared error of standard normal data."""

    def step(self, x, sigma):
        return x / (1 + sigma.square())


class Level(Known):
    """Exact consistency function of a standard normal level that both chunks have in common.

    The left chunk depends on itself, the right one on both, weighted by the precision of their noise.
    """

    def step(self, x, sigma):
        precision = x.shape[-1] / sigma.square()
        observed = x.mean(-1, keepdim=True)
        seen, weight = (precision * observed).cumsum(-2), precision.cumsum(-2)
        return (seen / (weight.square() + weight).sqrt()).expand_as(x)
