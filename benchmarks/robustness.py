"""Benchmark of decoding noisy latents, and of the latents' scale and balance of channels.

    python benchmarks/robustness.py NAME=MODEL [NAME=MODEL ...] --data DIR [--limit N] [--json F] [--plot F.svg]

For each model, on the clips of one split:

1. metrics of audio decoded from noisy latents, by signal-to-noise ratio per frame: log-mel L1, MR-STFT, SI-SDR;
2. the RMS of frames by domain (the folder of the clip: music, speech, sound) and by gain of the audio;
3. the balance of channels: variance, effective rank, dead channels, kurtosis.

A model that supports only mono gets the mean of the channels, and is compared with it. Prints Markdown tables; equal
for equal models, data and seed on one machine.
"""

# ruff: noqa: E402
import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import machine, table
from latent_noise import frame_rms, with_noise
from matplotlib import pyplot
from partita.data import SPLITS, open_dataset, resample, spread_rows, whole_files
from partita.data.clip_latents import codec_input, truncate_clip
from partita.data.clips import Clip
from partita.evaluation import Bootstrap, latent_statistics, latent_vectors, matched_noise
from partita.evaluation.references import fit
from partita.evaluation.results import format_interval
from partita.model_loading import load_codec
from partita_core import Codec, Metric, lookup, to_dict, write_json
from torch import Tensor

SNRS = (float("inf"), 20.0, 15.0, 10.0, 6.0, 3.0, 0.0, -3.0)
GAINS = (-30, -20, -10, 0, 10, 20, 30)
REFERENCE = "matched noise"
METRICS = ("log_mel_l1", "multi_resolution_stft", "si_sdr")
# Equal plots give equal files.
pyplot.rcParams["svg.hashsalt"] = "partita"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write tables and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, metavar="N", help="maximum number of clips, equally many per domain")
    parser.add_argument("--seconds", type=float, default=10.0, help="maximum length of a clip")
    parser.add_argument("--json", type=Path, metavar="F")
    parser.add_argument("--plot", type=Path, metavar="F.svg")
    parser.add_argument("--seed", type=int, default=0, help="noise seed")
    options = parser.parse_args(arguments)

    models = {name: load_codec(path).eval() for name, _, path in (text.partition("=") for text in options.models)}
    rate = max(codec.audio_spec.sample_rate for codec in models.values())
    metrics: list[Metric] = [lookup(name, ("metric",))().build(sample_rate=rate) for name in METRICS]
    dataset = open_dataset(options.data, split=options.split)
    if options.limit:
        dataset = dataset.select(
            evenly([domain_of(name, options.data) for name in dataset["file_name"]], options.limit)
        )

    names: list[str] = []
    domains: list[str] = []
    scores: dict[str, Any] = {name: {m.name: [[] for _ in SNRS] for m in metrics} for name in models}
    floor: dict[str, list[float]] = {metric.name: [] for metric in metrics}
    scale: dict[str, Any] = {name: {gain: [] for gain in GAINS} for name in models}
    vectors: dict[str, list[Tensor]] = {name: [] for name in models}
    for clip in whole_files(dataset):
        clip = truncate_clip(clip, options.seconds)
        names.append(clip.name)
        domains.append(domain_of(clip.name, options.data))
        reference = resample(clip.audio, clip.sample_rate, rate)
        for metric in metrics:
            floor[metric.name].append(metric(matched_noise(reference, seed=options.seed, key=clip.name), reference))
        for name, codec in models.items():
            for row, columns in zip(noise_scores(codec, clip, metrics, rate, options.seed), scores[name].values()):
                for value, column in zip(row, columns):
                    column.append(value)
            audio, layout = codec_input(codec, clip)
            for gain in GAINS:
                latents = codec.encode(10 ** (gain / 20) * audio[None], layout=layout)
                scale[name][gain].append(frame_rms(latents))
                if gain == 0:
                    vectors[name].append(latent_vectors(latents))
        print(f"{len(names)}/{len(dataset)} {clip.name}", flush=True)

    bootstrap = Bootstrap(len(names))
    curves = {
        name: {metric: [bootstrap.interval(column) for column in columns] for metric, columns in each.items()}
        for name, each in scores.items()
    }
    changes = {
        name: {metric: [bootstrap.difference(x, columns[0]) for x in columns[1:]] for metric, columns in each.items()}
        for name, each in scores.items()
    }
    limits = {metric: bootstrap.interval(values) for metric, values in floor.items()}
    spreads = {name: scale_spread(by_gain, domains) for name, by_gain in scale.items()}
    balances = {name: asdict(latent_statistics(torch.cat(found)).balance) for name, found in vectors.items()}
    text = [
        f"Decoded from noisy latents; means over {len(names)} clips with 95 % bootstrap intervals. Columns with a "
        "ratio are paired differences from the same model without noise.",
        *(noise_table(curves, changes, limits, metric) for metric in metrics),
        "RMS of frames: mean at 0 dB per domain, mean over all domains per gain, and standard deviation over mean of "
        "the frames at 0 dB and of all frames at all gains.",
        spread_table(spreads),
        "Channels, over all frames at 0 dB; variances relative to their mean.",
        balance_table(balances, models),
    ]
    if options.json is not None:
        record = {
            "machine": machine(),
            "settings": {
                "models": list(models),
                "split": options.split,
                "seconds": options.seconds,
                "seed": options.seed,
                "sample_rate": rate,
                **bootstrap.settings(),
            },
            "snrs_db": [str(snr) for snr in SNRS],
            "clips": [{"name": name, "domain": domain} for name, domain in zip(names, domains)],
            "scores": scores,
            "means": to_dict(curves),
            "changes": to_dict(changes),
            REFERENCE: to_dict(limits),
            "scale": spreads,
            "balance": balances,
        }
        write_json(options.json, record)
    if options.plot is not None:
        plot(options.plot, changes, metrics)
    print("\n\n".join(["", *text]))


def evenly(domains: Sequence[str], limit: int) -> list[int]:
    """About `limit` rows, equally many per domain where possible, spread over each domain."""
    rows = {each: [i for i, domain in enumerate(domains) if domain == each] for each in sorted(set(domains))}
    share = max(1, round(limit / len(rows)))
    chosen = []
    for found in rows.values():
        chosen += [found[i] for i in spread_rows(len(found), share)]
    return sorted(chosen)


def domain_of(name: str, data: str) -> str:
    """Folder of a clip in a collection of data sets, or the name of the only data set."""
    first = name.split("/")[0]
    return Path(data).name if first in SPLITS or "/" not in name else first


def noise_scores(codec: Codec, clip: Clip, metrics: Sequence[Metric], rate: int, seed: int) -> list[list[float]]:
    """Values of each metric at each signal-to-noise ratio for one clip."""
    own = codec.audio_spec.sample_rate
    audio, layout = codec_input(codec, clip)
    latents = codec.encode(audio[None], layout=layout)
    reference = resample(audio, own, rate)
    found: list[list[float]] = [[] for _ in metrics]
    for snr in SNRS:
        decoded = codec.decode(with_noise(latents, snr, seed=seed, key=clip.name), seed=seed)[0]
        estimate = fit(resample(decoded.cpu(), own, rate), reference.shape[-1])
        for metric, row in zip(metrics, found):
            row.append(metric(estimate, reference))
    return found


def scale_spread(by_gain: Mapping[int, list[Tensor]], domains: list[str]) -> dict[str, Any]:
    """RMS of frames per domain and gain, and its relative standard deviation."""
    everything = torch.cat([rms for found in by_gain.values() for rms in found])
    plain = torch.cat(by_gain[0])
    by_domain = {
        each: float(torch.cat([rms for rms, domain in zip(by_gain[0], domains) if domain == each]).mean())
        for each in sorted(set(domains))
    }
    return {
        "by_domain": by_domain,
        "by_gain_db": {gain: float(torch.cat(found).mean()) for gain, found in by_gain.items()},
        "spread": float(plain.std(correction=0) / plain.mean()),
        "spread_over_gains": float(everything.std(correction=0) / everything.mean()),
    }


def noise_table(
    curves: Mapping[str, Any], changes: Mapping[str, Any], limits: Mapping[str, Any], metric: Metric
) -> str:
    """One row per model: the metric without noise, and its change at each ratio."""
    heading = [f"{metric.label}{_unit(metric)}", *(f"{_snr(snr)} dB" for snr in SNRS)]
    rows = [
        [name, *(format_interval(x) for x in (curve[metric.name][0], *changes[name][metric.name]))]
        for name, curve in curves.items()
    ]
    rows.append([REFERENCE, format_interval(limits[metric.name]), *([""] * (len(SNRS) - 1))])
    return table(heading, rows)


def spread_table(spreads: Mapping[str, Any]) -> str:
    """One row per model."""
    domains = list(next(iter(spreads.values()))["by_domain"])
    gains = [gain for gain in GAINS if gain]
    heading = ["model", *domains, *(f"{gain:+d} dB" for gain in gains), "spread", "spread over gains"]
    rows = [
        [
            name,
            *(f"{found['by_domain'][domain]:.4g}" for domain in domains),
            *(f"{found['by_gain_db'][gain]:.4g}" for gain in gains),
            f"{found['spread']:.2g}",
            f"{found['spread_over_gains']:.2g}",
        ]
        for name, found in spreads.items()
    ]
    return table(heading, rows)


def balance_table(balances: Mapping[str, Any], models: Mapping[str, Codec]) -> str:
    """One row per model."""
    heading = ["model", "channels", "RMS", "min variance", "max variance", "effective rank", "dead", "excess kurtosis"]
    keys = ("rms", "variance_min", "variance_max", "effective_rank", "dead", "kurtosis")
    rows = [
        [name, str(models[name].latent_spec.dim), *(f"{found[key]:.3g}" for key in keys)]
        for name, found in balances.items()
    ]
    return table(heading, rows)


def plot(path: Path, changes: Mapping[str, Any], metrics: Sequence[Metric]) -> None:
    """One panel per metric: change by noise, one curve per model, with its interval as a band."""
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(4 * len(metrics), 3.4), layout="constrained")
    positions = range(len(SNRS) - 1)
    for axis, metric in zip(axes, metrics):
        for name, change in changes.items():
            intervals = change[metric.name]
            axis.plot(positions, [each.mean for each in intervals], "o-", label=name, markersize=3, linewidth=1)
            axis.fill_between(positions, [i.low for i in intervals], [i.high for i in intervals], alpha=0.12)
        axis.axhline(0, linestyle=":", color="gray", linewidth=1)
        axis.set_xticks(positions, [_snr(snr) for snr in SNRS[1:]])
        axis.set(xlabel="SNR of the latents, dB", title=f"change of {metric.label}{_unit(metric)}")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _snr(snr: float) -> str:
    return "∞" if snr == float("inf") else f"{snr:g}".replace("-", "−")


def _unit(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{unit} {'↓' if metric.better == 'lower' else '↑'}"


if __name__ == "__main__":
    main()
