"""The installed package: complete models, small, without any other library."""

import json
import subprocess
import sys

import pytest
from partita_pretrained import clip, folder, names

MAX_BYTES = 24 * 10**6


def header(name):
    """Dtype, shape and byte offsets per tensor, from the header of the safetensors file."""
    with (folder(name) / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return {tensor: facts for tensor, facts in json.loads(file.read(size)).items() if tensor != "__metadata__"}


def test_all_models_are_small():
    sizes = [path.stat().st_size for name in names() for path in folder(name).rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= MAX_BYTES


@pytest.mark.parametrize("name", names())
def test_model_is_complete(name):
    found = folder(name)
    assert sorted(path.name for path in found.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    facts = json.loads((found / "config.json").read_text(encoding="utf-8"))
    assert facts["model"]["type"] and len(facts["space_id"]) == 16
    end = max(tensor["data_offsets"][1] for tensor in header(name).values())
    size = (found / "model.safetensors").stat().st_size
    assert end < size < end + 64 * 1024  # all tensors and a header


@pytest.mark.parametrize("name", names())
def test_weights_are_in_half_precision(name):
    bytes_of = dict.fromkeys(("F16", "F32"), 0)
    for tensor in header(name).values():
        first, end = tensor["data_offsets"]
        bytes_of[tensor["dtype"]] = bytes_of.get(tensor["dtype"], 0) + end - first
    assert bytes_of["F32"] < 0.1 * bytes_of["F16"]


@pytest.mark.parametrize("name", names())
def test_card_states_license_data_and_limits(name):
    card = (folder(name) / "README.md").read_text(encoding="utf-8")
    assert "\nlicense: cc-by-sa-4.0\n" in card.split("---")[1]
    assert f'partita.load("{name}")' in card
    assert {"## Use", "## Limits", "## Training data", "## Measured"} <= set(card.splitlines())
    assert "processor time" in card


def test_unknown_name_is_an_error_with_the_names():
    for name in ("no_such_model", "../models", ""):
        with pytest.raises(ValueError) as error:
            folder(name)
        assert repr(name) in str(error.value) and names()[0] in str(error.value)


def test_package_imports_nothing_but_the_standard_library():
    code = "import sys, partita_pretrained as p; p.folder(p.names()[0]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "partita_pretrained" in loaded and not {"torch", "numpy", "safetensors", "partita_core"} & set(loaded)


def test_clip_is_short_and_attributed():
    content = clip().read_bytes()
    # The STREAMINFO of FLAC: 20 bits of sample rate, 3 of channels - 1, 5 of bits - 1, 36 of samples.
    facts = int.from_bytes(content[18:26], "big")
    rate, channels, samples = facts >> 44, 1 + (facts >> 41 & 7), facts & (1 << 36) - 1
    assert content[:4] == b"fLaC" and (rate, channels) == (16_000, 1)
    assert 2 < samples / rate < 4 and len(content) < 100_000
    about = (clip().parent / "README.md").read_text(encoding="utf-8")
    assert clip().name in about and "LibriSpeech" in about and "creativecommons.org/licenses/by/4.0" in about
