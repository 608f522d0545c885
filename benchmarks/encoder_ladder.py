"""Speed of encoder variants from Oobleck's to GenAE's, one change per row, and of GenAE without each of its parts.

    python benchmarks/encoder_ladder.py [--threads N] [--seconds S] [--rounds N]

Eager, float32, random weights, a stereo clip, alternating in one process. The activation is part of the fourth row, so
the same encoder is also timed with each activation.
"""

# ruff: noqa: E402
import argparse
from dataclasses import replace

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from encoder_variants import encoder_ladder
from harness import alternate, machine, publish, summary, table
from partita_core import AudioSpec, ChannelLayout
from partita_encoders import GenAEEncoderConfig

STEREO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))


def main() -> None:
    """Time every row, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    genae = GenAEEncoderConfig()
    configs = encoder_ladder() | {
        "genae: without mel fusion": replace(genae, mel_stage=0),
        "genae: without attention": replace(genae, attention_layers=0),
        "genae: with Snake": replace(genae, activation="snake"),
        "genae: with ELU": replace(genae, activation="elu"),
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    subjects, layout = {}, torch.tensor([1], device=device)
    for name, config in configs.items():
        torch.manual_seed(0)
        encoder = config.build(out_dim=128, audio_spec=STEREO).to(device).eval().requires_grad_(False)
        samples = round(options.seconds * 44_100 / encoder.hop) * encoder.hop
        audio = 0.1 * torch.randn(1, 2, samples, device=device)
        subjects[name] = lambda encoder=encoder, audio=audio: encoder(audio, layout)
    with torch.no_grad():
        found = summary(alternate(subjects, rounds=options.rounds))
    facts = machine() | {"seconds": options.seconds, "rounds": options.rounds, "allocator": "keeps memory"}
    first = found["oobleck"]["median"]
    rows = [
        [name, f"{times['median']:.3f}", f"{times['best']:.3f}", f"{first / times['median']:.2f}"]
        for name, times in found.items()
    ]
    header = ["encoder", "median, s", "best, s", "speed-up over the first"]
    publish("encoder_ladder", facts, found, table(header, rows))


if __name__ == "__main__":
    main()
