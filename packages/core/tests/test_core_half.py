import json
from functools import partial
from pathlib import Path

import pytest
import torch
from partita_core import Autoencoder, Frozen, Saved, loading, read_tensors, round_to_half
from partita_core.files import read_shapes
from partita_core.half import exactly_half
from partita_testing.dummies import RoundingConfig, autoencoder
from torch import nn


class Held(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", value)


def rounded(value):
    module = Held(value.clone())
    round_to_half(module)
    assert module.value.dtype == value.dtype
    return module.value


def test_matrices_are_rounded_and_keep_their_dtype():
    weight = torch.randn(8, 16)
    weight[0, 0] = 1e-9  # nothing beside the rest of its row
    assert torch.equal(rounded(weight), weight.half().float()) and rounded(weight)[0, 0] == 0
    kernel = torch.randn(4, 3, 5, dtype=torch.float64)
    assert torch.equal(rounded(kernel), kernel.half().double())


@pytest.mark.parametrize("shape", [(5,), (1, 5, 1), ()], ids=str)
def test_vectors_keep_their_values(shape):
    vector = torch.full(shape, 1 / 3)
    assert torch.equal(rounded(vector), vector)


@pytest.mark.parametrize("value", [70_000.0, 1e-6, 3e-9], ids=["too large", "subnormal", "to zero"])
def test_matrix_that_half_precision_cannot_hold_keeps_its_values(value):
    matrix = torch.rand(3, 4) + 1
    matrix[1] *= value  # one row is enough
    assert torch.equal(rounded(matrix), matrix)


def test_integers_and_zeros_keep_their_values():
    for tensor in (torch.full((2, 3), 2049), torch.zeros(2, 3), torch.zeros(0, 3), torch.zeros(3, 0)):
        assert torch.equal(rounded(tensor), tensor)


def test_only_exact_tensors_are_stored_in_half():
    tensors = {
        "exact": torch.tensor([0.5, 65504.0]),
        "inexact": torch.tensor([0.5, 0.1]),
        "integer": torch.tensor([1, 2]),
        "complex": torch.tensor([1j]),
    }
    found = exactly_half(tensors)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "exact": torch.float16,
        "inexact": torch.float32,
        "integer": torch.int64,
        "complex": torch.complex64,
    }
    assert all(torch.equal(found[name].to(tensor.dtype), tensor) for name, tensor in tensors.items())


@pytest.fixture
def codec():
    codec = autoencoder(quantizer=RoundingConfig())
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.uniform_(0.1, 1.0)
    return codec


def test_rounded_model_has_its_own_space_which_saving_in_half_keeps(codec, tmp_path):
    space, audio = codec.space_id, 0.3 * torch.randn(1, 2, 100)
    round_to_half(codec)
    assert codec.space_id != space
    model = codec
    for name in ("once", "twice"):
        model.save_pretrained(tmp_path / name, half=True)
        model = Autoencoder.from_pretrained(tmp_path / name)
        assert (model.space_id, model.codes_id) == (codec.space_id, codec.codes_id)
        model.train().eval()  # drops the stored fingerprints, so that they are computed from the weights
        assert (model.space_id, model.codes_id) == (codec.space_id, codec.codes_id)
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype
            for a, b in zip(model.state_dict().values(), codec.state_dict().values())
        )
        assert torch.equal(model.decode(model.encode(audio)), codec.decode(codec.encode(audio)))
    stored, _ = read_tensors(tmp_path / "once" / "model.safetensors")
    kinds = {name: tensor.dtype for name, tensor in stored.items() if tensor.squeeze().ndim > 1}
    assert kinds and set(kinds.values()) == {torch.float16}


def test_saving_in_half_loses_nothing_of_weights_that_were_not_rounded(codec, tmp_path):
    codec.save_pretrained(tmp_path / "model", half=True)
    back = Saved.from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), codec.state_dict().values()))
    shapes = read_shapes(tmp_path / "model" / "model.safetensors")
    assert torch.float32 in {tensor.dtype for tensor in shapes.values()}
    assert json.loads(Path(tmp_path / "model" / "config.json").read_text())["space_id"] == codec.space_id


def test_frozen_base_of_a_model_is_not_rounded():
    base = nn.Linear(4, 4)
    model = nn.ModuleList([Frozen(base), nn.Linear(4, 4)])
    before = base.weight.clone()
    round_to_half(model)
    assert torch.equal(base.weight, before) and torch.equal(model[1].weight, model[1].weight.half().float())


def test_size_limit_of_loading_counts_half_precision_as_it_is_in_memory(monkeypatch):
    monkeypatch.setattr(loading, "_EXTRA_BYTES", 0)
    weights = {"weight": torch.zeros(100, 100, dtype=torch.float16, device="meta")}
    build = partial(nn.Linear, 100, 100, bias=False)
    module = loading.build_for(weights, RoundingConfig(), build, "model", kind=nn.Linear)
    assert module.weight.dtype == torch.float32
