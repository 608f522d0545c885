"""How fast encoders turn a clip into latents: ours and the peers', alternating in one process, random weights.

    python benchmarks/encode_speed.py [--threads 2] [--seconds 10] [--rounds 5] [--skip-compiled]

Peers encode as their libraries offer it; ours goes through `model.encode`, checks, padding and mel branch included,
after `model.optimize()`. "compiled" is `torch.compile` with freezing for all alike. Frozen weights, no gradients.
The allocator keeps memory for all (`partita.process`), which favours the peers: see `docs/benchmarks.md`.
"""

# ruff: noqa: E402
import argparse
from collections.abc import Callable
from typing import Any

from partita.process import prepare_process

prepare_process()

import torch
from harness import alternate, machine, save, summary, table
from partita.recipes import genae_base

HOP = 3360


def main() -> None:
    """Times all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-compiled", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    samples = round(options.seconds * 44_100 / HOP) * HOP
    audio = 0.1 * torch.randn(1, 2, samples)
    subjects: dict[str, Callable[[], Any]] = {}
    for precision in (torch.float32, torch.bfloat16):
        for compiled in (False,) if options.skip_compiled else (False, True):
            for name, call in _subjects(audio, precision, compiled).items():
                how = "compiled" if compiled else "eager"
                subjects[f"{name}, {how}, {str(precision).removeprefix('torch.')}"] = call
    with torch.no_grad():
        found = summary(alternate(subjects, rounds=options.rounds))
    seconds = samples / 44_100
    facts = machine("diffusers", "transformers") | {"seconds": seconds, "allocator": "glibc, keeping memory"}
    save("encode_speed", facts, found)
    reference = {
        how: found[f"AutoencoderOobleck, {how}"]["median"]
        for how in ("eager, float32", "compiled, float32", "eager, bfloat16", "compiled, bfloat16")
        if f"AutoencoderOobleck, {how}" in found
    }
    rows = []
    for name, figures in found.items():
        how = name.split(", ", 1)[1]
        like = reference[how] / figures["median"]
        eager = reference["eager, float32"] / figures["median"]
        speed = seconds / figures["median"]
        rows.append([name, f"{figures['median']:.3f}", f"{figures['best']:.3f}", f"{speed:.1f}", f"{like:.2f}"])
        rows[-1].append(f"{eager:.2f}")
    header = ["encoder", "median, s", "best, s", "x real time", "vs Oobleck, like for like", "vs Oobleck eager fp32"]
    print(facts)
    print(table(header, rows))


def _subjects(audio: torch.Tensor, precision: torch.dtype, compiled: bool) -> dict[str, Callable[[], Any]]:
    """Each encoder in one precision, eager or compiled."""
    from diffusers import AutoencoderOobleck
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

    audio = audio.to(precision)
    mono, resampled = audio[:, :1], audio[:, :1, : audio.shape[-1] * 24_000 // 44_100]
    stereo_48k = torch.nn.functional.interpolate(audio.float(), scale_factor=48_000 / 44_100).to(precision)

    def prepare(module: torch.nn.Module) -> torch.nn.Module:
        module = module.eval().to(precision).requires_grad_(False)
        return torch.compile(module, options={"freezing": True}) if compiled else module

    ours = genae_base().model.build().to(precision).optimize(compile=compiled)
    oobleck = AutoencoderOobleck(
        encoder_hidden_size=128,
        downsampling_ratios=[2, 4, 4, 8, 8],
        channel_multiples=[1, 2, 4, 8, 16],
        decoder_channels=128,
        decoder_input_channels=64,
        audio_channels=2,
        sampling_rate=44_100,
    )
    oobleck_encoder = prepare(oobleck.encoder)
    dac = DacModel(DacConfig(sampling_rate=44_100, downsampling_ratios=[2, 4, 8, 8], upsampling_ratios=[8, 8, 4, 2]))
    dac_encoder = prepare(dac.encoder)
    encodec = EncodecModel(EncodecConfig(sampling_rate=48_000, audio_channels=2, norm_type="time_group_norm"))
    encodec_encoder = prepare(encodec.encoder)
    mimi = MimiModel(MimiConfig())
    mimi_encoder = prepare(mimi.encoder)
    return {
        "genae_base": lambda: ours.encode(audio),
        "AutoencoderOobleck": lambda: oobleck_encoder(audio),
        "DAC 44.1 kHz, one channel": lambda: dac_encoder(mono),
        "EnCodec 48 kHz stereo": lambda: encodec_encoder(stereo_48k),
        "Mimi 24 kHz mono (convolutions)": lambda: mimi_encoder(resampled),
    }


if __name__ == "__main__":
    main()
