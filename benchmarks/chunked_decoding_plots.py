"""Plots of the results of `chunked_decoding.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot as plt

SHOWN = ("independent", "two_step, no refinement", "two_step", "parallel, 4 steps", "overlap")
# Equal plots give equal files.
plt.rcParams["svg.hashsalt"] = "partita"


def plot_all(
    folder: Path, record: Mapping[str, Any], sweep: Mapping[tuple[float, bool], str], samplers: Sequence[str]
) -> None:
    """Write every plot as SVG into `folder`.

    Args:
        folder: an existing folder.
        record: contents of `chunked_decoding.json`.
        sweep: name of a system by (noise level of the context, refined).
        samplers: names of the systems in the overview.
    """
    _save(folder / "samplers.svg", _samplers(record, samplers))
    _save(folder / "seam_profile.svg", _profile(record))
    _save(folder / "sigma_context.svg", _sweep(record, sweep))
    _save(folder / "error_by_chunk.svg", _errors(record))
    _save(folder / "latent_effects.svg", _effects(record))


def _save(path: Path, figure: Any) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _samplers(record: Mapping[str, Any], samplers: Sequence[str]) -> Any:
    metrics = record["clips"]["metrics"]
    figure, axes = plt.subplots(1, len(metrics), figsize=(3 * len(metrics), 3.4), sharey=True, layout="constrained")
    for axis, metric in zip(axes, metrics):
        for row, name in enumerate(samplers):
            _point(axis, record["clips"]["means"][name][metric["name"]], row, color=f"C{row}", across=True)
        axis.set_xlabel(_title(metric))
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(samplers)), samplers)
    axes[0].invert_yaxis()
    return figure


def _profile(record: Mapping[str, Any]) -> Any:
    curves, chunk = record["flux over the chunk, over the source's"], record["settings"]["chunk"]
    figure, (near, full) = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
    for name in SHOWN:
        curve = np.asarray(curves[name])
        positions = ((np.arange(len(curve)) + 0.5) / len(curve) - 0.5) * chunk
        close = np.abs(positions) < chunk / 16
        near.plot(positions[close], curve[close], label=name)
        width = max(1, len(curve) // 64)
        kept = len(curve) // width * width
        full.plot(*(values[:kept].reshape(-1, width).mean(1) for values in (positions, curve)))
    near.set_ylabel("flux relative to the source")
    near.set_xlabel("samples from the seam")
    full.set_xlabel("samples from the seam, full chunk")
    near.legend(fontsize="small")
    for axis in (near, full):
        axis.axhline(1, color="0.7", linewidth=0.8)
    return figure


def _sweep(record: Mapping[str, Any], sweep: Mapping[tuple[float, bool], str]) -> Any:
    metrics = record["clips"]["metrics"]
    levels = sorted({level for level, _ in sweep})
    figure, axes = plt.subplots(1, len(metrics), figsize=(3 * len(metrics), 3), layout="constrained")
    for axis, metric in zip(axes, metrics):
        for refine, label in ((False, "no refinement"), (True, "refined")):
            means = [record["clips"]["means"][sweep[level, refine]][metric["name"]] for level in levels]
            positions = [index + 0.1 * refine for index in range(len(levels))]
            for position, mean in zip(positions, means):
                _point(axis, mean, position, color=f"C{int(refine)}")
            axis.plot(positions, [mean["mean"] for mean in means], color=f"C{int(refine)}", label=label, linewidth=0.8)
        axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        axis.set_xlabel("noise level of the context")
        axis.set_title(_title(metric), fontsize="medium")
    axes[0].legend(fontsize="small")
    return figure


def _errors(record: Mapping[str, Any]) -> Any:
    errors = {name: np.asarray(rows) for name, rows in record["errors by chunk"].items()}
    figure, (plain, relative) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for name, rows in errors.items():
        plain.plot(rows.mean(0), label=name, linewidth=1)
        relative.plot(rows.mean(0) / errors["independent"].mean(0), linewidth=1)
    plain.set_ylabel("log-mel L1")
    relative.set_ylabel("relative to independent chunks")
    plain.legend(fontsize="small")
    for axis in (plain, relative):
        axis.set_xlabel("chunk")
    return figure


def _effects(record: Mapping[str, Any]) -> Any:
    maps = {name: np.asarray(rows) for name, rows in record["mean effect by latent and frame"].items()}
    top = max(float(values.max()) for values in maps.values())
    figure, axes = plt.subplots(1, len(maps), figsize=(4 * len(maps), 2.8), squeeze=False, layout="constrained")
    scale = plt.Normalize(0, top)
    for axis, (name, values) in zip(axes[0], maps.items()):
        axis.imshow(values, aspect="auto", norm=scale, interpolation="nearest")
        axis.set_title(name, fontsize="medium")
        axis.set_xlabel("frame of the chunk")
        axis.set_yticks(range(len(values)))
    axes[0][0].set_ylabel("latent")
    figure.colorbar(plt.cm.ScalarMappable(scale), ax=axes[0].tolist(), label="effect relative to its mean")
    return figure


def _point(axis: Any, interval: Mapping[str, float], position: float, *, color: str, across: bool = False) -> None:
    mean = interval["mean"]
    bars = [[mean - interval["low"]], [interval["high"] - mean]]
    if across:
        axis.errorbar([mean], [position], xerr=bars, fmt="o", color=color, markersize=4, capsize=2)
    else:
        axis.errorbar([position], [mean], yerr=bars, fmt="o", color=color, markersize=4, capsize=2)


def _title(metric: Mapping[str, str]) -> str:
    return f"{metric['label']}, {metric['unit']}" if metric["unit"] else metric["label"]
