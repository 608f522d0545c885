import json
import os
import pickle
import resource
import shutil
import time
from dataclasses import dataclass

import pytest
import torch
from partita_core import (
    Autoencoder,
    Config,
    PartitaError,
    Saved,
    read_json,
    read_tensors,
    register,
    registry,
    write_json,
    write_tensors,
)
from partita_core.files import read_shapes
from partita_core.loading import build_for, check_folder
from partita_testing.dummies import RoundingConfig, autoencoder
from torch import nn


@pytest.fixture
def model(tmp_path):
    autoencoder(quantizer=RoundingConfig()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refused(folder, message):
    with pytest.raises(PartitaError, match=message) as caught:
        Saved.from_pretrained(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def edit(folder, change):
    facts = read_json(folder / "config.json")
    change(facts)
    write_json(folder / "config.json", facts)


# ------------------------------------------------------------------ what lies in a folder


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt", "model.PKL", "weights.pth"])
@pytest.mark.parametrize("beside", [True, False])
def test_folder_with_a_pickle_raises_without_opening_it(model, name, beside):
    (model / name).write_bytes(pickle.dumps(Bomb()))
    if not beside:
        (model / "model.safetensors").unlink()
    refused(model, f"model holds {name}, a pickle.* convert the weights")


@pytest.mark.parametrize("place", ["old", "old/er/.hidden"])
def test_pickle_in_a_subfolder_raises(model, place):
    (model / place).mkdir(parents=True)
    (model / place / "model.pt").write_bytes(pickle.dumps(Bomb()))
    refused(model, f"model holds {place}/model.pt, a pickle")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_link_out_of_the_folder_raises(model, tmp_path, name):
    shutil.move(model / name, tmp_path / "elsewhere")
    (model / name).symlink_to(tmp_path / "elsewhere")
    refused(model, f"model/{name} .*out of the model folder, to .*elsewhere")
    (model / name).unlink()
    (model / name).symlink_to("../elsewhere")
    refused(model, f"model/{name} .*out of the model folder")


def test_linked_folder_is_read(model, tmp_path):
    (tmp_path / "latest").symlink_to(model)
    assert Autoencoder.from_pretrained(tmp_path / "latest").space_id == Autoencoder.from_pretrained(model).space_id


def test_links_of_hub_downloads_are_followed(model, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for i, name in enumerate(["config.json", "model.safetensors"]):
        shutil.copy(model / name, blobs / str(i))
        (snapshot / name).symlink_to(f"../../blobs/{i}")
    assert Autoencoder.from_pretrained(snapshot).space_id == Autoencoder.from_pretrained(model).space_id


def test_link_loops_and_nonfiles_raise(model):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("config.json")
    refused(model, "config.json")
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    refused(model, "cannot read .*config.json: .*not a file")
    (model / "config.json").rmdir()
    os.mkfifo(model / "config.json")  # reading it would block forever
    refused(model, "cannot read .*config.json: .*not a file")


@pytest.mark.parametrize("target", [".", "..", "../../other", "codec"])
def test_nested_model_must_be_a_subfolder(model, tmp_path, target):
    """A link to the folder itself must not be followed forever."""
    (tmp_path / "other").mkdir()
    (model / "codec").symlink_to(target)
    with pytest.raises(PartitaError, match="out of the model folder|cannot read"):
        check_folder(model, ["codec"], model)


# ------------------------------------------------------------------ config.json


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"schema": 1, "schema": 1}', "config.json is not JSON: duplicate key 'schema'"),
        ('{"schema": NaN}', "config.json is not JSON: 'NaN' is not a finite number"),
        ('{"schema": -Infinity}', "config.json is not JSON: '-Infinity' is not a finite number"),
        ('{"schema": 1e999}', "config.json is not JSON: '1e999' is not a finite number"),
        ("1" * 5000, "config.json is not JSON: .*number"),
        ("[" * 100_000, "config.json is not JSON: .*nested"),
        ("[" * 500 + "]" * 500, "config.json is not the config of a Partita model"),
        (" " * (17 << 20), "config.json .*17825792 bytes.*16777216"),
        ('{"schema": 2, "model": "' + "x" * 100_000 + '"}', "model: expected a component with its type, got 'xxx"),
        ('{"schema": 2, "model": {"type": "' + "x" * 100_000 + '"}}', "model: unknown component 'xxx"),
    ],
)
def test_invalid_json_config_raises(model, text, message):
    (model / "config.json").write_text(text)
    refused(model, message)


@pytest.mark.parametrize("figure", [10**9, 10**12, -(10**12), 10**400], ids=["e9", "e12", "-e12", "e400"])
@pytest.mark.parametrize("place", ["encoder.tokens_per_frame", "quantizer.levels"])
def test_excessive_config_values_raise(model, figure, place):
    def change(facts):
        *path, last = place.split(".")
        holder = facts["model"]
        for key in path:
            holder = holder[key]
        holder[last] = figure

    edit(model, change)
    refused(model, r"config value -?10+( \.\.\. 0+)?.* 100000000")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_model_larger_than_its_weights_raises_before_allocation(model):
    before, begin = peak(), time.process_time()
    edit(model, lambda facts: facts["model"].update(latent_dim=10**8))
    refused(model, "latent_dim is 100000000; it must be at least 1 and at most 65536")
    edit(
        model,
        lambda facts: (facts["model"].update(latent_dim=2), facts["model"]["encoder"].update(tokens_per_frame=10**7)),
    )
    refused(model, r"describes a model with a tensor of \(.*0000000.*\)")
    edit(model, lambda facts: facts["model"]["encoder"].update(tokens_per_frame=10**4))
    refused(model, "another model")
    assert peak() - before < 2**27 and time.process_time() - begin < 5


@register("testing/stack")
@dataclass(frozen=True)
class StackConfig(Config):
    """Layers, tables that are not saved, and a divisor."""

    layers: int = 1
    table: int = 1
    divisor: int = 1

    def build(self):
        return Stack(self.layers, self.table, 6 // self.divisor)

    @classmethod
    def example(cls):
        return cls()


class Stack(Saved):
    def __init__(self, layers, table, width):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        for i in range(3):
            self.register_buffer(f"table_{i}", torch.zeros(table), persistent=False)

    def saved_config(self):
        return self.config, {}

    def restore(self, facts):
        pass


del registry._registry[StackConfig.tag]  # not visible to other tests


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._registry, StackConfig.tag, StackConfig)
    StackConfig().build().save_pretrained(tmp_path / "stack")
    return tmp_path / "stack"


def test_more_parts_than_weights_raise_early(stack):
    begin = time.process_time()
    edit(stack, lambda facts: facts["model"].update(layers=10**8))
    refused(stack, "stack .*far more parts than .*weights")
    assert time.process_time() - begin < 5


def test_tables_larger_than_the_weights_raise(stack):
    edit(stack, lambda facts: facts["model"].update(table=3 * 10**7))  # 120 MB each, 360 MB together
    refused(stack, "stack .*360000168 bytes.* 168")


def test_failing_build_raises_with_its_cause(stack):
    edit(stack, lambda facts: facts["model"].update(divisor=0))
    with pytest.raises(PartitaError, match=r"describes a model that cannot be built \(ZeroDivisionError: ") as caught:
        Saved.from_pretrained(stack)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_failing_config_check_raises_partita_error():
    @dataclass(frozen=True)
    class Halves:
        width: int

        def __post_init__(self):
            1 // self.width

    from partita_core import from_dict

    with pytest.raises(PartitaError, match="config: .*Halves"):
        from_dict(Halves, {"width": 0})


def test_checking_draws_no_random_numbers():
    config = StackConfig()
    weights = {name: tensor.to("meta") for name, tensor in config.build().state_dict().items()}
    torch.manual_seed(3)
    plain = config.build()
    torch.manual_seed(3)
    checked = build_for(weights, config, config.build, "weights", kind=Stack)
    for one, other in zip(plain.parameters(), checked.parameters()):
        assert torch.equal(one, other) and not other.is_meta


# ------------------------------------------------------------------ model.safetensors


def test_oversized_header_raises(model):
    raw = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes((10 << 30).to_bytes(8, "little") + raw[8:])
    before = peak()
    refused(model, "is not a safetensors file, or is damaged: .*header too large")
    promised = {"a": {"dtype": "F32", "shape": [5 << 29], "data_offsets": [0, 10 << 30]}}
    write_header(model / "model.safetensors", promised)
    refused(model, "is not a safetensors file, or is damaged: ")
    assert peak() - before < 2**26


def write_header(path, said, content=b""):
    text = json.dumps(said).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


@pytest.mark.parametrize("read", [read_shapes, read_tensors])
def test_impossible_shape_raises(tmp_path, read):
    write_header(tmp_path / "x.safetensors", {"a": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}})
    with pytest.raises(PartitaError, match="x.safetensors is not a safetensors file, or is damaged: ") as caught:
        read(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_shapes, read_tensors])
def test_unsupported_dtype_raises(tmp_path, read):
    said = {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    write_header(tmp_path / "x.safetensors", said, bytes(4))
    with pytest.raises(PartitaError, match="x.safetensors: 'a' is F8_E4M3"):
        read(tmp_path / "x.safetensors")


def test_read_shapes_returns_meta_tensors(tmp_path):
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int64), "c": torch.zeros((), dtype=torch.bool)}
    tensors |= {"d": torch.zeros(2, dtype=torch.bfloat16), "e": torch.zeros(1, dtype=torch.complex64)}
    write_tensors(tmp_path / "x.safetensors", tensors)
    found = read_shapes(tmp_path / "x.safetensors")
    assert {name: (t.shape, t.dtype, t.device.type) for name, t in found.items()} == {
        name: (t.shape, t.dtype, "meta") for name, t in tensors.items()
    }


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1, -1000])
def test_truncated_weights_raise(model, keep):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(model, "model.safetensors is not a safetensors file, or is damaged: ")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: {"bottleneck.gain": t["bottleneck.gain"].long()}, "gain is torch.int64, expected torch.float32"),
        (lambda t: {"bottleneck.gain": t["bottleneck.gain"].bool()}, "gain is torch.bool, expected torch.float32"),
        (lambda t: {"bottleneck.gain": t["bottleneck.gain"][0]}, r"gain is \(1,\), expected \(4, 1\)"),
        (lambda t: {"x" * 3000: torch.zeros(1)}, "0 missing and 1 unexpected tensors.* xxx"),
    ],
)
def test_weights_that_do_not_fit_raise(model, change, message):
    tensors, _ = read_tensors(model / "model.safetensors")
    write_tensors(model / "model.safetensors", tensors | change(tensors))
    refused(model, f"model .*another model: .*{message}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_nonfinite_weights_raise(model, value):
    tensors, _ = read_tensors(model / "model.safetensors")
    tensors["encoder.layout.weight"].view(-1)[3] = float(value)
    write_tensors(model / "model.safetensors", tensors, finite=False)
    refused(model, r"holds numbers that are not finite \(NaN or infinite\), first encoder.layout.weight")


# ------------------------------------------------------------------ what fuzzing has found


@pytest.mark.parametrize("name", [3, [], "a\nb", "x" * 1000, "\ud800"])
def test_invalid_space_id_raises(model, name):
    edit(model, lambda facts: facts.update(space_id=name))
    refused(model, "is not an identifier")
