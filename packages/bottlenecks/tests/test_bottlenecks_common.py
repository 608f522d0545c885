import copy

import pytest
import torch
from partita_bottlenecks import (
    IdentityConfig,
    NoiseRegularizedConfig,
    SigmaVAEConfig,
    SoftNormConfig,
    TanhConfig,
    VAEConfig,
)
from partita_core import PartitaError, build, components, from_dict, to_dict
from partita_core.registry import Config
from torch.export import Dim

CONFIGS = [IdentityConfig, VAEConfig, TanhConfig, NoiseRegularizedConfig, SigmaVAEConfig, SoftNormConfig]
RANDOM = [VAEConfig, NoiseRegularizedConfig, SigmaVAEConfig, SoftNormConfig]

every = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
random = pytest.mark.parametrize("config", RANDOM, ids=lambda config: config.__name__)


def made(config, dim=8, dtype=torch.float32):
    torch.manual_seed(0)
    module = config.example().build(dim=dim).to(dtype)
    return module, torch.randn(3, module.in_dim, 5, dtype=dtype)


def test_all_are_registered():
    assert {"identity", "vae", "tanh", "noise_regularized", "sigma_vae", "soft_norm"} <= {
        tag.split("/")[1] for tag in components("bottleneck/*")
    }


@every
def test_config_round_trip(config):
    tagged = to_dict(config())
    assert from_dict(Config, tagged) == config()
    module = build(tagged, dim=6)
    assert module.dim == 6
    assert module.config == config()


@every
def test_eval_repeats_itself_and_moves_nothing(config):
    module, hidden = made(config)
    module.eval()
    before = copy.deepcopy(module.state_dict())
    first, second = module(hidden), module(hidden, stochastic=False)
    assert first.values.shape == (3, 8, 5)
    assert first.codes is None
    assert torch.equal(first.values, second.values)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@random
def test_training_is_random_by_the_global_generator(config):
    module, hidden = made(config)
    torch.manual_seed(1)
    first = module(hidden).values
    assert not torch.equal(first, module(hidden).values)
    module, _ = made(config)
    torch.manual_seed(1)
    assert torch.equal(first, module(hidden).values)


@every
def test_stochastic_false_in_training_equals_eval(config):
    module, hidden = made(config)
    before = copy.deepcopy(module.state_dict())
    quiet = module(hidden, stochastic=False).values
    assert torch.equal(quiet, module.eval()(hidden).values)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@every
def test_every_loss_has_a_weight(config):
    module, hidden = made(config)
    assert set(module(hidden).losses) == set(module.loss_weights)


@every
def test_metrics_are_detached_scalars(config):
    module, hidden = made(config)
    metrics = module(hidden.requires_grad_()).metrics
    assert metrics
    assert all(metric.dim() == 0 and not metric.requires_grad for metric in metrics.values())


@every
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_the_input(config, training):
    module, hidden = made(config)
    module.train(training)
    hidden.requires_grad_()
    out = module(hidden)
    (module.expand(out.values).square().sum() + sum(out.losses.values())).backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(parameter.grad is not None for parameter in module.parameters())


@every
def test_silence_is_finite(config):
    module, hidden = made(config)
    hidden = torch.zeros_like(hidden).requires_grad_()
    out = module(hidden)
    (module.expand(out.values).sum() + sum(out.losses.values())).backward()
    for tensor in (out.values, hidden.grad, *out.losses.values(), *out.metrics.values()):
        assert tensor.isfinite().all()


@every
def test_two_forwards_in_one_graph(config):
    module, hidden = made(config)
    hidden.requires_grad_()
    first, second = module(hidden), module(2 * hidden)
    total = module.expand(first.values).square().sum() + module.expand(second.values).square().sum()
    (total + sum(first.losses.values()) + sum(second.losses.values())).backward()
    assert hidden.grad.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted(config, dtype):
    module, hidden = made(config, dtype=dtype)
    out = module(hidden)
    assert out.values.dtype == torch.float32
    assert module.expand(out.values).dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in (*out.losses.values(), *out.metrics.values()))


@every
def test_float64_stays(config):
    module, hidden = made(config, dtype=torch.float64)
    out = module(hidden)
    assert out.values.dtype == module.expand(out.values).dtype == torch.float64
    assert all(value.dtype == torch.float64 for value in (*out.losses.values(), *out.metrics.values()))


@every
def test_items_of_a_batch_do_not_meet_in_eval(config):
    module, hidden = made(config, dtype=torch.float64)
    module.eval()
    whole = module(hidden).values
    alone = torch.cat([module(item).values for item in hidden.split(1)])
    torch.testing.assert_close(whole, alone, rtol=1e-12, atol=1e-12)
    # and no frame sees another: the declared context is (0, 0)
    torch.testing.assert_close(module(hidden[..., 2:3]).values, whole[..., 2:3], rtol=1e-12, atol=1e-12)


@every
def test_deepcopy(config):
    module, hidden = made(config)
    module(hidden)  # after a training step
    module.eval()
    twin = copy.deepcopy(module)
    assert torch.equal(twin(hidden).values, module(hidden).values)


@every
def test_export_with_dynamic_batch_and_length(config):
    module, hidden = made(config)
    module.eval()
    shapes = {"hidden": {0: Dim("batch"), 2: Dim("tokens")}}
    program = torch.export.export(module, (hidden,), dynamic_shapes=shapes).module()
    other = torch.randn(2, module.in_dim, 9)
    torch.testing.assert_close(program(other).values, module(other).values)


@every
def test_a_wrong_width_is_named(config):
    module, _ = made(config)
    with pytest.raises(PartitaError, match=rf"takes {module.in_dim} channels, got 7"):
        module(torch.zeros(1, 7, 4))
    with pytest.raises(PartitaError, match="tokens"):
        module(torch.zeros(module.in_dim, 4))


@every
def test_arrays_are_taken_and_no_tokens_are_refused(config):
    part, hidden = made(config)
    expected = part.eval()(hidden, lengths=torch.tensor([5, 2, 1]))
    found = part(hidden.numpy(), lengths=[5, 2, 1])
    assert torch.equal(found.values, expected.values)
    torch.testing.assert_close(found.metrics, expected.metrics)
    with pytest.raises(PartitaError, match="takes at least one token"):
        part(hidden[..., :0])
