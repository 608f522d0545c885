"""Quality of classical codecs by bit rate: Opus, codec2 and Speex on speech, Opus and MP3 on speech and music.

    python benchmarks/classical.py speech --data DIR [--data DIR ...] [--json F] [--plot F.svg]

Needs the programs of the Debian packages opus-tools, codec2, speex and lame; codecs whose programs are missing are left
out. Bits are those of the packets, delays are compensated as in `partita.evaluation.classical`. Prints a Markdown table
of means with 95 % bootstrap intervals over clips; only lossless files are measured, as others are coded already.
ViSQOL takes much longer than the other metrics and is measured on fewer clips.
"""

# ruff: noqa: E402
import argparse
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

from harness import machine, table
from matplotlib import pyplot
from partita.data import open_dataset, spread_rows, whole_files
from partita.data.clip_latents import truncate_clip
from partita.evaluation import Evaluation, evaluate, named_metrics
from partita.evaluation.classical import ClassicalCodec
from partita.evaluation.classical_codecs import parse_classical
from partita.evaluation.results import format_interval
from partita_core import ChannelLayout, to_dict, write_json
from torch import Tensor
from tqdm import tqdm

SPEECH = (
    "opus:6 opus:9 opus:12 opus:16 opus:24 opus:6:60 opus:9:60 opus:12:60 opus:6:20:cbr opus:6:60:cbr "
    "codec2:700C codec2:1200 codec2:2400 codec2:3200 speex:nb:0 speex:nb:2 speex:nb:4 speex:wb:2 mp3:16 mp3:24 mp3:32"
)
MUSIC = "opus:6 opus:12 opus:24 opus:48 opus:64 mp3:64 mp3:128"
# Codecs, sample rate, and metrics; the hop of the frame buzz is that of the usual frames of Opus, 20 ms.
KINDS = {
    "speech": (SPEECH, 16_000, "stoi estoi pesq log_mel_l1 si_sdr frame_buzz:hop=320"),
    "music": (MUSIC, 44_100, "log_mel_l1 multi_resolution_stft si_sdr frame_buzz:hop=882"),
}
LOSSLESS = (".flac", ".wav")
# Equal plots give equal files.
pyplot.rcParams["svg.hashsalt"] = "partita"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write tables and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--data", required=True, action="append", help="data set; may be repeated")
    parser.add_argument("--split", default="test")
    parser.add_argument("--codecs", help="as opus:6,codec2:3200 (default: those of the kind)")
    parser.add_argument("--limit", type=int, metavar="N", help="maximum number of clips per data set")
    parser.add_argument("--visqol", type=int, default=8, metavar="N", help="number of clips for ViSQOL, in all")
    parser.add_argument("--visqol-seconds", type=float, default=3.0, help="maximum length of these clips")
    parser.add_argument("--seconds", type=float, default=6.0, help="maximum length of a clip")
    parser.add_argument("--json", type=Path, metavar="F")
    parser.add_argument("--plot", type=Path, metavar="F.svg")
    options = parser.parse_args(arguments)

    texts, rate, metrics = KINDS[options.kind]
    wanted = [parse_classical(text) for text in (options.codecs.split(",") if options.codecs else texts.split())]
    codecs = [codec for codec in wanted if not codec.missing()]
    for codec in wanted:
        if codec not in codecs:
            print(f"left out: {codec.name}; install the package {codec.package}")
    audio = list(clips(options, rate))
    found = measured(audio, metrics.split(), rate, codecs)
    if options.visqol:
        few = [audio[i] for i in spread_rows(len(audio), options.visqol)]
        few = [(name, sound[:, : round(options.visqol_seconds * rate)], layout) for name, sound, layout in few]
        found = joined(found, measured(few, ["visqol"], rate, codecs))
    facts = machine("partita", "pesq", "visqol-python", "pystoi") | versions(codecs)
    if options.json is not None:
        settings = {
            key: getattr(options, key) for key in ("kind", "split", "limit", "seconds", "visqol", "visqol_seconds")
        }
        settings |= {"data": [Path(each).name for each in options.data], "clips": len(found.clips), **found.settings}
        rates = {system.name: system.bit_rate for system in found.systems}
        record = {"machine": facts, "settings": settings, "bit_rates": rates, "means": to_dict(found.means)}
        write_json(options.json, record)
    if options.plot is not None:
        plot(options.plot, found)
    minutes = sum(clip.seconds for clip in found.clips) / 60
    text = f"{len(found.clips)} clips, at most {options.seconds:g} s of each, {minutes:.1f} minutes, at {rate} Hz."
    if options.visqol:
        text += f" ViSQOL on {options.visqol_seconds:g} s of {min(options.visqol, len(found.clips))} of them."
    print("\n\n".join([str(facts), text, quality_table(found), *found.notes]))


def clips(options: argparse.Namespace, rate: int) -> Iterator[tuple[str, Tensor, ChannelLayout]]:
    """Name, audio and layout of the lossless clips of all data sets."""
    for data in options.data:
        dataset = open_dataset(data, split=options.split)
        kept = [i for i, name in enumerate(dataset["file_name"]) if name.endswith(LOSSLESS)]
        if options.limit is not None:
            kept = [kept[i] for i in spread_rows(len(kept), options.limit)]
        for clip in whole_files(dataset.select(kept), sample_rate=rate, mono=options.kind == "speech"):
            clip = truncate_clip(clip, options.seconds)
            yield f"{Path(data).name}/{clip.name}", clip.audio, clip.layout


def measured(
    audio: Sequence[tuple[str, Tensor, ChannelLayout]], metrics: list[str], rate: int, codecs: Sequence[ClassicalCodec]
) -> Evaluation:
    """Evaluation of the codecs and of matched noise."""
    return evaluate({}, tqdm(audio, unit="clip"), named_metrics(metrics), sample_rate=rate, classical=codecs)


def joined(found: Evaluation, more: Evaluation) -> Evaluation:
    """The means of both evaluations in one table."""
    means = {name: row | more.means[name] for name, row in found.means.items()}
    return replace(found, metrics=(*found.metrics, *more.metrics), means=means)


def versions(codecs: Sequence[ClassicalCodec]) -> dict[str, str]:
    """Version of each Debian package that is used."""
    found = {}
    for package in dict.fromkeys(codec.package for codec in codecs):
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            continue
        if done.returncode == 0:
            found[package] = done.stdout
    return found


def quality_table(found: Evaluation) -> str:
    """One row per system, with its bit rate and every metric."""
    rows = [
        [
            system.name,
            "" if system.bit_rate is None else f"{system.bit_rate:,.0f}",
            *(format_interval(found.means[system.name][metric.name]) for metric in found.metrics),
        ]
        for system in found.systems
    ]
    return table(["codec", "bit/s", *(metric.title for metric in found.metrics)], rows)


def plot(path: Path, found: Evaluation) -> None:
    """One panel per metric over the bit rate, one curve per family, with its interval as a band."""
    families: dict[str, list[Any]] = {}
    for system in sorted((s for s in found.systems if s.bit_rate), key=lambda s: s.bit_rate or 0):
        words = system.name.replace(",", "").split()
        family = f"Opus {' '.join(words[3:])}" if words[0] == "Opus" else words[0]
        families.setdefault(family if words[0] != "Speex" else f"Speex {words[1]}", []).append(system)
    metrics = [metric for metric in found.metrics if metric.name != "frame_buzz"]
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(3.4 * len(metrics), 3.4), layout="constrained")
    for axis, metric in zip(axes, metrics):
        for family, systems in families.items():
            rates = [system.bit_rate / 1000 for system in systems]
            intervals = [found.means[system.name][metric.name] for system in systems]
            axis.plot(rates, [each.mean for each in intervals], "o-", label=family, markersize=3, linewidth=1)
            axis.fill_between(rates, [i.low for i in intervals], [i.high for i in intervals], alpha=0.12)
        axis.set(xlabel="kbit/s", title=metric.title, xscale="log")
        ticks = [
            tick for tick in (0.7, 1.2, 2.4, 6, 12, 24, 64, 128) if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]
        ]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
