"""Every metric passes its conformance suite, every check of the suite can fail, and third parties can add metrics."""

import importlib.util
from pathlib import Path

import pytest
import torch
from partita.evaluation import evaluate, named_metrics
from partita_core import Metric, PartitaError, check_signals, components, config_of, register
from partita_core import registry as registry_module
from partita_testing import METRIC_CHECKS, MetricCase, check_metric

CHUNK = 4096
PACKAGES = {"stoi": "pystoi", "estoi": "pystoi", "pesq": "pesq", "visqol": "visqol"}
TAGS = {tag: cls for tag, cls in components("metric/*").items() if cls.__module__.startswith("partita.")}


def seams(audio, strength):
    """A gap of 64 samples at every seam, attenuated by `strength`."""
    degraded = audio.clone()
    for seam in range(0, audio.shape[-1], CHUNK):
        degraded[:, max(0, seam - 32) : seam + 32] *= 1 - 0.9 * strength
    return degraded


def growing_noise(audio, strength):
    """Noise that grows from -40 dB of the signal's RMS; the growth rises with the strength."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(audio.shape, generator=generator, dtype=audio.dtype)
    rise = 0.01 * torch.exp(4 * strength * torch.linspace(0, 1, audio.shape[-1]))
    return audio + rise.to(audio) * audio.square().mean().sqrt() * noise


def repeated_noise(audio, strength):
    """One texture of 320 samples, repeated."""
    texture = torch.randn(len(audio), 320, generator=torch.Generator().manual_seed(1), dtype=audio.dtype)
    return audio + 0.1 * strength * texture.repeat(1, audio.shape[-1] // 320 + 1)[:, : audio.shape[-1]]


CASES = {
    "drift": {"settings": {"chunk": CHUNK}, "degrade": growing_noise},
    "frame_buzz": {"settings": {"hop": 320}, "degrade": repeated_noise},
    "seam_excess": {"settings": {"chunk": CHUNK, "edge": 2048, "far": 1024}, "degrade": seams},
}


@pytest.fixture(params=[pytest.param(tag, marks=[pytest.mark.slow] * (tag == "metric/visqol")) for tag in sorted(TAGS)])
def case(request):
    name = request.param.split("/")[1]
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    options = dict(CASES.get(name, {}))
    return MetricCase(TAGS[request.param](**options.pop("settings", {})), **options)


def test_metric_conformance(case):
    check_metric(case)


# ------------------------------------------------------------------ every check can fail


@pytest.fixture
def registered(monkeypatch):
    """A registry that forgets what a test registers."""
    components()
    monkeypatch.setattr(registry_module, "_registry", dict(registry_module._registry))


class MeanAbsolute(Metric):
    """Mean absolute difference of samples."""

    label = "mean absolute"
    better = "lower"

    def __call__(self, estimate, reference):
        estimate, reference = check_signals(estimate, reference, torch.float64)
        return float((estimate - reference).abs().mean())


class Unlabeled(MeanAbsolute):
    label = ""


class Offset(MeanAbsolute):
    def __call__(self, estimate, reference):
        return super().__call__(estimate, reference) + 1


class WrongDirection(MeanAbsolute):
    better = "higher"


class Relative(MeanAbsolute):
    """NaN for two silent signals, and infinite for a silent reference."""

    def __call__(self, estimate, reference):
        return float(torch.tensor(super().__call__(estimate, reference)) / reference.abs().mean())


class Windowed(MeanAbsolute):
    """Needs 64 samples and does not declare it."""

    def __call__(self, estimate, reference):
        value = super().__call__(estimate, reference)
        if reference.shape[-1] < 64:
            raise PartitaError("the clip is too short")
        return value


class Broadcasting(MeanAbsolute):
    def __call__(self, estimate, reference):
        return float((estimate[..., : reference.shape[-1]] - reference[..., : estimate.shape[-1]]).abs().mean())


class InPlace(MeanAbsolute):
    def __call__(self, estimate, reference):
        value = super().__call__(estimate, reference)
        estimate.data.mul_(0.5)
        return value


BROKEN = {
    "attributes_are_set": Unlabeled,
    "identical_signals_are_best": Offset,
    "degradation_is_worse": WrongDirection,
    "silence_is_finite": Relative,
    "short_clips_are_finite": Windowed,
    "different_shapes_are_errors": Broadcasting,
    "inputs_are_left_unchanged": InPlace,
}


@pytest.mark.parametrize("check", BROKEN)
def test_check_fails_for_a_broken_metric(check, registered):
    register("metric/sound")(type("Sound", (MeanAbsolute,), {}))
    broken = register("metric/broken")(type("Broken", (BROKEN[check],), {}))
    METRIC_CHECKS[check](components("metric/sound")["metric/sound"]())
    with pytest.raises(AssertionError, match=f"metric/broken: {check}"):
        METRIC_CHECKS[check](broken.Config())


def test_round_trip_fails_for_an_unregistered_config(registered):
    broken = register("metric/broken")(type("Broken", (MeanAbsolute,), {}))
    METRIC_CHECKS["config_round_trip"](broken.Config())
    del registry_module._registry["metric/broken"]
    with pytest.raises(AssertionError, match="metric/broken: config_round_trip"):
        METRIC_CHECKS["config_round_trip"](broken.Config())


def test_every_check_of_the_suite_is_broken():
    assert set(METRIC_CHECKS.names) == {*BROKEN, "config_round_trip"}


# ------------------------------------------------------------------ metrics of third parties

PLUGIN = '''
import torch
from partita_core import Metric, check_signals, register
from partita_core.ranges import Positive


@register("metric/peak_error")
class PeakError(Metric):
    """Absolute difference of the peaks, times a scale."""

    label = "peak error"
    unit = "FS"
    better = "lower"

    def __init__(self, *, scale: Positive = 1.0) -> None:
        self.scale = scale

    def __call__(self, estimate, reference):
        estimate, reference = check_signals(estimate, reference, torch.float64)
        return self.scale * abs(float(estimate.abs().max() - reference.abs().max()))
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch, registered):
    """An installed package that registers a metric through the entry point `partita.components`."""
    (tmp_path / "peak_metric.py").write_text(PLUGIN)
    info = tmp_path / "peak_metric-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peak-metric\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[partita.components]\npeak = peak_metric\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry_module.load_entry_points.cache_clear()
    yield
    registry_module.load_entry_points.cache_clear()


def test_metric_of_another_package_is_found_by_name(plugin):
    assert "metric/peak_error" in {config.tag for config in named_metrics(["all"])}
    (config,) = named_metrics(["peak_error:scale=2"])
    clips = [("a", torch.full((1, 100), 0.25), "mono")]
    found = evaluate({}, clips, [config], sample_rate=8000)
    assert found.scores["silence"]["peak_error"] == (0.5,)
    assert found.settings["metrics"] == [{"type": "metric/peak_error", "scale": 2.0}]
    assert "peak error, FS ↓" in found.to_markdown()
    with pytest.raises(PartitaError, match="scale"):
        named_metrics(["peak_error:scale=0"])
    check_metric(config)


def test_config_of_a_metric_is_typed_by_its_settings():
    config = config_of(components("metric/lsd")["metric/lsd"].component)
    assert config(window=512).build(sample_rate=8000).window == 512
