"""Encoding and decoding of long files in constant memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from partita import recipes
from partita_core import Latents

RATE = 44_100

COMMAND = """
import resource, sys
from partita.cli._runtime import prepare_process
prepare_process()
from partita.cli import main
code = main(sys.argv[1:])
print("peak:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def peak(*arguments: object) -> int:
    """Peak memory of a command in bytes."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=7200)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("peak: ", 1)[1])


def write_music(path: Path, seconds: float) -> int:
    """Write a stereo file, and return its number of samples."""
    block = (0.1 * np.random.default_rng(0).standard_normal((RATE, 2))).astype(np.float32)
    samples = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 2, subtype="PCM_16") as file:
        for start in range(0, samples, RATE):
            file.write(block[: samples - start])
    return samples


def peaks_of(recipe: str, folder: Path, seconds: float) -> tuple[int, int]:
    """Peak memory of encoding and of decoding a file, after checking that the decoded file has the same length."""
    model, audio = folder / recipe, folder / f"{seconds:g}.wav"
    if not model.exists():
        getattr(recipes, recipe)().model.build().eval().save_pretrained(model)
    samples = write_music(audio, seconds)
    latents, output = audio.with_suffix(".safetensors"), folder / "decoded.wav"
    peaks = peak("encode", model, audio, "-o", latents), peak("decode", model, latents, "-o", output)
    assert Latents.load(latents).audio_lengths.tolist() == [samples] and soundfile.info(output).frames == samples
    for file in (audio, latents, output):
        file.unlink()
    return peaks


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    short, long = (peaks_of("genae_tiny", tmp_path, seconds) for seconds in (65.3, 185.7))
    for a, b in zip(short, long):
        assert b < 2 << 30 and b - a < 64 << 20  # two minutes of decoded audio are 42 MB in float32


@pytest.mark.endurance
@pytest.mark.parametrize("recipe", ["genae_tiny", "genae_base"])
def test_an_hour_of_stereo_takes_less_than_two_gibibytes(tmp_path, recipe):
    peaks = peaks_of(recipe, tmp_path, 3600.01)
    print(f"{recipe}: encode {peaks[0] / 2**20:.0f} MiB, decode {peaks[1] / 2**20:.0f} MiB")
    assert max(peaks) < 2 << 30
