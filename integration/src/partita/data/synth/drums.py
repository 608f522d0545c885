"""Synthetic drums: functions of a generator that return one stroke as mono float32 at `SAMPLE_RATE`."""

from collections.abc import Callable
from math import pi

import numpy as np
from numpy.random import Generator

from .instruments import noise, partials, times


def kick(rng: Generator) -> np.ndarray:
    """A sine falling from 180 to 48 Hz, and a click."""
    t = times(0.35)
    phase = 48 * t + (180 - 48) * 0.03 * (1 - np.exp(-t / 0.03))
    body = np.sin(2 * pi * phase) * np.exp(-t / 0.11)
    return (body + 0.3 * np.exp(-t / 0.002) * noise(len(t), rng)).astype(np.float32) * _fade(t)


def snare(rng: Generator) -> np.ndarray:
    """Two modes of the drum head, and rattling noise."""
    t = times(0.25)
    skin = np.sin(2 * pi * 185 * t) + 0.6 * np.sin(2 * pi * 331 * t)
    return (0.4 * skin * np.exp(-t / 0.05) + 0.45 * noise(len(t), rng) * np.exp(-t / 0.07)).astype(np.float32) * _fade(
        t
    )


def hat(rng: Generator) -> np.ndarray:
    """A closed hi-hat: very short high-passed noise."""
    return _cymbal(0.08, 0.02, rng)


def ride(rng: Generator) -> np.ndarray:
    """A ride cymbal: high-passed noise and a ping."""
    tone = _cymbal(0.8, 0.2, rng)
    ratios = np.array([1, 1.41, 1.93, 2.37, 2.81])
    return tone * 0.6 + 0.1 * partials(2890.0, 0.8, ratios, np.ones(5), np.full(5, 9.0), rng) * _fade(times(0.8))


def shaker(rng: Generator) -> np.ndarray:
    """A shaker: high-passed noise with a swell."""
    t = times(0.1)
    swell = np.sin(pi * t / t[-1]) ** 2
    return np.diff(noise(len(t) + 1, rng)) * swell.astype(np.float32) * np.float32(0.3)


def clap(rng: Generator) -> np.ndarray:
    """Three bursts of noise and a tail."""
    t = times(0.25)
    bursts = sum(np.exp(-np.abs(t - at) / 0.003) for at in (0.005, 0.016, 0.028))
    tail = np.where(t > 0.03, np.exp(-(t - 0.03) / 0.05), 0)
    return (noise(len(t), rng) * (0.4 * bursts + 0.3 * tail)).astype(np.float32) * _fade(t)


def _cymbal(seconds: float, decay: float, rng: Generator) -> np.ndarray:
    t = times(seconds)
    top = np.diff(noise(len(t) + 2, rng), 2) / 3
    return (top * np.exp(-t / decay)).astype(np.float32) * _fade(t)


def _fade(t: np.ndarray) -> np.ndarray:
    return np.minimum((t[-1] - t) / 0.02, 1).astype(np.float32)


DRUMS: dict[str, Callable[[Generator], np.ndarray]] = {
    "kick": kick,
    "snare": snare,
    "hat": hat,
    "ride": ride,
    "shaker": shaker,
    "clap": clap,
}
