"""What `evaluate` and `report` share: which models, on what data, by which metrics."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ._models import add_levels
from ._sampler import add_sampler, named_sampler

if TYPE_CHECKING:
    from partita_core import ChannelLayout, Codec
    from torch import Tensor

    from partita.evaluation import Embed, Evaluation
    from partita.evaluation.evaluate import OnClip


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that the functions below read."""
    what = "model folders, or names on the hub; NAME=MODEL calls one NAME"
    parser.add_argument("models", nargs="+", metavar="MODEL", help=what)
    parser.add_argument("--data", required=True, help="folder of audio, Parquet set, or name on the hub")
    parser.add_argument("--split", default="test", help="of the data (default test)")
    parser.add_argument("--limit", type=int, metavar="N", help="clips at most, spread over the split")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each clip at most; the whole if not given")
    parser.add_argument(
        "--metrics",
        metavar="NAME,...",
        help="metrics by name, as `partita components 'metric/*'` lists them; all: every one that takes any clip "
        "with settings as seam_excess:chunk=26880,edge=0 (default log_mel_l1,multi_resolution_stft,si_sdr)",
    )
    parser.add_argument(
        "--frechet",
        action="append",
        default=[],
        metavar="EMBEDDER",
        help="also the Frechet distance with an embedder: latents:MODEL, features:MODEL, or hf:NAME for an audio model "
        "of transformers; may be repeated",
    )
    add_levels(parser)
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="of noise and bootstrap (default 0)")


def open_models(options: argparse.Namespace) -> "dict[str, Codec]":
    """The models by their names in the tables.

    Raises:
        PartitaError: there is none of a name, or two are called the same.
    """
    from partita.model_loading import load_codec

    from ._models import named_models

    return {name: load_codec(path) for name, path in named_models(options.models).items()}


def run_evaluation(
    options: argparse.Namespace, codecs: "dict[str, Codec]", on_clip: "OnClip | None" = None
) -> "Evaluation":
    """Evaluates the models as the options ask, and says what could not be read.

    Raises:
        PartitaError: what `evaluate` refuses, or a limit is not positive.
    """
    from partita_core import PartitaError
    from tqdm import tqdm

    from partita.data import open_dataset, spread_rows, whole_files
    from partita.data.clip_latents import truncate_clip
    from partita.evaluation import DEFAULT_METRICS, evaluate, named_metrics

    from ._files import say

    for name in ("limit", "seconds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise PartitaError(f"--{name} is {value}; it must be positive")
    metrics = DEFAULT_METRICS if options.metrics is None else named_metrics(_names(options.metrics))
    sampler = named_sampler(options.sampler)
    embedders = _embedders(options.frechet)
    rate = max(codec.audio_spec.sample_rate for codec in codecs.values())
    dataset = open_dataset(options.data, split=options.split)
    if options.limit is not None:
        dataset = dataset.select(spread_rows(len(dataset), options.limit))
    broken: list[str] = []
    mono = any(codec.audio_spec.channels == 1 for codec in codecs.values())
    if mono:
        say("stereo is folded to mono, since that is all that a model takes")
    clips = whole_files(dataset, sample_rate=rate, mono=mono, broken=broken)
    if options.seconds is not None:
        clips = (truncate_clip(clip, options.seconds) for clip in clips)

    def shown() -> "Iterator[tuple[str, Tensor, ChannelLayout]]":  # no bar of what is refused
        for clip in tqdm(clips, total=len(dataset), unit="clip"):
            yield clip.name, clip.audio, clip.layout

    found = evaluate(
        codecs,
        shown(),
        metrics,
        sample_rate=rate,
        num_quantizers=options.num_quantizers,
        sampler=sampler,
        seed=options.seed,
        embedders=embedders,
        on_clip=on_clip,
    )
    for reason in broken:
        say(f"left out: {reason}")
    return replace(found, settings=found.settings | {"folded_to_mono": mono})


def _names(text: str) -> list[str]:
    """Names parted by commas; settings of one, `name:key=value,key=value`, stay with it."""
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _embedders(names: list[str]) -> "dict[str, Embed]":
    """The embedders, by their names with the models' short ones in them."""
    from partita.evaluation.embedders import open_embedder

    from ._models import short_names

    models = {name: name.partition(":")[2] for name in names}
    short = {model: name for name, model in short_names(list(models.values())).items()}
    return {f"{name.partition(':')[0]}:{short[model]}": open_embedder(name) for name, model in models.items()}
