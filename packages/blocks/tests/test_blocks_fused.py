import copy
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from partita_blocks import ACTIVATIONS, FusedStages, conv, down_stages, fuse_stages, why_no_kernels
from partita_blocks.native import build
from partita_core import PartitaError, Precision
from torch import Tensor, nn

needs_kernels = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))
needs_bf16 = pytest.mark.skipif("avx512_bf16" not in build.cpu_features(), reason="the CPU has no AVX-512 BF16")
TINY = (16, 32, 64, 128, 192)


def layers(channels=TINY, strides=(6, 7, 8, 10), **changes) -> tuple[nn.Module, nn.ModuleList]:
    """Stem and stages with betas that differ."""
    torch.manual_seed(0)
    options = {"dilations": (1, 3, 9), "kernel": 7, "separable": True, "early": True, "activation": "snake_lite"}
    options |= changes
    activation = ACTIVATIONS[options.pop("activation")]
    stages = nn.ModuleList(down_stages(channels, strides, activation=activation, **options))
    for name, parameter in stages.named_parameters():
        if name.endswith("log_beta"):
            nn.init.normal_(parameter)
    return conv(2, channels[0], 7), stages


def fuse(stem: nn.Module, stages: nn.ModuleList, precision: Precision = "float32") -> FusedStages | None:
    return fuse_stages(stem, stages, precision=precision)


def eager(stem: nn.Module, stages: nn.ModuleList, audio: Tensor, side: Tensor | None = None, after: int = 0) -> Tensor:
    x = stem(audio)
    for index, stage in enumerate(stages, start=1):
        x = stage(x)
        if side is not None and index == after:
            x = x + side
    return x


def noise(batch: int, samples: int) -> Tensor:
    return 0.3 * torch.randn(batch, 2, samples, generator=torch.Generator().manual_seed(1))


def error(found: Tensor, wanted: Tensor) -> float:
    """The largest, in RMS of what is wanted."""
    return float((found - wanted).abs().max() / wanted.square().mean().sqrt())


@pytest.fixture
def unloaded():
    """The kernels of this process forgotten, before and after."""
    build._attempt.cache_clear()
    yield
    build._attempt.cache_clear()


@pytest.fixture
def unbuilt(unloaded, monkeypatch, tmp_path):
    """Likewise those on disk: the folder where they would be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PARTITA_KERNELS", raising=False)
    return tmp_path / "partita"


# ------------------------------------------------------------------ results


@needs_kernels
@torch.no_grad()
@pytest.mark.parametrize("batch, frames", [(1, 1), (3, 1), (1, 2), (3, 5), (1, 40)])
def test_equal_to_the_modules(batch, frames):
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(batch, 3360 * frames)
    assert fused is not None and fused.serves(audio)
    found = fused(audio)
    assert found.shape == (batch, 192, frames) and found.is_contiguous()
    assert error(found, eager(stem, stages, audio)) < 2e-5


@needs_kernels
@torch.no_grad()
@pytest.mark.parametrize("channels", [(128, 128, 256), (64, 64, 128), (8, 12, 16), (16, 48, 80), (24, 40, 100)])
@pytest.mark.parametrize("strides", [(2, 3), (6, 7), (5, 8)])
def test_any_width_and_stride(channels, strides):
    stem, stages = layers(channels, strides, dilations=(1, 9))
    fused, audio = fuse(stem, stages), noise(2, strides[0] * strides[1] * 60)
    assert error(fused(audio), eager(stem, stages, audio)) < 2e-5


@needs_kernels
@torch.no_grad()
def test_batch_and_threads_do_not_change_a_bit():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(3, 3360 * 7)
    whole, before = fused(audio), torch.get_num_threads()
    assert torch.equal(torch.cat([fused(audio[i : i + 1]) for i in range(3)]), whole)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fused(audio), whole)
    finally:
        torch.set_num_threads(before)


@needs_kernels
@torch.no_grad()
def test_a_large_batch_goes_in_groups(monkeypatch):
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(5, 3360 * 2)
    whole, side = fused(audio), torch.randn(5, 64, 3360 * 2 // 42)
    beside = fused(audio, side=side, side_stage=2)
    monkeypatch.setattr("partita_blocks.fused._WORKSPACE", 2 * 4 * 32 * 1120)
    fused._packed = None
    assert torch.equal(fused(audio), whole) and torch.equal(fused(audio, side=side, side_stage=2), beside)
    assert sum(buffer.numel() for buffer in fused._packed._local.buffers) == 2 * 2 * 32 * 1120
    assert error(beside, eager(stem, stages, audio, side, 2)) < 2e-5


@needs_kernels
@needs_bf16
@torch.no_grad()
@pytest.mark.parametrize("channels", [TINY, (64, 64, 128, 256, 512)])
def test_bf16_has_40_db(channels):
    stem, stages = layers(channels)
    fused, audio = fuse(stem, stages, "bf16"), noise(2, 3360 * 3)
    wanted = eager(stem, stages, audio)
    snr = 10 * torch.log10(wanted.square().mean() / (fused(audio) - wanted).square().mean())
    assert 40 < snr < 60


@needs_kernels
@torch.no_grad()
def test_float32_kernels_where_bf16_has_no_instructions(monkeypatch):
    stem, stages = layers()
    fused = fuse(stem, stages, "bf16")
    fused.bf16 = False
    assert torch.equal(fused(noise(1, 3360)), fuse(stem, stages)(noise(1, 3360)))


@needs_kernels
@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("features", [{"avx2", "fma"}, {"avx2", "fma", *build._AVX512}])
def test_older_instruction_sets(unbuilt, monkeypatch, features):
    if not features <= build.cpu_features():
        pytest.skip("the CPU has less")
    monkeypatch.setattr(build, "cpu_features", lambda: features)
    stem, stages = layers((16, 48, 40), (6, 7))
    fused, audio = fuse(stem, stages, "bf16"), noise(2, 42 * 100)
    assert fused is not None and not fused.bf16
    assert error(fused(audio), eager(stem, stages, audio)) < 2e-5


# ------------------------------------------------------------------ when they serve


@needs_kernels
@pytest.mark.parametrize("change", [{"separable": False}, {"early": False}, {"activation": "snake"}, {"kernel": 5}])
def test_other_layers_have_no_kernels(change):
    assert fuse(*layers((16, 16, 16), (2, 3))) is not None
    assert fuse(*layers((16, 16, 16), (2, 3), **change)) is None


@needs_kernels
def test_a_stride_of_one_has_no_kernels():
    assert fuse(*layers((16, 16, 16), (1, 3))) is None


@needs_kernels
def test_other_calls_are_not_served():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(1, 3360)
    assert not fused.serves(audio), "gradients are on"
    with torch.no_grad():
        assert fused.serves(audio)
        assert not fused.serves(audio.double())
        assert not fused.serves(audio[..., :-1])
        assert not fused.serves(audio[..., :0])
        assert not fused.serves(audio.to("meta"))
        assert not fused.serves(audio[:, :1])
        with pytest.raises(PartitaError, match=r"\(1, 1, 3360\); .* \(batch, 2, 3360 \* frames\)"):
            fused(audio[:, :1])
        fused(audio)
        stages.double()
        assert not fused.serves(audio)
        with pytest.raises(PartitaError, match="float32"):
            fused(audio)


def test_precision_is_checked():
    with pytest.raises(PartitaError, match="'float16'"):
        fuse(*layers(), "float16")


@needs_kernels
@torch.no_grad()
def test_changed_weights_are_read_again():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(1, 3360)
    first = fused(audio)
    packed = fused._packed
    assert torch.equal(fused(audio), first) and fused._packed is packed
    stages[0].down[1].bias += 1
    assert error(fused(audio), eager(stem, stages, audio)) < 2e-5
    stages.load_state_dict({name: 0.5 * tensor for name, tensor in stages.state_dict().items()})
    assert error(fused(audio), eager(stem, stages, audio)) < 2e-5


@needs_kernels
@torch.no_grad()
def test_copies_work_and_carry_no_packed_weights():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(1, 3360)
    wanted = fused(audio)
    other, other_stages = copy.deepcopy((fused, stages))
    assert other._packed is None and other.stages is other_stages and torch.equal(other(audio), wanted)


@needs_kernels
def test_inference_mode_leaves_memory_that_others_can_use():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(1, 3360)
    side = torch.randn(1, 192, 1)
    with torch.inference_mode():
        first = fused(audio, side=side, side_stage=4)
    with torch.no_grad():
        assert torch.equal(fused(audio, side=side, side_stage=4), first)


# ------------------------------------------------------------------ building


@needs_kernels
@pytest.mark.slow
def test_the_library_is_built_once(unbuilt, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        return real(command, **options)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", run)
    assert build.kernels() is not None and len(commands) == 3  # compiled, linked, tried
    (library,) = unbuilt.iterdir()  # nothing is left beside it
    built = library.stat().st_mtime_ns
    build._attempt.cache_clear()
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "")  # what is built needs no compiler any more
    assert build.kernels() is not None and len(commands) == 3
    assert library.stat().st_mtime_ns == built


@needs_kernels
def test_the_library_brings_no_second_openmp():
    mapped = Path("/proc/self/maps").read_text().splitlines()
    assert len({line.split()[-1] for line in mapped if "gomp" in line}) == 1


@pytest.mark.parametrize(
    "what, reason",
    [("compiler", "install g|need Linux"), ("cpu", "need Linux"), ("broken", "cannot build|need Linux"), ("full", "")],
)
def test_without_kernels_the_modules_serve(unbuilt, monkeypatch, what, reason):
    monkeypatch.delenv("CXX", raising=False)
    if what == "compiler":
        monkeypatch.setenv("PATH", "")
    elif what == "cpu":
        monkeypatch.setattr(build, "cpu_features", lambda: set())
    elif what == "broken":
        monkeypatch.setattr(build, "_FLAGS", ("--no-such-option",))
    else:
        unbuilt.write_text("a file where the folder should be")
    assert fuse(*layers()) is None
    why = why_no_kernels()
    assert why is not None and re.search(reason, why) and "\n" not in why


@needs_kernels
def test_a_model_that_had_kernels_does_without(unloaded, monkeypatch):
    fused = fuse(*layers())
    build._attempt.cache_clear()
    monkeypatch.setattr(build, "cpu_features", lambda: set())
    with torch.no_grad():
        assert not fused.serves(noise(1, 3360))


def test_the_source_is_shipped():
    assert os.path.getsize(Path(build.__file__).with_name("kernels.cpp")) > 0
