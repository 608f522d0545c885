"""Synthesizing a labeled and captioned data set of music, for trying everything without recordings."""

import csv
import json
import os
from collections.abc import Callable
from math import pi
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from partita_core import PartitaError, atomic_write, hashed_seed, write_json

from partita.data.audio.files import write_audio
from partita.data.sources.metadata import METADATA
from partita.data.sources.splits import SPLITS

from .composition import Note, Piece, compose
from .drums import DRUMS
from .instruments import INSTRUMENTS, SAMPLE_RATE
from .styles import STYLES

CLIP_SECONDS = 10

# File that identifies the data set; the version changes whenever the audio does.
_MARK = "synth.json"
_VERSION = 1


def synthesize(
    out_dir: str | os.PathLike,
    minutes: float = 10.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write a data set of ten-second clips, 44.1 kHz stereo FLAC, to a new folder atomically.

    The splits train, validation and test hold 80, 10 and 10 %, each at least one clip. `metadata.csv` gives label
    (the style), caption, tempo, key and instruments. A clip depends on the seed and its number only.

    Args:
        out_dir: folder to create; it may exist if it is empty.
        minutes: minutes of music, rounded to clips, of which there are at least three.
        seed: seed of the music.
        progress: called with (clips done, total clips).

    Returns:
        True if the data set was written, False if the folder already holds it.

    Raises:
        PartitaError: the folder holds something else, or cannot be created.
    """
    out_dir = Path(out_dir).expanduser().resolve()
    if not 0 < minutes < float("inf"):
        raise PartitaError(f"minutes is {minutes}; it must be positive")
    clips = max(len(SPLITS), round(minutes * 60 / CLIP_SECONDS))
    mark = {"made_by": "partita synth", "version": _VERSION, "clips": clips, "seed": seed}
    if _is_complete(out_dir, mark):
        return False
    with atomic_write(out_dir) as aside:
        aside.mkdir()
        _write_clips(aside, clips, seed, progress)
        write_json(aside / _MARK, mark)
    return True


def synthesize_clip(seed: int, number: int) -> tuple[Piece, np.ndarray]:
    """The composition of clip `number`, and its audio `(2, samples)` float32."""
    rng = np.random.default_rng(hashed_seed(seed, "clip", number))
    piece = compose(list(STYLES)[number % len(STYLES)], CLIP_SECONDS, rng)
    return piece, render(piece, CLIP_SECONDS, rng)


def render(piece: Piece, seconds: float, rng: Generator) -> np.ndarray:
    """Render a piece with reverberation to `(2, samples)` float32, with a peak of at most -1 dB of full scale."""
    length = round(seconds * SAMPLE_RATE)
    dry = np.zeros((2, length), np.float32)
    tones: dict[tuple, np.ndarray] = {}
    for note in piece.notes:
        tone = _tone(note, tones, rng)
        start = round(note.start * SAMPLE_RATE)
        part = tone[: length - start]
        gains = note.level * np.array([np.cos(note.pan * pi / 2), np.sin(note.pan * pi / 2)], np.float32)
        dry[:, start : start + len(part)] += gains[:, None].astype(np.float32) * part
    mix = dry + np.float32(piece.reverb) * _reverb(dry, rng)
    mix *= 10 ** (rng.uniform(-19, -14) / 20) / np.sqrt(np.mean(mix**2))
    mix = np.tanh(mix) * np.float32(10 ** (-1 / 20))
    fade = round(0.3 * SAMPLE_RATE)
    mix[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32) ** 2
    return mix.astype(np.float32)


def _tone(note: Note, tones: dict[tuple, np.ndarray], rng: Generator) -> np.ndarray:
    """Audio of a note; notes of the same pitch and length share it throughout a piece."""
    if note.instrument in DRUMS:
        key = (note.instrument,)
        if key not in tones:
            tones[key] = DRUMS[note.instrument](rng)
    else:
        key = (note.instrument, note.midi, round(note.held, 1))
        if key not in tones:
            frequency = 440 * 2 ** ((note.midi - 69) / 12)
            tones[key] = INSTRUMENTS[note.instrument](frequency, max(0.05, note.held), rng)
    return tones[key]


def _reverb(dry: np.ndarray, rng: Generator) -> np.ndarray:
    """Reverberation: each channel convolved with its own decaying noise, high frequencies decaying first."""
    seconds = rng.uniform(0.5, 1.6)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    decay = np.exp(-6.9 * t / seconds) * np.minimum(t / 0.01, 1)
    noise = rng.standard_normal((2, len(t)))
    dull = np.stack([np.convolve(channel, np.full(6, 1 / 6), "same") for channel in noise])
    share = np.exp(-3 * t / seconds)
    response = decay * (share * noise + (1 - share) * dull)
    response /= np.sqrt((response**2).sum(1, keepdims=True))
    size = 1 << (dry.shape[1] + len(t)).bit_length()
    spectrum = np.fft.rfft(dry, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum)[:, : dry.shape[1]].astype(np.float32)


def _write_clips(folder: Path, clips: int, seed: int, progress: Callable[[int, int], None] | None) -> None:
    rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        (folder / split).mkdir()
    for number in range(clips):
        split = _split(number, clips)
        piece, audio = synthesize_clip(seed, number)
        name = f"{piece.style}_{number:04d}.flac"
        write_audio(folder / split / name, torch.from_numpy(audio), SAMPLE_RATE, subtype="PCM_16")
        rows[split].append(_row(piece, name, split, number, seed))
        if progress:
            progress(number + 1, clips)
    everything = [row | {"file_name": f"{split}/{row['file_name']}"} for split in SPLITS for row in rows[split]]
    _write_rows(folder / METADATA, everything)
    for split in SPLITS:
        _write_rows(folder / split / METADATA, rows[split])


def _split(number: int, clips: int) -> str:
    """The split of a clip: the last tenth is for testing, the one before it for validation."""
    held_out = max(1, clips // 10)
    return SPLITS[max(0, 2 - (clips - 1 - number) // held_out)]


def _row(piece: Piece, name: str, split: str, number: int, seed: int) -> dict[str, str | int | float]:
    caption = _caption(piece)
    return {
        "file_name": name,
        "duration_s": f"{CLIP_SECONDS:.3f}",
        "sample_rate": SAMPLE_RATE,
        "channels": 2,
        "label": piece.style,
        "text": caption,
        "source": f"partita synth, seed {seed}, clip {number}",
        "licence": "CC0-1.0",
        "split": split,
        "task": "music_type",
        "text_kind": "caption",
        "caption": caption,
        "group": f"synth/{seed}/{number}",
        "tempo": piece.tempo,
        "key": piece.key,
        "instruments": ", ".join(piece.instruments),
    }


def _caption(piece: Piece) -> str:
    """A description of a piece in one sentence."""
    pace = "slow" if piece.tempo < 90 else "fast" if piece.tempo > 125 else "moderate"
    players = list(piece.instruments)
    named = players[0] if len(players) == 1 else f"{', '.join(players[:-1])} and {players[-1]}"
    return f"{pace} {piece.style} music in {piece.key} at {piece.tempo} beats a minute with {named}"


def _write_rows(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _is_complete(folder: Path, mark: dict) -> bool:
    """True if `folder` holds this data set; an error if it holds something else."""
    if folder.is_file():
        raise PartitaError(f"{folder}: is a file; choose a folder that does not exist yet")
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / _MARK).read_text())
    except (OSError, ValueError):
        raise PartitaError(f"{folder}: is not empty; choose a folder that does not exist yet") from None
    if found != mark:
        held, asked = (f"{each.get('clips')} clips of seed {each.get('seed')}" for each in (found, mark))
        raise PartitaError(f"{folder}: holds {held}, not {asked}; choose another folder")
    return True
