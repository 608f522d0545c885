"""Split quantizer: groups of channels, order of levels."""

import pytest
import torch
from partita_core import PartitaError
from partita_quantizers import FSQConfig, ResidualVQConfig, SplitConfig

CONFIG = SplitConfig(FSQConfig(levels=(5,), bound="clamp"), ResidualVQConfig(num_quantizers=3, codebook_size=16))


def test_split_equals_its_quantizers_on_their_channels():
    part = CONFIG.build(dim=6).eval()
    hidden = torch.randn(2, 6, 30)
    output = part(hidden)
    first, rest = part.first(hidden[:, :1]), part.rest(hidden[:, 1:])
    assert torch.equal(output.values, torch.cat([first.values, rest.values], dim=1))
    assert torch.equal(output.codes, torch.cat([first.codes, rest.codes], dim=1))
    assert part.codebook_sizes == (5, 16, 16, 16)
    assert output.losses["rest_commitment"] == rest.losses["commitment"]
    assert part.loss_weights == {"rest_commitment": 0.25}


def test_split_levels_of_the_rest_are_dropped_first():
    part = CONFIG.build(dim=6).eval()
    hidden = torch.randn(1, 6, 30)
    codes = part.encode_codes(hidden, 1)
    values = part.codes_to_values(codes)
    assert torch.equal(values[:, :1], part.first(hidden[:, :1]).values)
    assert (codes[:, 1:] == -1).all() and (values[:, 1:] == 0).all()


def test_split_initializes_the_quantizers_that_can_be():
    part = CONFIG.build(dim=6)
    torch.manual_seed(0)
    hidden = torch.randn(1, 6, 200)
    before = part(hidden, stochastic=False).metrics["rest_relative_error"]
    part.initialize(hidden)
    assert part(hidden, stochastic=False).metrics["rest_relative_error"] < 0.8 * before


def test_split_needs_channels_for_both():
    with pytest.raises(PartitaError, match=r"first_dim is 4.* 4 channels"):
        SplitConfig(FSQConfig(levels=(5,)), first_dim=4).build(dim=4)
