"""Measure models on a data set, beside silence, matched noise and a low-pass of the same numbers a second."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._sampler import add_sampler, named_sampler

if TYPE_CHECKING:
    from partita.evaluation import Embed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model folders, or names on the hub")
    parser.add_argument("--data", required=True, help="folder of audio, Parquet set, or name on the hub")
    parser.add_argument("--split", default="test", help="of the data (default test)")
    parser.add_argument("--limit", type=int, metavar="N", help="clips at most, spread over the split")
    parser.add_argument(
        "--metrics",
        metavar="NAME,...",
        help="metrics by name, as `partita components 'metric/*'` lists them; all: every one that takes any clip "
        "(default log_mel_l1,multi_resolution_stft,si_sdr)",
    )
    parser.add_argument(
        "--frechet",
        action="append",
        default=[],
        metavar="EMBEDDER",
        help="also the Frechet distance with an embedder: latents:MODEL, features:MODEL, or hf:NAME for an audio model "
        "of transformers; may be repeated",
    )
    parser.add_argument(
        "--num-quantizers", type=int, metavar="Q", help="decode from Q levels of codes, not from latents"
    )
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="of noise and bootstrap (default 0)")
    parser.add_argument("--json", type=Path, metavar="F", help="also write everything but the speeds as JSON")
    parser.add_argument("--csv", type=Path, metavar="F", help="also write the figures of each clip as CSV")
    parser.add_argument("--markdown", type=Path, metavar="F", help="also write what is printed")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError
    from tqdm import tqdm

    from partita.data import open_dataset, whole_files
    from partita.evaluation import DEFAULT_METRICS, evaluate, named_metrics
    from partita.models import load_codec

    from ._files import say
    from ._models import short_names

    metrics = DEFAULT_METRICS if options.metrics is None else named_metrics(options.metrics.split(","))
    sampler = named_sampler(options.sampler)
    codecs = {name: load_codec(path) for name, path in short_names(options.models).items()}
    embedders = _embedders(options.frechet)
    rates = sorted({codec.audio_spec.sample_rate for codec in codecs.values()})
    dataset = open_dataset(options.data, split=options.split)
    if options.limit is not None:
        if options.limit < 1:
            raise PartitaError(f"--limit is {options.limit}; it must be positive")
        count = min(options.limit, len(dataset))
        dataset = dataset.select([i * len(dataset) // count for i in range(count)])
    broken: list[str] = []
    mono = any(codec.audio_spec.channels == 1 for codec in codecs.values())
    if mono:
        say("stereo is folded to mono, since that is all that a model takes")
    clips = whole_files(dataset, sample_rate=rates[-1], mono=mono, broken=broken)
    shown = tqdm(clips, total=len(dataset), unit="clip")
    found = evaluate(
        codecs,
        ((clip.name, clip.audio, clip.layout) for clip in shown),
        metrics,
        sample_rate=rates[-1],
        num_quantizers=options.num_quantizers,
        sampler=sampler,
        seed=options.seed,
        embedders=embedders,
    )
    for reason in broken:
        say(f"left out: {reason}")
    if options.json is not None:
        found.to_json(options.json)
    if options.csv is not None:
        found.to_csv(options.csv)
    if options.markdown is not None:
        found.write_markdown(options.markdown)
    print(found.to_markdown())


def _embedders(names: list[str]) -> "dict[str, Embed]":
    """The embedders, by their names with the models' short ones in them."""
    from partita.embedders import open_embedder

    from ._models import short_names

    models = {name: name.partition(":")[2] for name in names}
    short = {model: name for name, model in short_names(list(models.values())).items()}
    return {f"{name.partition(':')[0]}:{short[model]}": open_embedder(name) for name, model in models.items()}
