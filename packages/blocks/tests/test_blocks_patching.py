import pytest
import torch
from partita_blocks import Depatchifier, Patchifier, patch_grid
from partita_blocks.patching import ConvBlock, PatchDown, PatchUp, merge
from partita_core import PartitaError
from torch.nn import functional as F

LEVELS = {"channels": (4, 8, 16), "strides": ((4, 2), (2, 1)), "blocks": (1, 2, 1)}
SIZES = [(4, 32, 8), (8, 8, 4), (8, 8, 4), (16, 4, 4)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def perturbed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.double()


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def build(kind, condition_dim=None, dropout=0.0, **changed):
    settings = {"zero_init": True} if kind is Patchifier else {}
    return kind(**LEVELS | settings | changed, condition_dim=condition_dim, dropout=dropout)


def test_shapes_of_maps():
    down, up = perturbed(build(Patchifier)), perturbed(build(Depatchifier))
    maps = down(noise(2, 4, 32, 8))
    assert [tuple(m.shape[1:]) for m in maps] == SIZES
    assert [tuple(m.shape[1:]) for m in up(maps[-1])] == SIZES[::-1]
    assert patch_grid(32, 8, LEVELS["strides"]) == (4, 4)


def test_initial_output_is_that_of_the_shortcuts():
    x = noise(2, 4, 32, 8)
    down, up = build(Patchifier).double(), build(Depatchifier).double()
    maps = down(x)
    averaged = F.avg_pool2d(x, (4, 2))
    torch.testing.assert_close(maps[0], x)
    torch.testing.assert_close(maps[2], torch.cat([averaged, averaged], dim=1))
    torch.testing.assert_close(up(maps[-1])[-1], F.interpolate(F.avg_pool2d(x, (8, 2)), scale_factor=(8.0, 2.0)))


def test_zero_init_can_be_turned_off():
    zeroed = [name for name, p in build(Patchifier, zero_init=False).named_parameters() if not p.any()]
    assert zeroed == []


def test_shortcut_of_patch_down_undoes_that_of_patch_up():
    low = noise(1, 4, 2, 2)
    up = PatchUp(8, 4, stride=(2, 3), condition_dim=None).double()
    down = PatchDown(4, 8, stride=(2, 3), condition_dim=None, zero_init=True).double()
    torch.testing.assert_close(down(up(torch.cat([low, low], dim=1), None), None), torch.cat([low, low], dim=1))


def test_conv_block_formula():
    block = perturbed(ConvBlock(8, condition_dim=None, dropout=0.0, zero_init=True))
    x = noise(2, 8, 5, 4)
    inner = F.conv2d(F.group_norm(x, 2, block.norm.norm.weight), block.inner.weight, padding=1)
    expected = x + F.conv2d(F.silu(inner), block.outer.weight, padding=1)
    torch.testing.assert_close(block(x, None), expected)


def test_features_are_merged_before_each_block():
    """Merging a map with itself multiplies it by the square root of 2."""
    x = noise(2, 4, 32, 8)
    down = build(Patchifier).double()
    plain = down(x)
    factors = [2 ** (i / 2) for i in range(len(plain))]
    merged = down(x, features=[m * factor for m, factor in zip(plain, factors)])
    for i, (own, other) in enumerate(zip(plain, merged)):
        torch.testing.assert_close(other, own * 2 ** ((i + 1) / 2))
    torch.testing.assert_close(merge(x, x), x * 2**0.5)


def test_each_feature_and_skip_has_an_effect():
    x = noise(1, 4, 32, 8)
    down, up = perturbed(build(Patchifier)), perturbed(build(Depatchifier))
    maps = down(x)
    for run, given in ((lambda f: down(x, features=f), maps), (lambda f: up(maps[-1], skips=f), maps[::-1])):
        reference = run(given)[-1]
        for i in range(len(given)):
            changed = [m + 1 if j == i else m for j, m in enumerate(given)]
            assert (run(changed)[-1] - reference).abs().max() > 1e-3


def test_every_norm_is_conditioned():
    down, up = perturbed(build(Patchifier, condition_dim=6)), perturbed(build(Depatchifier, condition_dim=6))
    condition = noise(2, 6).requires_grad_()
    maps = down(noise(2, 4, 32, 8), condition=condition)
    up(maps[-1], condition=condition)[-1].square().sum().backward()
    scales = [p for m in (down, up) for name, p in m.named_parameters() if "scale" in name]
    assert len(scales) == 2 * 6 and all(p.grad.abs().max() > 0 for p in scales)
    assert (condition.grad != 0).all()
    with pytest.raises(AssertionError, match="conditioned"):
        down(noise(2, 4, 32, 8))


def test_output_is_batch_independent():
    down = perturbed(build(Patchifier))
    x = noise(3, 4, 32, 8)
    for i in range(3):
        torch.testing.assert_close(down(x)[-1][i : i + 1], down(x[i : i + 1])[-1], rtol=0, atol=1e-12)


def test_channels_last_is_preserved_and_tokens_are_a_view():
    x = torch.randn(2, 4, 32, 8).contiguous(memory_format=torch.channels_last)
    down, up = build(Patchifier), build(Depatchifier)
    maps = down(x)
    for m in (*maps, *up(maps[-1], skips=maps[::-1])):
        assert m.is_contiguous(memory_format=torch.channels_last)
    tokens = maps[-1].permute(0, 2, 3, 1).flatten(1, 2)
    assert tokens.data_ptr() == maps[-1].data_ptr()


def test_dropout_is_off_in_eval():
    down = perturbed(build(Patchifier, dropout=0.5))
    x = noise(1, 4, 32, 8)
    assert not torch.equal(down(x)[-1], down(x)[-1])
    down.eval()
    assert torch.equal(down(x)[-1], down(x)[-1])


@pytest.mark.parametrize("kind", [Patchifier, Depatchifier])
@pytest.mark.parametrize(
    "changed, message",
    [
        ({"channels": (4, 8)}, "2 channels, 3 blocks and 2 strides"),
        ({"blocks": (1, 1)}, "3 channels, 2 blocks and 2 strides"),
        ({"blocks": (1, 0, 1)}, r"\(1, 0, 1\)"),
        ({"channels": (4, 8, 12)}, r"\(4, 8, 12\)"),
    ],
)
def test_invalid_levels_raise(kind, changed, message):
    with pytest.raises(PartitaError, match=message):
        build(kind, **changed)


def test_indivisible_maps_raise():
    with pytest.raises(PartitaError, match="36 rows and 8 columns; .* 8 and 2"):
        patch_grid(36, 8, LEVELS["strides"])
