"""Random resolutions per step, for every multi-resolution loss."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError
from partita_losses import CompandedSTFTLossConfig, MultiResolutionSTFTConfig, MultiScaleMelConfig, spectral_distance

MONO = AudioSpec(16_000, 1, (ChannelLayout.MONO,))
CONFIGS = [
    MultiResolutionSTFTConfig.example(),
    MultiScaleMelConfig(num_mels=(5, 10, 20), win_lengths=(32, 64, 128)),
    replace(CompandedSTFTLossConfig.example(), random_offset=False),
]

each_loss = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.tag)


def signals():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 2, 1, 400, generator=generator, dtype=torch.float64)
    return prediction.requires_grad_(), target


def build(config, number):
    return replace(config, resolutions_per_step=number).build(audio_spec=MONO).double()


def measured(loss):
    """Values and gradient of one call."""
    prediction, target = signals()
    values = loss(prediction, target)
    return torch.cat([values.detach(), torch.autograd.grad(values.sum(), prediction)[0].flatten()])


@each_loss
@pytest.mark.parametrize("number", [1, 2])
def test_mean_over_all_subsets_is_the_full_loss(config, number):
    loss, full = build(config, number), measured(build(config, None))
    torch.manual_seed(0)
    found = {}
    for _ in range(40):
        one = measured(loss)
        found[round(float(one[0]), 9)] = one
    assert len(found) == 3  # subsets of 1 or of 2 of 3
    torch.testing.assert_close(torch.stack(list(found.values())).mean(0), full, rtol=1e-9, atol=1e-12)


@each_loss
def test_subsets_are_drawn_uniformly_and_scaled(config):
    loss, (prediction, target) = build(config, 2), signals()
    pairs = [1.5 * spectral_distance(pair, prediction, target, None)[0] for pair in combinations(loss.scales, 2)]
    wanted = torch.stack(pairs).detach()
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = torch.stack([loss(prediction, target)[0] for _ in range(150)])
    counts = [int((drawn - value).abs().lt(1e-9).sum()) for value in wanted]
    assert sum(counts) == 150 and min(counts) > 30


@each_loss
def test_eval_mode_uses_all_resolutions_and_draws_nothing(config):
    loss, full = build(config, 1).eval(), measured(build(config, None))
    state = torch.get_rng_state()
    torch.testing.assert_close(measured(loss), full, rtol=0, atol=0)
    torch.testing.assert_close(measured(build(config, 3)), full, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@each_loss
def test_draws_depend_on_the_global_seed_only(config):
    loss = build(config, 1)

    def run(seed):
        torch.manual_seed(seed)
        return torch.stack([measured(loss) for _ in range(6)])

    first = run(3)
    assert torch.equal(run(3), first) and not torch.equal(run(4), first)


@each_loss
def test_more_resolutions_per_step_than_there_are(config):
    with pytest.raises(PartitaError, match=r"resolutions_per_step is 4.*3"):
        build(config, 4)
    with pytest.raises(PartitaError, match="resolutions_per_step"):
        replace(config, resolutions_per_step=0)
