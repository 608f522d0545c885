"""Demonstrate the toolkit in minutes on a CPU: a pretrained model of speech, then training on synthesized music."""

import argparse
import os
import sys
import webbrowser
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import positive_float
from .synth import synthesize_with_progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partita_core import ChannelLayout, Codec
    from torch import Tensor

    from partita.evaluation import Evaluation
    from partita.report import ReportClip
    from partita.training import RunConfig

_SPEECH, _MUSIC = "speech_pocket", "music_pocket"
# Many small steps learn more in three minutes than a few large ones.
_OVERRIDES = ("data.batch_size=2", "data.crop_seconds=0.65", "trainer.evaluate_seconds=8")
# Created first, so that the files of an interrupted demo are known to be its own.
_MARK = ".demo"
# Files written next to `data/` and `run/`.
_WRITTEN = (
    *(f"{part}{end}" for part in ("speech", "music") for end in (".safetensors", "_original.wav", "_decoded.wav")),
    "report.html",
    "demo.png",
    _MARK,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder to write (default: runs/demo)")
    parser.add_argument("--minutes", type=positive_float, default=3.0, help="minutes of training (default: 3)")
    parser.add_argument("--data", type=Path, help="folder of audio to use instead of synthesized music")
    parser.add_argument("--no-open", action="store_true", help="do not open the report in a browser")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError, atomic_write, check_vacant, override

    from partita.data import open_dataset, spread_rows, whole_files
    from partita.model_loading import load_codec, pretrained_names
    from partita.recipes import recipe
    from partita.report import write_figure, write_report
    from partita.training import Interrupted, RunFolder, train
    from partita.training.logs import read_log

    from ._evaluation import linear_codecs
    from ._files import print_status

    output: Path = options.output
    config = override(recipe(_MUSIC), list(_OVERRIDES))
    run_folder = RunFolder(output / "run")
    again = (output / _MARK).is_file()
    has_run = run_folder.config.exists()
    if has_run and not (again and _is_run_of(run_folder.config, config)):
        raise PartitaError(
            f"{run_folder.path} holds a run that is not from this demo; move it, or choose another --output"
        )
    run_folder.check_own()
    check_vacant(output, but=["data", "run", *(_WRITTEN if again else ())])
    data, splits = options.data, ("train", "test")
    if data is not None:
        for split in splits:
            open_dataset(data, split=split)  # raises an error before anything is written
    with atomic_write(output / _MARK) as aside:
        aside.write_text("files of `partita demo`\n", encoding="utf-8")

    report = output / "report.html"
    clips: list[ReportClip] = []
    summary: list[tuple[str, str]] = []
    if _SPEECH in pretrained_names():
        found, clip = _speech(output)
        clips.append(clip)
        summary.append(("Speech", f"{_SPEECH}, pretrained; the speaker is not in its training data"))
        waiting = ("Music", f"the model is in training; reload the page in {options.minutes + 1:.0f} minutes")
        write_report(report, title="Partita demo", clips=clips, evaluation=found, summary=[*summary, waiting])
        print_status(f"report: {report} (speech; the music follows)")
        if not options.no_open:
            _open(report)
    else:
        print_status("the package partita-pretrained is not installed, so the demo leaves out its model of speech")

    if data is None:
        data = output / "data"
        synthesize_with_progress(data, minutes=8, seed=0)
    training, test = (open_dataset(data, split=split) for split in splits)
    if has_run:
        with run_folder.locked():
            run_folder.discard()  # only the demo replaces an existing run
    try:
        train(config, data=data, output=run_folder.path, recipe=_MUSIC, minutes=options.minutes)
    except Interrupted as interrupt:
        if interrupt.text:
            interrupt.text = "interrupted; the command starts over when it is run again"
        raise

    codec = load_codec(run_folder.model)
    rate = codec.audio_spec.sample_rate
    unseen = list(whole_files(test.select(spread_rows(len(test), 4)), sample_rate=rate))
    _write_audio(codec, unseen[0].audio, unseen[0].layout, output / "music")
    linear = {name: each.codec for name, each in linear_codecs({_MUSIC: codec}, training).items()}
    named = [(f"Music after {options.minutes:g} minutes of training: {clip.name}", clip) for clip in unseen]
    music, heard = _compare({_MUSIC: codec}, [(name, clip.audio, clip.layout) for name, clip in named], linear)
    trained = f"{_MUSIC}, trained from nothing for {options.minutes:g} minutes on {data}"
    summary.append(("Music", f"{trained}; the clips are not in its training data"))
    write_report(
        report,
        title="Partita demo",
        clips=[*clips, *heard],
        logs={_MUSIC: read_log(run_folder.log)},
        evaluation=music,
        summary=summary,
        max_seconds=6.0,
    )
    distances = music.scores[_MUSIC]["log_mel_l1"]
    typical = sorted(range(len(heard)), key=lambda number: distances[number] or 0.0)[len(heard) // 2]
    write_figure(output / "demo.png", [*clips, heard[typical]])
    print(music.to_markdown())
    print(f"report: {report}{' (reload the page)' if clips else ''}")
    if not clips and not options.no_open:
        _open(report)


def _is_run_of(saved: Path, config: "RunConfig") -> bool:
    """True if a saved config is that of the demo; its precision may be that of another machine."""
    from partita_core import PartitaError, to_dict

    from partita.training.run import read_run_config

    try:
        found, name = read_run_config(saved)
    except PartitaError:
        return False
    trainer = replace(found.trainer, precision=config.trainer.precision)
    return name == _MUSIC and to_dict(replace(found, trainer=trainer)) == to_dict(config)


def _speech(output: Path) -> "tuple[Evaluation, ReportClip]":
    """Encode and decode the recording that comes with the pretrained models."""
    from partita_core import default_layout
    from partita_pretrained import clip, folder

    from partita.data import read_audio
    from partita.model_loading import load_codec

    codec = load_codec(folder(_SPEECH))
    audio, _ = read_audio(clip())
    layout = default_layout(audio.shape[0])
    _write_audio(codec, audio, layout, output / "speech")
    found, clips = _compare({_SPEECH: codec}, [("Speech with a pretrained model", audio, layout)], {})
    return found, clips[0]


def _write_audio(codec: "Codec", audio: "Tensor", layout: "ChannelLayout", stem: Path) -> None:
    """Write a clip, its latents and its reconstruction, as `partita encode` and `partita decode` do."""
    from partita.data import write_audio

    latents = codec.encode(audio[None], layout=layout)
    latents.save(stem.with_suffix(".safetensors"))
    for name, signal in (("original", audio), ("decoded", codec.decode(latents)[0])):
        write_audio(stem.with_name(f"{stem.name}_{name}.wav"), signal, codec.audio_spec.sample_rate)


def _compare(
    models: "Mapping[str, Codec]", clips: "list[tuple[str, Tensor, ChannelLayout]]", linear: "Mapping[str, Codec]"
) -> "tuple[Evaluation, list[ReportClip]]":
    """Evaluate models, and return the clips with the estimates of all systems but silence."""
    from partita.evaluation import evaluate
    from partita.report import ReportClip

    kept: list[tuple[str, Tensor, dict[str, Tensor]]] = []
    found = evaluate(models, clips, linear=linear, on_clip=lambda *clip: kept.append(clip))
    rate = found.settings["sample_rate"]
    # The numbers of a linear reference come between the model and the noise.
    order = sorted((system.name for system in found.systems), key=lambda name: (name not in models, "noise" in name))
    estimates = [{name: each[name] for name in order if name != "silence"} for _, _, each in kept]
    return found, [
        ReportClip(name, audio, shown, rate, found) for (name, audio, _), shown in zip(kept, estimates, strict=True)
    ]


def _open(report: Path) -> None:
    """Open a page in the browser, if there is one with windows."""
    displays = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not displays:  # otherwise a text browser would take over the terminal
        return
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(report.resolve().as_uri())
