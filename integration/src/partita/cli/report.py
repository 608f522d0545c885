"""Write one HTML page on models: figures with intervals, plots, and clips to listen to side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._evaluation import add_evaluation_arguments, open_models, run_evaluation

if TYPE_CHECKING:
    from partita_core import Codec

# Sources of a clip are chosen by digit keys, and the original is the first.
_MODELS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_evaluation_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help=".html file to write")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--clips", type=int, default=4, metavar="N", help="clips to listen to (default 4)")
    parser.add_argument(
        "--robustness", type=Path, metavar="F", help="also curves of noisy latents: JSON of benchmarks/robustness.py"
    )


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError

    from partita.data import spread_rows
    from partita.report import Robustness, write_report
    from partita.training import RunFolder
    from partita.training.logs import read_log

    from ._files import check_suffix
    from ._models import named_models

    check_suffix(options.output, ".html", "a report")
    if options.clips < 1:
        raise PartitaError(f"--clips is {options.clips}; it must be positive")
    paths = named_models(options.models)
    if len(paths) > _MODELS:
        raise PartitaError(f"there are {len(paths)} models; a report compares at most {_MODELS}")
    robustness = None if options.robustness is None else Robustness.load(options.robustness).of(paths)
    runs = {name: RunFolder.of_model(path) for name, path in paths.items()}
    logs = {name: read_log(run.log) for name, run in runs.items() if run is not None}
    codecs = open_models(options)
    heard: list[Any] = []

    def listen(name: str, audio: Any, estimates: dict[str, Any]) -> None:
        heard.append((name, audio, {model: estimates[model] for model in codecs}))
        if len(heard) > 2 * options.clips:  # every other one, so that they stay spread over all
            del heard[1::2]

    found = run_evaluation(options, codecs, listen)
    rate = found.settings["sample_rate"]
    write_report(
        options.output,
        title=options.title or " · ".join(codecs),
        clips=[(*heard[i], rate) for i in spread_rows(len(heard), options.clips)],
        logs=logs,
        evaluation=found,
        robustness=robustness,
        models={name: _facts(codec, logs.get(name, [])) for name, codec in codecs.items()},
        summary=[
            ("Data", f"{Path(options.data).name}, {options.split}"),
            ("Clips", f"{len(found.clips)}, {sum(clip.seconds for clip in found.clips) / 60:.1f} minutes"),
            ("Compared at", f"{rate / 1000:g} kHz"),
        ],
        max_seconds=10,
    )
    print(f"report: {options.output}")


def _facts(codec: "Codec", log: list[dict[str, Any]]) -> dict[str, str]:
    """What there is to know of a model: parts, size, latents, and its training where the log of it is there."""
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
