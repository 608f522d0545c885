"""Fingerprints of latent spaces: one for each state of the weights."""

import pickle
from copy import deepcopy

import pytest
import torch
from partita_core import Autoencoder, PartitaError
from partita_core.fingerprints import uncompiled_state
from partita_testing.dummies import RoundingConfig, autoencoder, blocks


def noise() -> torch.Tensor:
    return 0.3 * torch.randn(1, 2, 50, generator=torch.Generator().manual_seed(1))


def write_in_place(codec):
    codec.encoder.layout.weight.add_(1)


def exchange_a_weight(codec):
    codec.encoder.layout.weight = torch.nn.Parameter(codec.encoder.layout.weight + 1)


def exchange_a_part(codec):
    codec.encoder = autoencoder(seed=1).encoder


def exchange_the_data(codec):
    codec.encoder.layout.weight.data = codec.encoder.layout.weight.data + 1


def step_an_optimizer(codec):
    optimizer = torch.optim.SGD(codec.bottleneck.parameters(), lr=0.1)
    with torch.enable_grad():
        codec.bottleneck(torch.randn(1, 4, 3)).values.square().sum().backward()
    optimizer.step()


def load_a_part(codec):
    codec.encoder.load_state_dict(autoencoder(seed=1).encoder.state_dict())


CHANGES = [write_in_place, exchange_a_weight, exchange_a_part, exchange_the_data, step_an_optimizer, load_a_part]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changing_weights_in_eval_mode_changes_space_id(change, tmp_path):
    codec = autoencoder()
    stale = codec.encode(noise())
    with torch.no_grad():
        change(codec)
    assert not codec.training and codec.space_id != stale.space_id
    with pytest.raises(PartitaError, match=f"space_id '{stale.space_id}'.*'{codec.space_id}'"):
        codec.decode(stale)
    # The saved model decodes its own latents.
    fresh = codec.encode(noise())
    codec.save_pretrained(tmp_path / "model")
    back = Autoencoder.from_pretrained(tmp_path / "model")
    assert torch.equal(back.decode(fresh), codec.decode(fresh))


def test_codes_id_depends_on_quantizer_and_latents():
    codec = autoencoder(quantizer=RoundingConfig())
    space, codes = codec.space_id, codec.codes_id
    codec.quantizer.register_buffer("extra", torch.ones(1))
    assert codec.space_id == space and codec.codes_id != codes
    tuned = codec.codes_id
    with torch.no_grad():
        codec.quantizer.extra.add_(1)
    assert codec.codes_id not in (codes, tuned)
    tuned = codec.codes_id
    with torch.no_grad():
        write_in_place(codec)
    assert codec.space_id != space and codec.codes_id != tuned


@pytest.mark.parametrize("copied", [deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))], ids=["copy", "pickle"])
def test_half_copy_keeps_space_id_until_changed(copied):
    codec = blocks()  # torch cannot pickle parametrized modules
    name = codec.space_id
    twin = copied(codec.half())
    assert (codec.space_id, twin.space_id) == (name, name)
    with torch.no_grad():
        twin.rotation.add_(1)
    assert codec.space_id == name != twin.space_id


def test_copy_of_half_parts_keeps_space_id():
    codec = autoencoder(quantizer=RoundingConfig())
    names = codec.space_id, codec.codes_id
    twin = deepcopy(codec.half())
    assert (twin.space_id, twin.codes_id) == names
    with torch.no_grad():
        write_in_place(twin)
    assert twin.space_id != names[0] and twin.codes_id != names[1] and codec.space_id == names[0]


def test_space_id_is_computed_once_per_state(monkeypatch):
    codec, count = autoencoder(), []
    plain = codec._hash_space
    monkeypatch.setattr(codec, "_hash_space", lambda: count.append(0) or plain())
    for _ in range(3):
        codec.decode(codec.encode(noise()))
    with torch.no_grad():
        codec.decoder.layout.weight.add_(1)  # not part of the hash
    codec.encode(noise())
    assert len(count) == 1


def test_writing_to_an_optimized_model_changes_space_id():
    codec = autoencoder()
    latents = codec.encode(noise())
    codec.optimize()
    codec.decode(latents)
    with torch.no_grad():
        codec.encoder.conv.weight.add_(1)
    with pytest.raises(PartitaError, match="space_id"):
        codec.decode(latents)


# ------------------------------------------------------------------ compiled parts

# Importing torch's compiler raises a deprecation warning.
compiling = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
PARTS = ["encoder", "bottleneck", "decoder", "quantizer"]


@compiling
@pytest.mark.parametrize("part", PARTS)
def test_compiled_part_is_saved_under_original_names(part, tmp_path):
    codec, plain = autoencoder(quantizer=RoundingConfig()), autoencoder(quantizer=RoundingConfig())
    setattr(codec, part, torch.compile(getattr(codec, part), backend="eager"))
    assert uncompiled_state(codec).keys() == plain.state_dict().keys()
    assert (codec.space_id, codec.codes_id) == (plain.space_id, plain.codes_id)
    codec.save_pretrained(tmp_path / "model")
    back = Autoencoder.from_pretrained(tmp_path / "model")
    latents = plain.encode(noise())
    assert back.space_id == plain.space_id and torch.equal(back.decode(latents), plain.decode(latents))


@compiling
def test_compiled_layer_is_saved_under_original_name(tmp_path):
    codec = autoencoder()
    codec.encoder.conv = torch.compile(codec.encoder.conv, backend="eager")
    codec.save_pretrained(tmp_path / "model")
    assert Autoencoder.from_pretrained(tmp_path / "model").space_id == autoencoder().space_id


@compiling
def test_compiled_quantizing_bottleneck_makes_codes():
    codec, plain = autoencoder(bottleneck=RoundingConfig()), autoencoder(bottleneck=RoundingConfig())
    codec.bottleneck = torch.compile(codec.bottleneck, backend="eager")
    latents = codec.encode(noise())
    assert torch.equal(latents.codes, plain.encode(noise()).codes)
    assert torch.equal(codec.decode(latents.only_codes()), plain.decode(latents))


def add_a_weight(codec):
    codec.encoder.register_parameter("adapter", torch.nn.Parameter(torch.ones(1)))


def widen(codec):
    codec.encoder.layout = torch.nn.Embedding(5, codec.encoder.layout.embedding_dim)


def spoil(codec):
    with torch.no_grad():
        codec.decoder.layout.weight[0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_a_weight, "0 missing and 1 unexpected.*encoder.adapter"),
        (widen, r"encoder.layout.weight is \(5, \d+\), expected \(3, \d+\)"),
        (spoil, "numbers that are not finite .*decoder.layout.weight"),
    ],
)
def test_model_that_could_not_be_loaded_is_not_saved(change, message, tmp_path):
    codec = autoencoder()
    codec.save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    change(codec)
    with pytest.raises(PartitaError, match=message):
        codec.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
