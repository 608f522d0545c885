"""Encoding speed of our encoders and those of diffusers and transformers, alternating in one process.

    python benchmarks/encode_speed.py [--threads N] [--seconds S] [--rounds N] [--precisions P ...] [--skip-compiled]
        [--profile]

All weights are random. Ours is timed as `model.encode`, including checks, padding, mel branch and attention; the others
as the bare encoders of their libraries, up to the continuous latents. Every encoder is timed in float32 and, if the
processor has instructions for it (otherwise it is up to twenty times slower than float32), in bfloat16:

- eager: without compilation;
- compiled: `torch.compile` with freezing and fixed shapes;
- optimized: ours only, after `model.optimize()`, with fused kernels if the machine can build them.

The allocator keeps memory (`partita.cli._runtime`), which favors the others: with default settings a fresh process
spends most of its time on page faults, the more the larger its activations.
"""

# ruff: noqa: E402
import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import alternate, machine, profiled, publish, summary, table
from partita.recipes import genae_base
from partita_blocks.native.build import cpu_features
from torch import Tensor, nn

warnings.simplefilter("ignore", FutureWarning)  # of diffusers and transformers
# Layers of different shapes are compiled separately; the default limit is eight.
torch._dynamo.config.recompile_limit = 256

HOP, RATE = 3360, 44_100
OURS, BASELINE = "GenAE, genae_base", "AutoencoderOobleck (diffusers)"


class Variant(NamedTuple):
    """An encoder and its preparation."""

    encoder: str
    how: str
    precision: str


def main() -> None:
    """Time all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("float32", "bf16"),
        help="default: all that the processor has instructions for",
    )
    parser.add_argument("--skip-compiled", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print a profile of ours, and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    samples = round(options.seconds * RATE / HOP) * HOP
    audio = 0.1 * torch.randn(1, 2, samples, generator=torch.Generator().manual_seed(0)).to(device)
    halves = device == "cuda" or {"avx512_bf16", "amx_bf16"} & cpu_features()
    precisions = options.precisions or (("float32", "bf16") if halves else ("float32",))
    ways = ("eager", "optimized") if options.skip_compiled else ("eager", "compiled", "optimized")
    with torch.no_grad():
        if options.profile:
            for precision in precisions:
                model = genae_base().model.build().to(device).optimize(precision=precision)
                print(f"{precision}\n{profiled(lambda model=model: model.encode(audio))}")
            return
        subjects = dict(_subjects(audio, precisions, ways))
        # Keys are strings, because results are stored as JSON.
        found = summary(alternate({", ".join(key): call for key, call in subjects.items()}, rounds=options.rounds))
    facts = machine("diffusers", "transformers") | {
        "clip": f"1 x 2 x {samples}",
        "rounds": options.rounds,
        "allocator": "keeps memory",
    }
    publish("encode_speed", facts, found, table(*_rows(subjects, found, samples / RATE)))


def _rows(
    subjects: dict[Variant, Any], found: dict[str, dict[str, float]], seconds: float
) -> tuple[list[str], list[list[str]]]:
    """Speed of each variant, and its speed-up over the baseline in eager float32 and in the same preparation."""
    times = {variant: found[", ".join(variant)]["median"] for variant in subjects}
    rows = []
    for variant, time in times.items():
        compiled = variant.how != "eager" and Variant(BASELINE, "compiled", variant.precision) in times
        same = times[Variant(BASELINE, "compiled" if compiled else "eager", variant.precision)]
        eager = times[Variant(BASELINE, "eager", "float32")]
        best = found[", ".join(variant)]["best"]
        numbers = (f"{time:.3f}", f"{best:.3f}", f"{seconds / time:.1f}", f"{eager / time:.2f}", f"{same / time:.2f}")
        rows.append([*variant, *numbers])
    header = ["encoder", "how", "precision", "median, s", "best, s", "x real time", "x Oobleck eager float32"]
    return [*header, "x Oobleck like for like"], rows


def _subjects(
    audio: Tensor, precisions: Sequence[str], ways: Sequence[str]
) -> Iterator[tuple[Variant, Callable[[], Any]]]:
    for precision in precisions:
        for how in ways:
            model = genae_base().model.build().to(audio.device).eval()
            if how == "optimized":
                model.optimize(precision=precision)
            else:
                model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
                model.encoder = _prepared(model.encoder, how)
            yield Variant(OURS, how, precision), lambda model=model: model.encode(audio)
            if how == "optimized":
                continue
            for name, (encoder, x) in _peers(audio).items():
                x = x.to(torch.bfloat16) if precision == "bf16" else x
                encoder = _prepared(encoder.to(x.device, x.dtype), how)
                try:
                    encoder(x)
                except Exception as error:  # one encoder's error must not stop the others
                    print(f"{name}, {how}, {precision}: left out: {str(error).strip().splitlines()[0]}", flush=True)
                    continue
                yield Variant(name, how, precision), lambda encoder=encoder, x=x: encoder(x)


def _prepared(encoder: Any, how: str) -> Any:
    encoder.eval().requires_grad_(False)
    if how == "compiled":
        encoder.compile(dynamic=False, options={"freezing": True})
    return encoder


class _Mimi(nn.Module):
    """Mimi up to its quantizer: convolutions, transformer, and the last downsampling."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x, use_streaming=False).latents


def _peers(audio: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """Encoders with the clip at the sample rate and number of channels that each supports."""
    from diffusers import AutoencoderOobleck
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

    torch.manual_seed(0)
    oobleck = AutoencoderOobleck(
        encoder_hidden_size=128,
        downsampling_ratios=[2, 4, 4, 8, 8],
        channel_multiples=[1, 2, 4, 8, 16],
        decoder_channels=8,  # not timed
        decoder_input_channels=64,
        audio_channels=2,
        sampling_rate=RATE,
    )
    dac = DacModel(DacConfig(sampling_rate=RATE, downsampling_ratios=[2, 4, 8, 8], upsampling_ratios=[8, 8, 4, 2]))
    encodec = EncodecModel(EncodecConfig(sampling_rate=48_000, audio_channels=2, norm_type="time_group_norm"))
    mimi = _Mimi(MimiModel(MimiConfig()).encoder)

    def at(rate: int, channels: int) -> Tensor:
        return nn.functional.interpolate(audio, size=audio.shape[-1] * rate // RATE)[:, :channels]

    return {
        BASELINE: (oobleck.encoder, audio),
        "DAC 44.1 kHz, one channel (transformers)": (dac.encoder, audio[:, :1]),
        "EnCodec 48 kHz, stereo (transformers)": (encodec.encoder, at(48_000, 2)),
        "Mimi 24 kHz, one channel (transformers)": (mimi, at(24_000, 1)),
    }


if __name__ == "__main__":
    main()
