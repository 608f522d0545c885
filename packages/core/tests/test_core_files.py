import json
import os
import sys

import pytest
import torch
from partita_core import PartitaError, read_json, read_tensors, write_json, write_tensors


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_json(tmp_path):
    value = {"a": [1, 2.5, None, "ö"], "b": {"c": True}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert (tmp_path / "x.json").read_text(encoding="utf-8").endswith("}\n")


def test_invalid_json_value_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": torch.zeros(1)})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_invalid_json_raises(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(PartitaError, match="x.json is not JSON"):
        read_json(tmp_path / "x.json")


def test_missing_files_raise(tmp_path):
    with pytest.raises(PartitaError, match="cannot read .*x.json: No such file or directory"):
        read_json(tmp_path / "x.json")
    with pytest.raises(PartitaError, match="no such file: .*x.safetensors"):
        read_tensors(tmp_path / "x.safetensors")


def test_tensors(tmp_path):
    base = torch.randn(4, 6)
    tensors = {
        "view": base[:, ::2],
        "transposed": base.T,
        "shared": base,
        "half": base.half(),
        "codes": torch.arange(3),
        "scalar": torch.tensor(2.0),
        "empty": torch.empty(0, 3),
        "trained": torch.nn.Parameter(base),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"a": "b"})
    back, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"a": "b"} and back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype
        assert not back[name].requires_grad
    assert names(tmp_path) == ["x.safetensors"]


def test_pickles_raise(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(PartitaError, match="x.safetensors is not a safetensors file, or is damaged: "):
        read_tensors(tmp_path / "x.safetensors")


def test_wrong_header_raises(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(PartitaError, match="or is damaged"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_tensor_files_have_ordinary_permissions(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "x.json", {})
        for _ in range(2):
            write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1)})
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("x.json", "x.safetensors")]
    assert modes == [0o666 & ~umask] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="users are POSIX's")
@pytest.mark.parametrize("closed", ["x.safetensors", "."])
def test_unreadable_file_raises_permission_error_message(tmp_path, monkeypatch, closed):
    write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1)})
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755), (tmp_path / closed).chmod(0)
    root = os.geteuid() == 0  # root ignores file modes
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PartitaError, match="cannot read x.safetensors: Permission denied"):
            read_tensors("x.safetensors")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_full_disk_raises_and_keeps_the_old_file(tmp_path):
    """A full disk, simulated by a limit on the size of files."""
    import resource

    path = tmp_path / "model.safetensors"
    write_tensors(path, {"x": torch.zeros(4)})
    before, (_, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(PartitaError, match="cannot write .*too large") as tensors:
            write_tensors(path, {"x": torch.zeros(1000)})
        with pytest.raises(PartitaError, match="cannot write .*too large"):
            write_json(tmp_path / "facts.json", ["x" * 2000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if hard < 0 else hard, hard))
    assert "\n" not in str(tensors.value)
    assert path.read_bytes() == before and names(tmp_path) == ["model.safetensors"]
