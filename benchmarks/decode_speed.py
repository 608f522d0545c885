"""Decoding speed and peak memory of Music2Latent2 with each sampler, GenAE, and the music2latent package's U-Net.

    python benchmarks/decode_speed.py [--threads N] [--chunks N] [--rounds N] [--durations S ...]

Random weights, float32, eager, the same duration of stereo audio for all, alternating in one process. The U-Net decodes
one channel at a time, so stereo is a batch of two. It is built from the package's public classes, because the usual
constructor downloads weights.

Memory is measured in a separate process per value: the peak during decoding minus the memory before, with the model and
the latents. The first table is for the timed clip. The second is for increasing durations with small recipes: decoded
at once, which has to hold the output, and streamed, one second at a time, in constant memory.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from partita.cli._runtime import prepare_process

# Memory is measured with the default allocator settings.
if "--probe" not in sys.argv:
    prepare_process()

import torch
from harness import alternate, machine, publish, summary, table
from partita.model_profile import Cost, cost, count_parameters
from partita.recipes import genae_base, genae_tiny, music2latent2_base, music2latent2_small, music2latent2_tiny
from partita.training import RunConfig
from partita_core import Latents, Sampler, StreamDecoder
from partita_decoders.samplers import Autoregressive, Independent, Overlap, Parallel, TwoStep

RATE, CHUNK = 44_100, 32_768
UNET = "music2latent, U-Net"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Subject(NamedTuple):
    """A decoder to be timed.

    Attributes:
        call: function that decodes the clip.
        parameters: number of parameters of the decoder.
        seconds: duration of the clip.
    """

    call: Callable[[], Any]
    parameters: int
    seconds: float


def ours(recipe: Callable[[], RunConfig], sampler: Sampler | None, seconds: float, *, stream: bool = False) -> Subject:
    """One of our models, on the number of frames closest to `seconds`."""
    torch.manual_seed(0)
    model = recipe().model.build().to(DEVICE).eval().requires_grad_(False)
    spec = model.latent_spec
    frames = max(1, round(seconds * RATE / spec.hop))
    latents = model.encode(torch.zeros(1, 2, spec.hop, device=DEVICE))
    values = torch.tanh(torch.randn(1, spec.dim, frames * spec.tokens_per_frame, device=DEVICE))

    def clip(begin: int, end: int) -> Latents:
        own = values[..., begin * spec.tokens_per_frame : end * spec.tokens_per_frame]
        return Latents(own, None, torch.tensor([(end - begin) * spec.hop]), latents.layout, spec, latents.space_id)

    def streamed() -> None:
        step = max(1, round(RATE / spec.hop))
        decoder = StreamDecoder(model, layout="stereo", sampler=sampler, width=step)
        for begin in range(0, frames, step):
            decoder.push(clip(begin, min(begin + step, frames)), last=begin + step >= frames)

    latents = clip(0, frames)
    call = streamed if stream else lambda: model.decode(latents, sampler=sampler)
    return Subject(call, count_parameters(model.decoder), frames * spec.hop / RATE)


def unet(seconds: float) -> Subject:
    """The package's network and its conversion to audio, on complete chunks."""
    from music2latent.audio import to_waveform
    from music2latent.inference import decode_to_representation
    from music2latent.models import UNet

    # On a CPU it warns at every call.
    warnings.filterwarnings("ignore", message="CUDA is not available")
    torch.manual_seed(0)
    model = UNet().to(DEVICE).eval().requires_grad_(False)
    chunks = max(1, round(seconds * RATE / CHUNK))
    latents = torch.tanh(torch.randn(2, 64, 8 * chunks, device=DEVICE))

    @torch.no_grad()
    def call() -> Any:
        return to_waveform(decode_to_representation(model, latents, diffusion_steps=1, device=DEVICE))

    return Subject(call, count_parameters(model) - count_parameters(model.encoder), chunks * CHUNK / RATE)


SAMPLERS: dict[str, Sampler] = {
    "two_step": TwoStep(),
    "two_step, no refinement": TwoStep(refine=False),
    "autoregressive, 2 steps": Autoregressive(),
    "independent": Independent(),
    "parallel, 4 steps": Parallel(),
    "overlap": Overlap(),
}

TIMED: dict[str, Callable[[float], Subject]] = {
    UNET: unet,
    "music2latent2_base, two_step": lambda seconds: ours(music2latent2_base, TwoStep(), seconds),
    **{
        f"music2latent2_small, {name}": lambda seconds, sampler=sampler: ours(music2latent2_small, sampler, seconds)
        for name, sampler in SAMPLERS.items()
    },
    "genae_base": lambda seconds: ours(genae_base, None, seconds),
}

LONG: dict[str, Callable[[float], Subject]] = {
    "music2latent2_tiny, two_step, at once": lambda seconds: ours(music2latent2_tiny, TwoStep(), seconds),
    "music2latent2_tiny, two_step, streamed": lambda seconds: ours(music2latent2_tiny, TwoStep(), seconds, stream=True),
    "genae_tiny, at once": lambda seconds: ours(genae_tiny, None, seconds),
    "genae_tiny, streamed": lambda seconds: ours(genae_tiny, None, seconds, stream=True),
}


def main() -> None:
    """Time and measure all, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=3, help="length of the timed clip, in chunks of 32768 samples")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--durations", type=float, nargs="*", default=[10, 60, 300], help="durations in seconds of the memory table"
    )
    parser.add_argument("--probe", metavar="SUBJECT", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.probe:
        print(json.dumps(peak_memory((TIMED | LONG)[options.probe](options.seconds).call)))
        return

    seconds = options.chunks * CHUNK / RATE
    missing = {} if find_spec("music2latent") else {UNET: "the package music2latent is not installed"}
    peaks = {name: _probe(name, seconds, options.threads) for name in TIMED if name not in missing}
    long = {name: {f"{s:g}": _probe(name, s, options.threads) for s in options.durations} for name in LONG}
    subjects = {name: make(seconds) for name, make in TIMED.items() if name not in missing}
    # The first call of each is not timed, and counts operations.
    costs = {name: cost(subject.call)[1] for name, subject in subjects.items()}
    calls = {name: subject.call for name, subject in subjects.items()}
    found = summary(alternate(calls, rounds=options.rounds, warm_up=0))

    facts = machine(*([] if missing else ["music2latent"])) | {
        "device": DEVICE,
        "precision": "float32",
        "clip": f"stereo, {options.chunks} x {CHUNK} samples",
        "rounds": options.rounds,
        "allocator": "keeps memory while timing, glibc's default while memory is measured",
    }
    rows = {"times": found, "peaks": peaks, "by duration": long, "left out": missing}
    tables = [table(*_speeds(subjects, found, costs, peaks, missing))]
    if options.durations:
        header = ["peak memory, MB", *(f"{s:g} s of audio" for s in options.durations)]
        tables.append(table(header, [[name, *map(_megabytes, found.values())] for name, found in long.items()]))
        tables.append(f"The audio itself is {2 * 4 * RATE / 1e6:.2f} MB per second.")
    publish("decode_speed", facts, rows, *tables)


def _speeds(
    subjects: dict[str, Subject],
    found: dict[str, dict[str, float]],
    costs: dict[str, Cost],
    peaks: dict[str, int | None],
    missing: dict[str, str],
) -> tuple[list[str], list[list[str]]]:
    """Size, cost, speed and memory of each decoder, and its speed-up over the U-Net."""
    speed = {name: subject.seconds / found[name]["median"] for name, subject in subjects.items()}
    rows = [[name, reason, *["–"] * 5] for name, reason in missing.items()]
    for name, subject in subjects.items():
        numbers = [f"{subject.parameters / 1e6:.1f}", f"{costs[name].macs / subject.seconds / 1e9:.1f}"]
        numbers += [f"{found[name]['median']:.2f}", f"{speed[name]:.2f}"]
        numbers += [f"{speed[name] / speed[UNET]:.2f}" if UNET in speed else "–", _megabytes(peaks[name])]
        rows.append([name, *numbers])
    header = ["decoder", "M parameters", "GMAC per second of audio", "median, s", "x real time"]
    return [*header, "x U-Net", "peak memory, MB"], rows


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.0f}"


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Peak memory of `call` in bytes, minus the memory before; None if the system does not report it."""
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak (proc(5))
        before = _status("VmRSS")
    except OSError:
        return None
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def _probe(name: str, seconds: float, threads: int) -> int | None:
    """Measure `peak_memory` of a subject in a fresh process."""
    command = [sys.executable, __file__, "--probe", name, "--seconds", str(seconds), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
