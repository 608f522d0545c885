import copy

import pytest
import torch
from partita_core import PartitaError, build, components, from_dict, to_dict
from partita_core.registry import Config
from partita_quantizers import FSQConfig, ResidualVQConfig
from torch.export import Dim

CONFIGS = {
    "residual": ResidualVQConfig.example(),
    "residual_plain": ResidualVQConfig(num_quantizers=3, codebook_size=16, codebook_dim=None),
    "residual_normalized": ResidualVQConfig(num_quantizers=3, codebook_size=16, codebook_dim=4, normalize=True),
    "fsq": FSQConfig.example(),
    "fsq_clamp": FSQConfig(levels=(8, 5, 3, 4), bound="clamp"),
}
every = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def made(config, dtype=torch.float32, dim=8):
    """A quantizer that has been trained a little, and hidden frames."""
    torch.manual_seed(0)
    module = config.build(dim=dim).to(dtype)
    module(torch.randn(4, dim, 40, dtype=dtype))
    return module, torch.randn(3, dim, 5, dtype=dtype)


def test_both_are_registered():
    assert {"quantizer/residual", "quantizer/fsq"} <= set(components("quantizer/*"))


@every
def test_config_round_trip(config):
    tagged = to_dict(config)
    assert from_dict(Config, tagged) == config
    module = build(tagged, dim=8)
    assert module.config == config
    assert module.dim == module.in_dim == 8
    assert module.num_quantizers == len(module.codebook_sizes)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_laws_of_a_quantizer(config, dtype):
    module, hidden = made(config, dtype)
    module.eval()
    out = module(hidden)
    assert out.codes.dtype == torch.int64
    assert out.codes.shape == (3, module.num_quantizers, 5)
    assert out.values.dtype == dtype
    assert torch.equal(out.codes, module.encode_codes(hidden))
    assert torch.equal(out.values, module.codes_to_values(out.codes))
    for level, size in enumerate(module.codebook_sizes):
        assert 0 <= out.codes[:, level].min()
        assert out.codes[:, level].max() < size


@every
def test_fewer_levels_are_a_prefix(config):
    module, hidden = made(config)
    whole = module.encode_codes(hidden)
    for count in range(1, module.num_quantizers + 1):
        codes = module.encode_codes(hidden, count)
        assert torch.equal(codes[:, :count], whole[:, :count])
        assert (codes[:, count:] == -1).all()
        assert codes.shape == whole.shape


@every
def test_dropped_levels_contribute_zero(config):
    module, hidden = made(config)
    if isinstance(config, ResidualVQConfig) and config.codebook_dim:
        with torch.no_grad():  # a bias must be dropped with its level
            module.levels[0].project_out.bias.fill_(3.0)
    codes = module.encode_codes(hidden)
    assert torch.equal(module.codes_to_values(torch.full_like(codes, -1)), torch.zeros_like(hidden))
    first, rest = codes.clone(), codes.clone()
    first[:, 1:], rest[:, :1] = -1, -1
    total = module.codes_to_values(first) + module.codes_to_values(rest)
    torch.testing.assert_close(total, module.codes_to_values(codes))


@every
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_the_input(config, training):
    module, hidden = made(config)
    module.train(training)
    hidden = (0.5 * hidden.tanh()).requires_grad_()
    out = module(hidden)
    (weights := torch.randn_like(out.values)).mul(out.values).sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad.flatten(1).norm(dim=1) > 0.1 * weights.flatten(1).norm(dim=1)).all()


@every
def test_silence_is_finite(config):
    module, hidden = made(config)
    hidden = torch.zeros_like(hidden).requires_grad_()
    out = module(hidden)
    (out.values.sum() + sum(out.losses.values())).backward()
    for tensor in (out.values, hidden.grad, *out.metrics.values()):
        assert tensor.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_same_codes_and_values(config, dtype):
    module, _ = made(config)
    module.eval()
    hidden = torch.randn(2, 8, 300)
    codes, values = module.encode_codes(hidden), module(hidden).values
    with torch.autocast("cpu", dtype):
        out = module(hidden)
        assert torch.equal(module.encode_codes(hidden), codes)
        assert torch.equal(out.codes, codes)
        assert torch.equal(out.values, values)
        assert torch.equal(module.codes_to_values(codes), values)
    module.train()
    torch.manual_seed(1)
    twin = copy.deepcopy(module)
    plain = module(hidden)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        cast = twin(hidden)
    assert torch.equal(plain.codes, cast.codes)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in module.state_dict().items())


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_and_inputs_are_lifted(config, dtype):
    module, hidden = made(config)
    module.to(dtype).eval()
    out = module(hidden.to(dtype))
    assert out.values.dtype == torch.float32
    assert torch.equal(out.values, module.codes_to_values(out.codes))
    assert all(value.dtype == torch.float32 for value in (*out.losses.values(), *out.metrics.values()))


@every
def test_eval_and_quiet_training_leave_the_state(config):
    module, hidden = made(config)
    before = copy.deepcopy(module.state_dict())
    quiet = module(hidden, stochastic=False)
    module.encode_codes(hidden)
    module.codes_to_values(quiet.codes)
    module.eval()
    out = module(hidden)
    module(hidden, stochastic=True)
    assert torch.equal(out.codes, quiet.codes)
    assert torch.equal(out.values, quiet.values)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@every
def test_two_forwards_in_one_graph(config):
    module, hidden = made(config)
    hidden.requires_grad_()
    outs = [module(hidden), module(hidden + 1), module(hidden, stochastic=False)]
    sum(out.values.square().sum() + sum(out.losses.values()) for out in outs).backward()
    assert hidden.grad.isfinite().all()


@every
def test_losses_have_weights_and_metrics_are_detached_scalars(config):
    module, hidden = made(config)
    out = module(hidden.requires_grad_())
    assert set(out.losses) == set(module.loss_weights)
    assert out.metrics
    assert all(metric.dim() == 0 and not metric.requires_grad for metric in out.metrics.values())


@every
def test_deepcopy_and_state_dict(config):
    module, hidden = made(config)
    twin, fresh = copy.deepcopy(module).eval(), config.build(dim=8).eval()
    fresh.load_state_dict(module.state_dict())
    module.eval()
    codes = module.encode_codes(hidden)
    assert torch.equal(twin.encode_codes(hidden), codes)
    assert torch.equal(fresh.codes_to_values(codes), module.codes_to_values(codes))


@every
def test_export_with_dynamic_batch_and_length(config):
    module, hidden = made(config)
    module.eval()
    shapes = {"hidden": {0: Dim("batch"), 2: Dim("tokens")}}
    program = torch.export.export(module, (hidden,), dynamic_shapes=shapes).module()
    other = torch.randn(2, 8, 9)
    exported, eager = program(other), module(other)
    assert torch.equal(exported.codes, eager.codes)
    torch.testing.assert_close(exported.values, eager.values)


@every
def test_what_does_not_fit_is_named(config):
    module, hidden = made(config)
    with pytest.raises(PartitaError, match=r"takes \(batch, 8, tokens\), got \(3, 7, 5\)"):
        module(hidden[:, :7])
    count = module.num_quantizers
    for wrong in (0, count + 1):
        with pytest.raises(PartitaError, match=f"num_quantizers is {wrong}; this .* has {count} levels"):
            module.encode_codes(hidden, wrong)
    with pytest.raises(PartitaError, match=f"codes are .1, {count + 1}, 2.; .batch, {count}, tokens."):
        module.codes_to_values(torch.zeros(1, count + 1, 2, dtype=torch.int64))
