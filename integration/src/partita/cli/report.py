"""Write an HTML page that compares models: metrics with confidence intervals, plots, and audio examples."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._arguments import add_output, positive_int
from ._evaluation import add_evaluation_arguments, open_systems, run_evaluation

if TYPE_CHECKING:
    from partita_core import Codec

# Versions of a clip are selected by digit keys, the original by the first.
_MAX_MODELS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_evaluation_arguments(parser)
    add_output(parser, ".html file to write")
    parser.add_argument("--title", help="heading of the page (default: the names of the models)")
    parser.add_argument(
        "--clips", type=positive_int, default=4, metavar="N", help="number of audio examples (default: 4)"
    )
    parser.add_argument(
        "--robustness",
        type=Path,
        metavar="FILE",
        help="also plot robustness to noise on the latents, from the JSON of benchmarks/robustness.py",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError

    from partita.data import spread_rows
    from partita.report import Robustness, write_report
    from partita.training import RunFolder
    from partita.training.logs import read_log

    from ._files import check_suffix
    from ._models import named_models

    check_suffix(options.output, ".html", "a report")
    paths = named_models(options.models)
    if len(paths) > _MAX_MODELS:
        raise PartitaError(f"there are {len(paths)} models; a report compares at most {_MAX_MODELS}")
    robustness = None if options.robustness is None else Robustness.load(options.robustness).of(paths)
    runs = {name: RunFolder.of_model(path) for name, path in paths.items()}
    logs = {name: read_log(run.log) for name, run in runs.items() if run is not None}
    systems = open_systems(options)
    examples: list[Any] = []

    def keep(clip: str, audio: Any, estimates: dict[str, Any]) -> None:
        examples.append((clip, audio, {name: estimates[name] for name in paths}))
        if len(examples) > 2 * options.clips:  # drop every other one, so that they stay spread over all clips
            del examples[1::2]

    found = run_evaluation(options, systems, keep)
    rate = found.settings["sample_rate"]
    write_report(
        options.output,
        title=options.title or " · ".join(paths),
        clips=[(*examples[i], rate) for i in spread_rows(len(examples), options.clips)],
        logs=logs,
        evaluation=found,
        robustness=robustness,
        models={name: _facts(codec, logs.get(name, [])) for name, codec in systems.codecs.items()},
        summary=[
            ("Data", f"{Path(options.data).name}, {options.split}"),
            ("Clips", f"{len(found.clips)}, {sum(clip.seconds for clip in found.clips) / 60:.1f} minutes"),
            ("Compared at", f"{rate / 1000:g} kHz"),
        ],
        max_seconds=10,
    )
    print(f"report: {options.output}")


def _facts(codec: "Codec", log: list[dict[str, Any]]) -> dict[str, str]:
    """Parts, size and latents of a model, and its training if there is a log of it."""
    from partita_core import Config

    from partita.model_profile import count_parameters

    parts = [getattr(part, "config", None) for part in codec.children()]
    names = [part.tag.split("/")[1] for part in parts if isinstance(part, Config)]
    spec = codec.latent_spec
    tokens = f"{spec.tokens_per_frame} × " if spec.tokens_per_frame > 1 else ""
    facts = {
        "made of": " · ".join(names) or type(codec).__name__,
        "parameters": f"{count_parameters(codec) / 1e6:.1f} M",
        "sample rate": f"{codec.audio_spec.sample_rate / 1000:g} kHz",
        "latents": f"{tokens}{spec.dim} at {float(spec.frame_rate):.4g} Hz",
    }
    steps = [row for row in log if "seconds" in row]
    if steps:
        facts |= {"steps": f"{steps[-1]['step']:,}", "trained": f"{steps[-1]['seconds'] / 60:.0f} min"}
    return facts
