"""Generate audio of a text, with a language model on the latents of a codec; or train one.

`partita generate MODEL --data DIR --output RUN` trains a generator, RUN/model, on the latents of MODEL: a codec, or a
representation model on one. DIR is audio, or latents that `partita encode` stored. What audio is conditioned on is a
template over the columns of the data, `--text "{caption}"` by default. A transcript ({text}, {transcript},
{transcription}, {sentence}, {lyrics}) is that of a whole file, so it conditions files no longer than a crop;
`data.texts.0.whole=true` or `=false` says so of other columns.

`partita generate RUN/model --seconds S -o OUT.wav` samples it.
"""

import argparse
from pathlib import Path

from ._runs import add_run_arguments, run_recipe

_TRAINING = ("text", "steps", "minutes", "checkpoint_every", "checkpoint_minutes", "init_from")
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
    """Declares the command's arguments."""
    parser.usage = (
        "partita generate MODEL --data DIR --output RUN [options] [path.to.key=value ...]\n"
        "       partita generate RUN/model --seconds S -o OUT.wav [--prompt TEXT] [options]"
    )
    parser.add_argument("model", metavar="MODEL", help="codec or representation model to train on, or a generator")
    training = parser.add_argument_group("to train")
    add_run_arguments(training, required=False)
    training.add_argument(
        "--recipe", default="generation_small", help="generation_base, _small (default), or _tiny for a CPU"
    )
    training.add_argument(
        "--text", metavar="TEMPLATE", help='the condition, of columns: "{label}"; "" for none (default "{caption}")'
    )
    sampling = parser.add_argument_group("to sample")
    sampling.add_argument("-o", dest="output", type=Path, metavar="OUT", help=".wav file to write")
    sampling.add_argument("--prompt", help="text to follow; none if not given")
    sampling.add_argument(
        "--audio-prompt", type=Path, metavar="FILE", help="audio that the output begins with and goes on from"
    )
    sampling.add_argument("--seconds", type=float, help="length of the audio")
    sampling.add_argument("--seed", type=int, help="of the draws (default 0)")
    sampling.add_argument("--guidance", type=float, help="towards the prompt, 1 for none (default 1.5)")
    sampling.add_argument("--temperature", type=float, help="of the draws, smaller is safer (default 1)")
    sampling.add_argument("--flow-steps", type=int, help="from noise to latents (default 10)")
    sampling.add_argument("--top-k", type=int, help="the likeliest codes that are considered; all if not given")
    sampling.add_argument("--layout", help="mono, stereo or mid_side, of those that the codec knows")
    sampling.add_argument("--stop", action="store_true", default=None, help="end where the recording ends")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError

    if options.output is None:
        raise PartitaError("name what to write: --data DIR --output RUN to train, --seconds S -o OUT.wav to sample")
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

    from ._files import check_suffix, decode_to_file, encode_file

    if options.overrides:
        raise PartitaError(f"{options.overrides[0]!r} is for training; name the data with --data, or leave it away")
    if options.seconds is None:
        raise PartitaError("--seconds is missing: how long shall it be? To train, name --data")
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
        given["audio"] = encode_file(
            model.codec, options.audio_prompt, layout=options.layout, num_quantizers=None, progress=False
        )
    latents = model.generate([options.prompt or ""], options.seconds, **given)
    decode_to_file(model.codec, latents, options.output, sampler=None, seed=options.seed or 0)
