"""Written files are valid for their readers, and numbers are checked in the dtype in which they are used."""

from dataclasses import replace

import pytest
import torch
from partita_core import (
    Autoencoder,
    Latents,
    LatentSpec,
    PartitaError,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from partita_testing.dummies import RoundingConfig, autoencoder


@pytest.fixture
def latents():
    model = autoencoder(quantizer=RoundingConfig()).eval()
    return model.encode(torch.rand(2, 2, 64), layout="stereo")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_latents_are_not_written(latents, number, tmp_path):
    values = latents.values.clone()
    values[1, 0, 2] = number
    with pytest.raises(PartitaError, match="latents.safetensors: values holds numbers that are not finite"):
        replace(latents, values=values).save(tmp_path / "latents.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [-2, 5, 2**40])
def test_latents_with_invalid_codes_are_not_written(latents, code, tmp_path):
    codes = latents.codes.clone()
    codes[0, 1, 3] = code
    with pytest.raises(PartitaError, match=f"{code} .*level 1"):
        replace(latents, codes=codes).save(tmp_path / "latents.safetensors")
    assert not list(tmp_path.iterdir())


def test_nonfinite_model_is_not_written_and_the_earlier_one_kept(tmp_path):
    model = autoencoder()
    model.save_pretrained(tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(PartitaError, match="not finite .*encoder.conv.bias"):
        model.save_pretrained(tmp_path / "model")
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_write_tensors_can_skip_the_finite_check(tmp_path):
    write_tensors(tmp_path / "failed.safetensors", {"x": torch.tensor([torch.nan])}, finite=False)
    assert read_tensors(tmp_path / "failed.safetensors")[0]["x"].isnan().all()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nonfinite_json_is_not_written(number, tmp_path):
    with pytest.raises(PartitaError, match="facts.json: .*not finite"):
        write_json(tmp_path / "facts.json", {"a": [1, {"b": number}]})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "facts.json", {"a": 1e308})
    assert read_json(tmp_path / "facts.json") == {"a": 1e308}


@pytest.mark.parametrize("scale, fits", [(1e30, True), (1e300, False)])
def test_weights_are_checked_in_the_dtype_of_the_model(scale, fits, tmp_path):
    model = autoencoder()
    model.save_pretrained(tmp_path)
    tensors = {name: tensor.double() for name, tensor in model.state_dict().items()}
    name = next(name for name, tensor in tensors.items() if tensor.abs().max() > 1e-3)
    write_tensors(tmp_path / "model.safetensors", tensors | {name: tensors[name] * scale})
    if fits:
        assert Autoencoder.from_pretrained(tmp_path).state_dict()[name].isfinite().all()
    else:
        with pytest.raises(PartitaError, match=f"holds numbers that are not finite .*first {name}"):
            Autoencoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("std", [1e-320, 1e-40, 1e39, 1e300])
def test_scales_beyond_float32_raise(std):
    with pytest.raises(PartitaError, match=r"std\[1\] is .*1\.2e-38 to 3\.4e\+38"):
        LatentSpec(2, 8000, 16, mean=(0.0, 0.0), std=(1.0, std))


def test_latents_round_trip_through_a_file(latents, tmp_path):
    latents.save(tmp_path / "latents.safetensors")
    assert torch.equal(Latents.load(tmp_path / "latents.safetensors").values, latents.values)
