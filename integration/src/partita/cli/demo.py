"""Everything once, in minutes on a CPU: make music, train a small GenAE, encode and decode, write a report."""

import argparse
import math
from pathlib import Path

# In the folder beside `data/` and `run/`, once there is a run.
_WRITTEN = ("unseen.safetensors", "unseen_original.wav", "unseen_decoded.wav", "report.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder (default runs/demo)")
    parser.add_argument("--minutes", type=float, default=3.5, help="of training (default 3.5)")
    parser.add_argument("--data", type=Path, help="folder of audio to take instead of synthesized music")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError, check_vacant, override, read_json, to_dict
    from tqdm import tqdm

    from partita.data import open_dataset, synthesize, whole_files, write_audio
    from partita.evaluation import evaluate
    from partita.model_loading import load_codec
    from partita.model_profile import profile
    from partita.recipes import recipe
    from partita.report import write_report
    from partita.training import Interrupted, RunFolder, train
    from partita.training.logs import read_log

    if not 0 < options.minutes < math.inf:
        raise PartitaError(f"--minutes is {options.minutes}; it must be positive")
    output: Path = options.output
    config = override(recipe("genae_tiny"), ["data.crop_seconds=0.61", "trainer.evaluate_seconds=8"])
    run_folder = RunFolder(output / "run")
    again = run_folder.config.exists()
    if again and read_json(run_folder.config) != {"recipe": "genae_tiny", "config": to_dict(config)}:
        raise PartitaError(
            f"{run_folder.path} holds a run that is not of this demo; move it, or choose another --output"
        )
    run_folder.check_own()
    check_vacant(output, but=["data", "run", *(_WRITTEN if again else ())])
    data = options.data
    if data is None:
        data = output / "data"
        with tqdm(unit="clip", desc="synthesizing") as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            synthesize(data, minutes=8, seed=0, progress=progress)
    _, dataset = (open_dataset(data, split=split) for split in ("train", "test"))
    if again:
        with run_folder.locked():
            run_folder.discard()  # the demo is the one command that begins anew
    try:
        train(config, data=data, output=run_folder.path, recipe="genae_tiny", minutes=options.minutes)
    except Interrupted as interrupt:
        if interrupt.text:
            interrupt.text = "interrupted; given again, the command begins anew"
        raise

    # As `partita encode` and `partita decode` do it, on a file that training has not seen.
    codec = load_codec(run_folder.model)
    clips = list(whole_files(dataset.select(range(min(4, len(dataset)))), sample_rate=codec.audio_spec.sample_rate))
    unseen = clips[0]
    latents = codec.encode(unseen.audio[None], layout=unseen.layout)
    latents.save(output / "unseen.safetensors")
    decoded = codec.decode(latents)[0]
    write_audio(output / "unseen_original.wav", unseen.audio, unseen.sample_rate)
    write_audio(output / "unseen_decoded.wav", decoded, unseen.sample_rate)

    heard = []
    found = evaluate(
        {"genae_tiny": codec},
        [(clip.name, clip.audio, clip.layout) for clip in clips],
        on_clip=lambda name, audio, estimates: heard.append((name, audio, {"genae_tiny": estimates["genae_tiny"]})),
    )
    facts = profile(codec)
    write_report(
        output / "report.html",
        title="Partita demo: a GenAE of three million parameters",
        clips=[(*clip, unseen.sample_rate) for clip in heard],
        logs={"genae_tiny": read_log(run_folder.log)},
        evaluation=found,
        summary=[
            ("Trained", f"{options.minutes:g} minutes on {data}"),
            ("Latents", f"{facts['latent_dim']} numbers at {facts['frame_rate']:g} Hz"),
            ("Parameters", f"{facts['parameters']['total'] / 1e6:.1f} M"),
        ],
    )
    print(found.to_markdown())
    print(f"report: {output / 'report.html'}")
