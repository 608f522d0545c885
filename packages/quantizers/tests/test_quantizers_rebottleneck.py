import pytest
import torch
from partita_core import PartitaError, Role
from partita_quantizers import FSQConfig, ReBottleneck, ReBottleneckConfig, ResidualVQConfig

TINY = ReBottleneckConfig.example()


def build(config=TINY, dim=5) -> ReBottleneck:
    torch.manual_seed(0)
    return config.build(dim=dim)


def latents(scale=1.0, shift=0.0):
    return shift + scale * torch.randn(8, 5, 20, generator=torch.Generator().manual_seed(3))


def test_context_of_two_layers():
    part = build(ReBottleneckConfig(ResidualVQConfig.example(), width=8, layers=2, heads=2, head_dim=4, window=5))
    assert part.encoder.context == part.decoder.context == (11, 11)
    assert part.context == (22, 22)


def test_codes_are_independent_of_the_scale_of_the_latents():
    one, other = build(), build()
    torch.manual_seed(1)
    one.initialize(latents())
    torch.manual_seed(1)
    other.initialize(latents(1000.0, -40.0))
    codes = one.eval().encode_codes(latents())
    assert torch.equal(other.eval().encode_codes(latents(1000.0, -40.0)), codes)
    torch.testing.assert_close(
        other.codes_to_values(codes), 1000 * one.codes_to_values(codes) - 40, rtol=1e-4, atol=0.1
    )


def test_initialize_measures_the_latents():
    part = build(ReBottleneckConfig(ResidualVQConfig(2, 16, 4), width=8, layers=1, heads=2, head_dim=4, window=3))
    before = part(latents(3.0), stochastic=False)
    part.initialize(latents(3.0))
    after = part(latents(3.0), stochastic=False)
    assert after.metrics["inner_relative_error"] < before.metrics["inner_relative_error"]
    assert after.metrics["usage_0"] == 1 and float(part.std.mean()) == pytest.approx(3, rel=0.1)
    assert set(after.losses) == set(part.loss_weights) == {"commitment"}


def test_inner_quantizer_can_be_fsq():
    part = build(ReBottleneckConfig(FSQConfig((3, 5)), width=8, layers=1, heads=2, head_dim=4, window=3))
    part.initialize(latents())
    assert part.codebook_sizes == (15,) * 4
    assert part.eval().encode_codes(latents(), 2)[:, 2:].eq(-1).all()
    assert part.codes_to_values(part.encode_codes(latents())).shape == latents().shape


def test_constant_channel_is_finite():
    silent = latents()
    silent[:, 2] = 7.0
    part = build()
    part.initialize(silent)
    assert torch.isfinite(part.eval()(silent).values).all()


def test_context_is_the_sum_of_its_parts_or_unbounded():
    class Everything(Role):
        context = (None, 0)

    part = build()
    assert part.context == tuple(a + b for a, b in zip(part.encoder.context, part.decoder.context))
    unbounded = ReBottleneck(5, encoder=Everything(), quantizer=part.quantizer, decoder=part.decoder)
    assert unbounded.context == (None, None)


def test_arrays_and_lists_of_codes_are_accepted():
    part = ReBottleneckConfig.example().build(dim=4).eval()
    codes = part.encode_codes(torch.ones(1, 4, 5))
    for given in (codes.short(), codes.numpy(), codes.tolist()):
        assert torch.equal(part.codes_to_values(given), part.codes_to_values(codes))
    for use in (lambda: part.codes_to_values(codes[..., :0]), lambda: part(torch.ones(1, 4, 0))):
        with pytest.raises(PartitaError, match="0"):
            use()
