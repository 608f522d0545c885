"""Damaged folders of other libraries, out of memory, interrupts, and spawned processes."""

import json
import pickle
import signal
import subprocess
import sys

import pytest
import torch
from partita import cli
from partita.data import DataConfig, build_loader, open_dataset
from partita.interop import from_huggingface
from partita_core import AudioSpec, ChannelLayout, PartitaError
from safetensors.torch import load_file, save_file


@pytest.fixture
def foreign_folder(foreign, tmp_path):
    foreign("dac").save_pretrained(tmp_path / "dac")
    return tmp_path / "dac"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_external_weights_not_finite_raise(foreign_folder, number):
    tensors = load_file(foreign_folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = number
    save_file(tensors, foreign_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PartitaError, match=f"not finite .*first {name}"):
        from_huggingface(str(foreign_folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": []},
        {"model_type": {}},
        {"model_type": 3},
        {"_class_name": ["DacModel"]},
        {"sampling_rate": -1},
        pytest.param({"n_codebooks": 10**9}, marks=pytest.mark.slow),
        {"downsampling_ratios": "x"},
        {"encoder_hidden_size": 0},
        {"codebook_size": -5},
        {"codebook_size": 10**12},
        {"hidden_size": None},
    ],
    ids=str,
)
def test_invalid_external_configs_raise(foreign_folder, changes):
    facts = json.loads((foreign_folder / "config.json").read_text())
    (foreign_folder / "config.json").write_text(json.dumps(facts | changes))
    with pytest.raises(PartitaError) as caught:
        from_huggingface(str(foreign_folder))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=["python", "cpu", "gpu"],
)
def test_out_of_memory_is_one_line(monkeypatch, refused, error):
    def run(options):
        raise error

    monkeypatch.setattr("partita.cli.components.run", run)
    assert "not enough memory" in refused("components")


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def run(options):
        raise RuntimeError("a defect")

    monkeypatch.setattr("partita.cli.components.run", run)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["components"])


@pytest.mark.parametrize("place", ["import", "run"])
def test_interrupt_swallowed_by_a_library_is_one_line(monkeypatch, capsys, place):
    def fail(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:  # as some libraries do around optional imports
            raise AttributeError("module 'numpy' has no attribute 'matrix'") from None

    monkeypatch.setattr({"import": "partita.cli.import_module", "run": "partita.cli.components.run"}[place], fail)
    with pytest.raises(SystemExit) as end:
        cli.main(["components"])
    assert end.value.code == 130 and capsys.readouterr().err == "partita: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_within_exec_exits_with_code(tmp_path):
    """Python remembers an interrupt within the `exec` of a dataclass, and would end the process by the signal."""
    lines = ["from partita.cli._interrupt import interruptible", "with interruptible():"]
    lines += ["    exec('import signal; signal.raise_signal(signal.SIGINT)')"]
    (tmp_path / "interrupted.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "partita: interrupted\n")


def test_loader_workers_start_with_spawn(tones):
    """The start methods spawn and forkserver pickle a loader."""
    audio = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
    data = DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0)
    loader = build_loader(open_dataset(tones, split="train"), data, audio_spec=audio, crop_multiple=80, seed=0)
    keys = next(iter(loader.sampler))
    copy, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    assert torch.equal(collate(copy[keys])["audio"], loader.dataset[keys]["audio"])
