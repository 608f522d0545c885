"""Frozen modules, hashes, noise and precision."""

import copy

import pytest
import torch
from partita_core import Frozen, PartitaError, frozen_call, hashed_seed, keyed_noise, upcast
from partita_core.fingerprints import weights_hash
from torch import nn

# ------------------------------------------------------------------ Frozen


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = Frozen(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)))
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.frozen(x))


def test_frozen_is_not_in_the_module_tree():
    holder = Holder()
    assert {name for name, _ in holder.named_parameters()} == {"head.weight", "head.bias"}
    assert set(holder.state_dict()) == {"head.weight", "head.bias"}
    assert not list(holder.frozen.buffers()) and len(list(holder.modules())) == 3


def test_frozen_stays_in_eval_mode():
    holder = Holder().train()
    assert holder.training and not any(m.training for m in holder.frozen.module.modules())
    x = torch.randn(4, 3)
    assert torch.equal(holder(x), holder(x))
    holder.frozen.check()


def test_gradients_pass_through_frozen_modules():
    holder, x = Holder(), torch.randn(4, 3, requires_grad=True)
    holder(x).sum().backward()
    assert (x.grad != 0).any()
    assert all(p.grad is None and not p.requires_grad for p in holder.frozen.module.parameters())


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.double, nn.Module.bfloat16])
def test_frozen_keeps_its_dtype(cast):
    holder = Holder()
    before = holder.frozen.sha256
    cast(holder)
    assert holder.head.weight.dtype != torch.float32
    assert {p.dtype for p in holder.frozen.module.parameters()} == {torch.float32}
    holder.to(torch.float64)
    holder.frozen.check()
    assert weights_hash(holder.frozen.module.state_dict()) == before


def test_frozen_follows_the_device():
    holder = Holder()
    holder.to("meta", torch.float16)
    module = holder.frozen.module
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float32)}


def test_frozen_is_shared_by_deepcopy():
    holder = Holder()
    twin = copy.deepcopy(holder)
    assert twin.frozen is holder.frozen and twin.head is not holder.head
    twin.half()
    assert {p.dtype for p in holder.frozen.module.parameters()} == {torch.float32}


def test_frozen_check_raises_for_changed_weights():
    frozen = Holder().frozen
    frozen.check()
    with torch.no_grad():
        frozen.module[0].weight[0, 0] += 1e-3
    with pytest.raises(PartitaError, match="frozen Sequential have changed"):
        frozen.check()


def test_frozen_without_tensors():
    frozen = Frozen(nn.Tanh()).half()
    assert torch.equal(frozen(torch.ones(1)), torch.ones(1).tanh())
    frozen.check()


# ------------------------------------------------------------------ frozen_call


def normed():
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 4, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Conv1d(4, 4, 1)),
        nn.BatchNorm1d(4),
    )


def test_frozen_call_passes_gradients_only_to_inputs():
    module = normed()
    x = torch.randn(2, 2, 9, requires_grad=True)
    frozen_call(module.eval(), x).square().sum().backward()
    assert (x.grad != 0).any()
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_frozen_call_equals_module_call():
    module = normed().eval()
    x = torch.randn(2, 2, 9)
    other = x.clone().requires_grad_()
    expected = module(other)
    assert torch.equal(frozen_call(module, x), expected)
    expected.sum().backward()
    direct = other.grad.clone()
    other.grad = None
    frozen_call(module, other).sum().backward()
    torch.testing.assert_close(other.grad, direct)


def test_frozen_call_passes_keywords():
    class Scaled(nn.Linear):
        def forward(self, x, *, scale):
            return scale * super().forward(x)

    module, x = Scaled(2, 2), torch.ones(1, 2)
    assert torch.equal(frozen_call(module, x, scale=3.0), module(x, scale=3.0))


# ------------------------------------------------------------------ weights_hash


def test_hash_depends_on_names_shapes_values_and_description():
    tensors = {"a": torch.arange(6.0), "b": torch.arange(3)}
    name = weights_hash(tensors, {"type": "x"})
    assert len(name) == 16 and int(name, 16) >= 0
    assert weights_hash(dict(reversed(tensors.items())), {"type": "x"}) == name
    others = [
        weights_hash(tensors),
        weights_hash(tensors, {"type": "y"}),
        weights_hash({"a": tensors["a"], "c": tensors["b"]}, {"type": "x"}),
        weights_hash(tensors | {"a": torch.arange(6.0).view(2, 3)}, {"type": "x"}),
        weights_hash(tensors | {"a": torch.arange(6.0) + 1e-6}, {"type": "x"}),
        weights_hash(tensors | {"b": torch.arange(3.0)}, {"type": "x"}),
    ]
    assert len({name, *others}) == 7


def test_hash_equals_known_value():
    """Equal on every machine and in every version, since stored latents depend on it."""
    assert weights_hash({}) == "74234e98afe7498f"
    assert weights_hash({"w": torch.tensor([[1.0, -2.0]])}, ["x"]) == "c9db0ca3e0555ea5"


def test_hash_is_equal_for_wider_dtypes_and_views():
    weights = torch.randn(4, 6)
    name = weights_hash({"w": weights})
    assert weights_hash({"w": weights.double()}) == name
    assert weights_hash({"w": weights.T.contiguous().T}) == name
    assert weights_hash({"w": weights.half()}) != name
    assert weights_hash({"s": torch.tensor(2.0), "e": torch.empty(0)}) != weights_hash({"s": torch.tensor(3.0)})


# ------------------------------------------------------------------ noise


def test_noise_depends_on_seed_and_key_only():
    seeds = [3, 1, 3, 2**62]
    noise = keyed_noise(seeds, 0, "step", shape=(2, 5))
    assert noise.shape == (4, 2, 5) and noise.dtype == torch.float32 and noise.device.type == "cpu"
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    for i, seed in enumerate(seeds):
        assert torch.equal(keyed_noise([seed], 0, "step", shape=(2, 5))[0], noise[i])
        assert torch.equal(keyed_noise(torch.tensor([7, seed]), 0, "step", shape=(2, 5))[1], noise[i])
    for key in ((1, "step"), (0, "stop"), (0,)):
        assert not torch.equal(keyed_noise([3], *key, shape=(2, 5))[0], noise[0])


def test_noise_preserves_global_random_state():
    before = torch.get_rng_state()
    first = keyed_noise([0], shape=(3,))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(keyed_noise([0], shape=(3,)), first)


def test_noise_is_standard_normal():
    noise = keyed_noise(range(100), 1, shape=(100,))
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.03
    assert abs(float(noise.mean(1).std()) - 0.1) < 0.03  # items are independent


def test_hashed_seed_equals_known_value():
    assert hashed_seed(0) == 4246866556266386882
    assert len({hashed_seed(*key) for key in ((0,), (1,), ("a",), (0, 1), (1, 0), (0, "1", 2))}) == 6
    assert all(0 <= hashed_seed(i, "x") < 2**63 for i in range(50))


# ------------------------------------------------------------------ precision


def test_upcast():
    for dtype in (torch.float16, torch.bfloat16):
        assert upcast(torch.ones(2, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64, torch.int64):
        x = torch.ones(2, dtype=dtype)
        assert upcast(x) is x
