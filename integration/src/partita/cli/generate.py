"""Generate audio from a text with a generative model on the latents of a codec, or train such a model.

`partita generate MODEL --data DIR --output RUN` trains a generator, RUN/model, on the latents of MODEL: a codec, or a
representation model on one. DIR holds audio, or latents stored by `partita encode`. Audio is conditioned on a template
over the columns of the data, `--text "{caption}"` by default. A transcript ({text}, {transcript}, {transcription},
{sentence}, {lyrics}) describes an entire file, so it conditions only files no longer than a crop; for other columns,
this is set by `data.texts.0.whole=true` or `=false`.

`partita generate RUN/model --seconds S -o OUT.wav` samples from the trained generator.
"""

import argparse
from pathlib import Path

from ._runs import add_run_arguments, run_recipe

_TRAINING = ("text", "steps", "minutes", "cpu_minutes", "checkpoint_every", "checkpoint_minutes", "init_from")
_SAMPLING = (
    "prompt",
    "audio_prompt",
    "seconds",
    "seed",
    "guidance",
    "temperature",
    "flow_steps",
    "top_k",
    "layout",
    "stop",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.usage = (
        "partita generate MODEL --data DIR --output RUN [options] [path.to.key=value ...]\n"
        "       partita generate RUN/model --seconds S -o OUT.wav [--prompt TEXT] [options]"
    )
    parser.add_argument(
        "model", metavar="MODEL", help="codec or representation model to train on, or generator to sample from"
    )
    training = parser.add_argument_group("training")
    add_run_arguments(training, required=False)
    training.add_argument(
        "--recipe",
        default="generation_small",
        help="recipe: generation_base, generation_small, or generation_tiny for a CPU (default: generation_small)",
    )
    training.add_argument(
        "--text",
        metavar="TEMPLATE",
        help='text condition as a template over columns, such as "{label}"; "" for none (default: "{caption}")',
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("-o", dest="output", type=Path, metavar="OUT", help=".wav file to write")
    sampling.add_argument("--prompt", help="text prompt (default: none)")
    sampling.add_argument("--audio-prompt", type=Path, metavar="FILE", help="audio file to continue")
    sampling.add_argument("--seconds", type=float, help="duration of the output in seconds")
    sampling.add_argument("--seed", type=int, help="sampling seed (default: 0)")
    sampling.add_argument("--guidance", type=float, help="guidance scale, 1 for no guidance (default: 1.5)")
    sampling.add_argument("--temperature", type=float, help="sampling temperature; lower is less diverse (default: 1)")
    sampling.add_argument("--flow-steps", type=int, help="flow-matching steps per token (default: 10)")
    sampling.add_argument("--top-k", type=int, help="sample from the K most likely codes (default: all)")
    sampling.add_argument("--layout", help="channel layout of the output, one of the codec's: mono, stereo or mid_side")
    sampling.add_argument("--stop", action="store_true", default=None, help="stop when the model predicts the end")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError

    if options.output is None:
        raise PartitaError("no output is given; use --data DIR --output RUN to train, --seconds S -o OUT.wav to sample")
    trains = options.data is not None
    for name in _SAMPLING if trains else _TRAINING:
        if getattr(options, name) is not None:
            other = "sampling, without --data" if trains else "training, with --data"
            raise PartitaError(f"--{name.replace('_', '-')} is for {other}")
    if trains:
        _train(options)
    else:
        _sample(options)


def _train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from partita.data.texts import condition
    from partita.recipes import recipe as named
    from partita.training import RunConfig

    def recipe() -> RunConfig:
        config = named(options.recipe, options.model)
        if options.text is None:
            return config
        texts = (condition(options.text),) if options.text else ()
        return replace(config, data=replace(config.data, texts=texts))

    print(f"model: {run_recipe(options, recipe)}")


def _sample(options: argparse.Namespace) -> None:
    from partita_core import PartitaError

    from partita.generation import Generator
    from partita.model_loading import load_model

    from ._decoding import Decoding
    from ._files import check_suffix, encode_file

    if options.overrides:
        raise PartitaError(f"{options.overrides[0]!r} is for training; pass the data with --data, or leave it out")
    if options.seconds is None:
        raise PartitaError("--seconds is required for sampling; to train, pass --data")
    check_suffix(options.output, ".wav", "audio")
    model = load_model(options.model)
    if not isinstance(model, Generator):
        kind = type(model).__name__
        raise PartitaError(f"{options.model} holds a {kind}, not a generator; train one on it with --data and --output")
    settings = {"steps": options.flow_steps}
    settings |= {
        name: getattr(options, name) for name in ("seed", "guidance", "temperature", "top_k", "layout", "stop")
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if options.audio_prompt is not None:
        given["audio"] = encode_file(model.codec, options.audio_prompt, layout=options.layout, progress=False)
    latents = model.generate([options.prompt or ""], options.seconds, **given)
    Decoding(options.output, seed=options.seed or 0).write(model.codec, latents)
