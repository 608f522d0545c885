"""Evaluation of models on a data set: the arguments and steps shared by `evaluate` and `report`."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arguments import add_where, positive_float, positive_int
from ._decoding import add_sampler, named_sampler
from ._models import MODEL, add_levels

if TYPE_CHECKING:
    from datasets import Dataset
    from partita_core import ChannelLayout, Codec
    from torch import Tensor

    from partita.evaluation import DecodedFolder, Embed, Evaluation
    from partita.evaluation.classical import ClassicalCodec
    from partita.evaluation.evaluate import OnClip
    from partita.evaluation.linear_reference import LinearReference


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that the functions below read."""
    what = (
        f"{MODEL}; or a folder of files that another codec has decoded, with the names of the files in the data; "
        "NAME=MODEL gives a model a name in the tables"
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help=what)
    parser.add_argument("--data", required=True, help="folder of audio, Parquet data set, or name on the hub")
    parser.add_argument("--split", default="test", help="dataset split (default: test)")
    add_where(parser)
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="maximum number of clips, spread over the split (default: all)"
    )
    parser.add_argument(
        "--seconds", type=positive_float, metavar="S", help="truncate clips to S seconds (default: full length)"
    )
    parser.add_argument(
        "--metrics",
        metavar="NAME,...",
        help="metrics by name, as listed by `partita components 'metric/*'`, with optional settings as in "
        "seam_excess:chunk=26880,edge=0; `all` for every metric that applies to any clip "
        "(default: log_mel_l1,multi_resolution_stft,si_sdr,frame_buzz)",
    )
    parser.add_argument(
        "--references",
        metavar="CODEC,...",
        help="also measure classical codecs, as opus:6,codec2:3200; each is opus:KBITS[:FRAME_MS][:cbr], codec2:MODE, "
        "speex:nb:QUALITY, speex:wb:QUALITY or mp3:KBITS. Those whose programs are missing are left out",
    )
    parser.add_argument(
        "--frechet",
        action="append",
        default=[],
        metavar="EMBEDDER",
        help="also compute the Frechet distance with an embedder: latents:MODEL, features:MODEL, or hf:NAME for an "
        "audio model of transformers; may be repeated",
    )
    parser.add_argument(
        "--no-align",
        action="store_true",
        help="do not compensate the delay of decoded files (default: shift by up to 50 ms to the highest correlation)",
    )
    add_levels(parser)
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of noise and bootstrap (default: 0)")


class Systems(NamedTuple):
    """Models and folders of decoded files, by their names in the tables."""

    codecs: "dict[str, Codec]"
    folders: "dict[str, DecodedFolder]"


def open_systems(options: argparse.Namespace) -> Systems:
    """Load the models, and list the folders of decoded files.

    Raises:
        PartitaError: a model does not exist, two have the same name, or the files of a folder are ambiguous.
    """
    from partita.evaluation import DecodedFolder
    from partita.model_loading import load_codec

    from ._models import holds_model, named_models

    named = named_models(options.models)
    codecs = {name: load_codec(path) for name, path in named.items() if holds_model(path)}
    folders = {
        name: DecodedFolder(path, align=not options.no_align) for name, path in named.items() if name not in codecs
    }
    return Systems(codecs, folders)


def run_evaluation(options: argparse.Namespace, systems: Systems, on_clip: "OnClip | None" = None) -> "Evaluation":
    """Evaluate systems with the given options, and report the files that could not be read.

    Raises:
        PartitaError: as `evaluate`, the data cannot be opened, or a folder lacks a file.
    """
    from tqdm import tqdm

    from partita.data import open_dataset, spread_rows, whole_files
    from partita.data.clip_latents import truncate_clip
    from partita.data.datasets import row_names
    from partita.evaluation import evaluate, named_metrics

    from ._files import print_status

    classical = _classical(options.references)
    metrics = None if options.metrics is None else named_metrics(_names(options.metrics))
    sampler = named_sampler(options.sampler)
    embedders = _embedders(options.frechet)
    codecs, folders = systems
    rates = [codec.audio_spec.sample_rate for codec in codecs.values()]
    rate = max(rates or [folder.sample_rate for folder in folders.values()])
    dataset = open_dataset(options.data, split=options.split, where=options.where)
    if options.limit is not None:
        dataset = dataset.select(spread_rows(len(dataset), options.limit))
    for folder in folders.values():
        folder.check(row_names(dataset))
    broken: list[str] = []
    mono = any(codec.audio_spec.channels == 1 for codec in codecs.values())
    if mono:
        print_status("stereo clips are averaged to mono, the only layout of one of the models")
    clips = whole_files(dataset, sample_rate=rate, mono=mono, broken=broken)
    if options.seconds is not None:
        clips = (truncate_clip(clip, options.seconds) for clip in clips)

    def with_progress() -> "Iterator[tuple[str, Tensor, ChannelLayout]]":  # shows no bar if `evaluate` raises first
        for clip in tqdm(clips, total=len(dataset), unit="clip"):
            yield clip.name, clip.audio, clip.layout

    train = _training_split(options)
    linear = {} if train is None else linear_codecs(codecs, train)
    found = evaluate(
        codecs,
        with_progress(),
        metrics,
        sample_rate=rate,
        num_quantizers=options.num_quantizers,
        sampler=sampler,
        decoded=folders,
        classical=classical,
        linear={name: each.codec for name, each in linear.items()},
        seed=options.seed,
        embedders=embedders,
        on_clip=on_clip,
    )
    for reason in broken:
        print_status(f"left out: {reason}")
    aligned = [] if options.no_align else [*folders]
    facts: dict[str, Any] = {"folded_to_mono": mono, "aligned": aligned}
    if linear:
        facts["linear"] = {"split": "train", "seconds": max(each.seconds for each in linear.values())}
    return replace(found, settings=found.settings | facts)


def _classical(text: str | None) -> "list[ClassicalCodec]":
    """Classical codecs by name, each once, without those whose programs are missing."""
    from partita.evaluation.classical_codecs import parse_classical

    from ._files import print_status

    wanted = dict.fromkeys(parse_classical(part) for part in (text or "").split(",") if text)
    missing = [codec for codec in wanted if codec.missing()]
    if missing:
        packages = " ".join(dict.fromkeys(codec.package for codec in missing))
        print_status(f"left out: {'; '.join(codec.name for codec in missing)} (`apt-get install {packages}`)")
    return [codec for codec in wanted if codec not in missing]


def _training_split(options: argparse.Namespace) -> "Dataset | None":
    """Training split of a local data set another split of which is evaluated; None if there is none."""
    from partita.data import dataset_splits, open_dataset
    from partita.data.sources.splits import canonical_split
    from partita.data.where import NoMatchingRowsError

    if not Path(options.data).exists() or canonical_split(options.split) == "train":
        return None
    try:
        return open_dataset(options.data, where=options.where) if "train" in dataset_splits(options.data) else None
    except NoMatchingRowsError:
        return None


def linear_codecs(codecs: "Mapping[str, Codec]", train: "Dataset") -> "dict[str, LinearReference]":
    """Linear codec per rate of numbers, by its name in the tables; without those that cannot be fitted."""
    from partita_core import PartitaError

    from partita.evaluation.linear_reference import fit_linear_reference

    from ._files import print_status

    found, rates = {}, {codec.latent_spec.floats_per_second: codec for codec in reversed([*codecs.values()])}
    for rate, codec in sorted(rates.items()):
        try:
            fitted = fit_linear_reference(codec, train)
        except PartitaError as error:
            print_status(f"no linear codec of {rate:,.0f} numbers/s: {error}")
            continue
        if fitted is not None:
            found[f"linear codec, {rate:,.0f} numbers/s"] = fitted
    return found


def _names(text: str) -> list[str]:
    """Names separated by commas; the settings in `name:key=value,key=value` stay with their name."""
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _embedders(names: list[str]) -> "dict[str, Embed]":
    """The embedders, by their names with shortened model paths."""
    from partita.evaluation.embedders import open_embedder

    from ._models import short_names

    models = {name: name.partition(":")[2] for name in names}
    short = {model: name for name, model in short_names(list(models.values())).items()}
    return {f"{name.partition(':')[0]}:{short[model]}": open_embedder(name) for name, model in models.items()}
