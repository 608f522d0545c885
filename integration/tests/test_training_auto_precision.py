"""`trainer.precision=auto`: chosen once by the machine, logged, stored, and kept when a run is resumed."""

import pytest
import torch
from partita.training import RunFolder, auto_precision, train
from partita.training.auto_precision import fastest_precision
from partita.training.logs import read_log
from partita_core import PartitaError

AMX = {"avx2", "amx_tile", "amx_bf16"}


@pytest.fixture
def machine(monkeypatch):
    """Sets the features of the machine that precision depends on."""

    def become(*features: str, cuda: bool = False, bf16: bool = False) -> None:
        monkeypatch.setattr(auto_precision, "cpu_features", lambda: set(features))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)

    return become


@pytest.mark.parametrize(
    ("features", "cuda", "bf16", "precision"),
    [
        ((), False, False, "no"),
        (("avx2",), False, False, "no"),
        (("avx512f", "avx512_bf16"), False, False, "no"),
        (AMX, False, False, "bf16"),
        (AMX, True, False, "no"),
        (("avx2",), True, True, "bf16"),
    ],
)
def test_fastest_precision_follows_the_device(machine, features, cuda, bf16, precision):
    machine(*features, cuda=cuda, bf16=bf16)
    assert fastest_precision() == precision


@pytest.mark.slow
def test_auto_precision_is_logged_stored_and_kept_on_resume(machine, config, tones, tmp_path, monkeypatch):
    chosen, output = [], tmp_path / "run"
    monkeypatch.setattr(auto_precision, "fastest_precision", lambda: chosen.append("no") or "no")

    def run(steps: int, precision: str = "auto") -> None:
        settings = config(steps=steps, precision=precision)
        train(settings, data=tones, output=output, progress=False, resume=output.exists())

    run(2)
    assert RunFolder(output).read_config().trainer.precision == "no"
    # Another machine would choose bf16.
    monkeypatch.setattr(auto_precision, "fastest_precision", lambda: chosen.append("bf16") or "bf16")
    run(3)
    run(4, precision="no")
    assert RunFolder(output).read_config().trainer.precision == "no" and chosen == ["no"]
    assert [line["precision"] for line in read_log(output / "log.jsonl") if "precision" in line] == ["no"]
    with pytest.raises(PartitaError, match="trainer.precision was 'no', now 'bf16'"):
        run(5, precision="bf16")
