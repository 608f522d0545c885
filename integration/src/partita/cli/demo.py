"""Demonstrate the entire pipeline in minutes on a CPU: synthesize music, train, encode, decode, and write a report."""

import argparse
from pathlib import Path

from ._arguments import positive_float
from .synth import synthesize_with_progress

# Files written next to `data/` and `run/`.
_WRITTEN = ("unseen.safetensors", "unseen_original.wav", "unseen_decoded.wav", "report.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder to write (default: runs/demo)")
    parser.add_argument("--minutes", type=positive_float, default=3.5, help="minutes of training (default: 3.5)")
    parser.add_argument("--data", type=Path, help="folder of audio to use instead of synthesized music")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError, check_vacant, override, read_json, to_dict

    from partita.data import open_dataset, whole_files, write_audio
    from partita.evaluation import evaluate
    from partita.model_loading import load_codec
    from partita.model_profile import profile
    from partita.recipes import recipe
    from partita.report import write_report
    from partita.training import Interrupted, RunFolder, train
    from partita.training.logs import read_log

    output: Path = options.output
    config = override(recipe("genae_tiny"), ["data.crop_seconds=0.61", "trainer.evaluate_seconds=8"])
    run_folder = RunFolder(output / "run")
    again = run_folder.config.exists()
    if again and read_json(run_folder.config) != {"recipe": "genae_tiny", "config": to_dict(config)}:
        raise PartitaError(
            f"{run_folder.path} holds a run that is not from this demo; move it, or choose another --output"
        )
    run_folder.check_own()
    check_vacant(output, but=["data", "run", *(_WRITTEN if again else ())])
    data = options.data
    if data is None:
        data = output / "data"
        synthesize_with_progress(data, minutes=8, seed=0)
    _, dataset = (open_dataset(data, split=split) for split in ("train", "test"))
    if again:
        with run_folder.locked():
            run_folder.discard()  # only the demo replaces an existing run
    try:
        train(config, data=data, output=run_folder.path, recipe="genae_tiny", minutes=options.minutes)
    except Interrupted as interrupt:
        if interrupt.text:
            interrupt.text = "interrupted; the command starts over when it is run again"
        raise

    # As in `partita encode` and `partita decode`, on a file that was not used for training.
    codec = load_codec(run_folder.model)
    clips = list(whole_files(dataset.select(range(min(4, len(dataset)))), sample_rate=codec.audio_spec.sample_rate))
    unseen = clips[0]
    latents = codec.encode(unseen.audio[None], layout=unseen.layout)
    latents.save(output / "unseen.safetensors")
    decoded = codec.decode(latents)[0]
    write_audio(output / "unseen_original.wav", unseen.audio, unseen.sample_rate)
    write_audio(output / "unseen_decoded.wav", decoded, unseen.sample_rate)

    compared = []
    found = evaluate(
        {"genae_tiny": codec},
        [(clip.name, clip.audio, clip.layout) for clip in clips],
        on_clip=lambda name, audio, estimates: compared.append((name, audio, {"genae_tiny": estimates["genae_tiny"]})),
    )
    facts = profile(codec)
    write_report(
        output / "report.html",
        title="Partita demo: a GenAE with three million parameters",
        clips=[(*clip, unseen.sample_rate) for clip in compared],
        logs={"genae_tiny": read_log(run_folder.log)},
        evaluation=found,
        summary=[
            ("Trained", f"{options.minutes:g} minutes on {data}"),
            ("Latents", f"{facts['latent_dim']} dimensions at {facts['frame_rate']:g} Hz"),
            ("Parameters", f"{facts['parameters']['total'] / 1e6:.1f} M"),
        ],
    )
    print(found.to_markdown())
    print(f"report: {output / 'report.html'}")
