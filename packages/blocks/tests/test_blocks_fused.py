import copy
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
    """Stem and stages with random betas."""
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


def error(found: Tensor, expected: Tensor) -> float:
    """Largest deviation, relative to the RMS of the expected output."""
    return float((found - expected).abs().max() / expected.square().mean().sqrt())


@pytest.fixture
def unloaded():
    """Unload the kernels of this process, before and after."""
    build._attempt.cache_clear()
    yield
    build._attempt.cache_clear()


@pytest.fixture
def unbuilt(unloaded, monkeypatch, tmp_path):
    """Unload the kernels, and hide those on disk; returns the empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PARTITA_KERNELS", raising=False)
    return tmp_path / "partita"


# ------------------------------------------------------------------ results


@needs_kernels
@torch.no_grad()
@pytest.mark.parametrize("batch, frames", [(1, 1), (3, 1), (1, 2), (3, 5), (1, 40)])
def test_output_equals_the_modules(batch, frames):
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
def test_widths_and_strides(channels, strides):
    stem, stages = layers(channels, strides, dilations=(1, 9))
    fused, audio = fuse(stem, stages), noise(2, strides[0] * strides[1] * 60)
    assert error(fused(audio), eager(stem, stages, audio)) < 2e-5


@needs_kernels
@torch.no_grad()
def test_output_is_bitwise_independent_of_batch_and_threads():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(3, 3360 * 7)
    full, before = fused(audio), torch.get_num_threads()
    assert torch.equal(torch.cat([fused(audio[i : i + 1]) for i in range(3)]), full)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fused(audio), full)
    finally:
        torch.set_num_threads(before)


@needs_kernels
@torch.no_grad()
def test_large_batches_are_split(monkeypatch):
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(5, 3360 * 2)
    full, side = fused(audio), torch.randn(5, 64, 3360 * 2 // 42)
    with_side = fused(audio, side=side, side_stage=2)
    monkeypatch.setattr("partita_blocks.fused._WORKSPACE", 2 * 4 * 32 * 1120)
    fused._packed = None
    assert torch.equal(fused(audio), full) and torch.equal(fused(audio, side=side, side_stage=2), with_side)
    assert sum(buffer.numel() for buffer in fused._packed._local.buffers) == 2 * 2 * 32 * 1120
    assert error(with_side, eager(stem, stages, audio, side, 2)) < 2e-5


@needs_kernels
@needs_bf16
@torch.no_grad()
@pytest.mark.parametrize("channels", [TINY, (64, 64, 128, 256, 512)])
def test_bf16_signal_to_noise_ratio(channels):
    stem, stages = layers(channels)
    fused, audio = fuse(stem, stages, "bf16"), noise(2, 3360 * 3)
    expected = eager(stem, stages, audio)
    snr = 10 * torch.log10(expected.square().mean() / (fused(audio) - expected).square().mean())
    assert 40 < snr < 60


@needs_kernels
@torch.no_grad()
def test_bf16_without_instructions_is_float32(monkeypatch):
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
        pytest.skip(f"the CPU lacks {sorted(features - build.cpu_features())}")
    monkeypatch.setattr(build, "cpu_features", lambda: features)
    stem, stages = layers((16, 48, 40), (6, 7))
    fused, audio = fuse(stem, stages, "bf16"), noise(2, 42 * 100)
    assert fused is not None and not fused.bf16
    assert error(fused(audio), eager(stem, stages, audio)) < 2e-5


# ------------------------------------------------------------------ supported layers and calls


@needs_kernels
@pytest.mark.parametrize("change", [{"separable": False}, {"early": False}, {"activation": "snake"}, {"kernel": 5}])
def test_unsupported_layers_have_no_kernels(change):
    assert fuse(*layers((16, 16, 16), (2, 3))) is not None
    assert fuse(*layers((16, 16, 16), (2, 3), **change)) is None


@needs_kernels
def test_stride_one_has_no_kernels():
    assert fuse(*layers((16, 16, 16), (1, 3))) is None


@needs_kernels
def test_unsupported_calls():
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
def test_changed_weights_are_packed_again():
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
def test_copies_have_no_packed_weights():
    stem, stages = layers()
    fused, audio = fuse(stem, stages), noise(1, 3360)
    expected = fused(audio)
    other, other_stages = copy.deepcopy((fused, stages))
    assert other._packed is None and other.stages is other_stages and torch.equal(other(audio), expected)


@needs_kernels
def test_buffers_from_inference_mode_are_reusable():
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
def test_library_is_compiled_once(unbuilt, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        return real(command, **options)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", run)
    assert build.kernels() is not None and len(commands) == 3  # compile, link, check
    (library,) = unbuilt.iterdir()  # no temporary files remain
    built = library.stat().st_mtime_ns
    build._attempt.cache_clear()
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "")  # a stored library needs no compiler
    assert build.kernels() is not None and len(commands) == 3
    assert library.stat().st_mtime_ns == built


@needs_kernels
def test_library_loads_no_second_openmp():
    mapped = Path("/proc/self/maps").read_text().splitlines()
    assert len({line.split()[-1] for line in mapped if "gomp" in line}) == 1


@pytest.mark.parametrize(
    "what, reason",
    [
        ("compiler", "install g|need Linux"),
        ("cpu", "need Linux"),
        ("broken", "cannot compile|need Linux"),
        ("full", ""),
    ],
)
def test_missing_kernels_have_a_reason(unbuilt, monkeypatch, what, reason):
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
def test_kernels_may_become_unavailable(unloaded, monkeypatch):
    fused = fuse(*layers())
    build._attempt.cache_clear()
    monkeypatch.setattr(build, "cpu_features", lambda: set())
    with torch.no_grad():
        assert not fused.serves(noise(1, 3360))


def test_every_include_is_hashed():
    """A change of any source compiles the library again."""
    sources = [path.read_text() for path in (*build._HEADERS, build._SOURCE)]
    included = {name for source in sources for name in re.findall(r'#include "(.+)"', source)}
    assert included == {path.name for path in build._HEADERS}
