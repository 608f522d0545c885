"""Synthetic instruments: additive, wavetable, frequency-modulated, plucked and struck tones.

A tone is a function of (frequency in Hz, duration in seconds, generator) that returns mono float32 including the
release, at `SAMPLE_RATE` with a peak near 1. Everything is band-limited except for frequency modulation, which is kept
weak enough.
"""

from collections.abc import Callable, Sequence
from math import pi

import numpy as np
from numpy.random import Generator

SAMPLE_RATE = 44100

Tone = Callable[[float, float, Generator], np.ndarray]

_TABLE = 4096


def times(seconds: float) -> np.ndarray:
    """Times of the samples of a duration, in seconds."""
    return np.arange(max(1, round(seconds * SAMPLE_RATE))) / SAMPLE_RATE


def _envelope(held: float, attack: float, decay: float, sustain: float, release: float) -> np.ndarray:
    """Linear attack, exponential decay towards `sustain`, exponential release; ends at zero."""
    t = times(held + 4 * release)
    level = sustain + (1 - sustain) * np.exp(-np.maximum(t - attack, 0) / decay)
    level *= np.minimum(t / attack, 1)
    end = np.exp(-np.maximum(t - held, 0) / release) * np.minimum((t[-1] - t) / release, 1)
    return (level * end).astype(np.float32)


def partials(
    frequency: float, seconds: float, ratios: np.ndarray, amplitudes: np.ndarray, decays: np.ndarray, rng: Generator
) -> np.ndarray:
    """A sum of sinusoids, each with its own exponential decay (per second)."""
    audible = ratios * frequency < 0.45 * SAMPLE_RATE
    t = times(seconds)
    out = np.zeros(len(t), np.float32)
    for ratio, amplitude, decay in zip(ratios[audible], amplitudes[audible], decays[audible]):
        # A partial ends when it has decayed by 70 dB; phases are wrapped in float64, so that float32 sines are exact.
        part = t[: round(min(seconds, 8 / decay) * SAMPLE_RATE)]
        phase = part * (ratio * frequency) + rng.random()
        sine = np.sin((2 * pi * (phase - np.floor(phase))).astype(np.float32))
        out[: len(part)] += sine * np.exp((-decay * part).astype(np.float32)) * np.float32(amplitude)
    return out


def _wave(frequency: float, amplitudes: Sequence[float] | np.ndarray, rng: Generator) -> np.ndarray:
    """One period of a tone with those of the given harmonics that are below the Nyquist frequency."""
    audible = np.asarray(amplitudes)[: int(0.45 * SAMPLE_RATE / frequency)]
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[1 : len(audible) + 1] = audible * np.exp(2j * pi * rng.random(len(audible)))
    wave = np.fft.irfft(spectrum)
    wave /= np.abs(wave).max()
    return np.append(wave, wave[0]).astype(np.float32)


def _read(wave: np.ndarray, cycles: np.ndarray) -> np.ndarray:
    """Samples of a period at phases in cycles, interpolated linearly."""
    position = (cycles - np.floor(cycles)) * _TABLE
    index = np.minimum(position.astype(np.int32), _TABLE - 1)
    return wave[index] + (position - index).astype(np.float32) * (wave[index + 1] - wave[index])


def _cycles(frequency: float, length: int, rng: Generator, *, detune: float = 0.0, vibrato: float = 0.0) -> np.ndarray:
    """Phase in cycles, detuned by cents, with a vibrato in cents that grows over the first half second."""
    t = np.arange(length) / SAMPLE_RATE
    rate = rng.uniform(4.8, 5.8)
    depth = frequency * (2 ** (vibrato / 1200) - 1) / (2 * pi * rate) * np.minimum(2 * t, 1)
    return t * frequency * 2 ** (detune / 1200) + depth * np.sin(2 * pi * rate * t) + rng.random()


def _harmonics(slope: float, count: int = 200) -> np.ndarray:
    return np.arange(1, count + 1) ** -slope


def noise(length: int, rng: Generator) -> np.ndarray:
    """White noise of unit power."""
    return rng.standard_normal(length, dtype=np.float32)


def piano(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """Struck strings: stretched partials, of which higher ones decay faster, and the noise of the hammer."""
    k = np.arange(1, 25)
    ratios = k * np.sqrt(1 + 4e-4 * k**2)
    amplitudes = np.abs(np.sin(pi * k / 7.5)) * k**-0.9
    decays = (0.7 + 0.25 * k) * (frequency / 261) ** 0.4
    envelope = _envelope(held, 0.002, 10.0, 1.0, 0.12)
    tone = partials(frequency, len(envelope) / SAMPLE_RATE, ratios, amplitudes, decays, rng)[: len(envelope)]
    knock = np.exp(-times(0.03) / 0.005).astype(np.float32)
    tone[: len(knock)] += 0.25 * knock * noise(len(knock), rng)[: len(tone)]
    return tone * envelope * 0.6


def electric_piano(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """Tines by frequency modulation: a mellow pair and a short bright one."""
    envelope = _envelope(held, 0.002, 1.2, 0.1, 0.1)
    t = np.arange(len(envelope)) / SAMPLE_RATE
    phase = 2 * pi * frequency * t
    body = np.sin(phase + 1.2 * np.exp(-2 * t) * np.sin(phase))
    tine = np.sin(phase + 0.8 * np.exp(-9 * t) * np.sin(min(14.0, 9000 / frequency) * phase))
    tremolo = 1 + 0.15 * np.sin(2 * pi * 5.1 * t)
    return ((0.7 * body + 0.3 * tine) * tremolo).astype(np.float32) * envelope


def organ(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """Drawbars, with the slow beating of a rotating speaker."""
    wave = _wave(frequency / 2, [0.4, 1, 0.5, 0.7, 0, 0.4, 0, 0.45, 0, 0, 0, 0.2, 0, 0, 0, 0.25], rng)
    envelope = _envelope(held, 0.015, 1.0, 1.0, 0.04)
    cycles = _cycles(frequency / 2, len(envelope), rng, vibrato=6)
    return _read(wave, cycles) * envelope


def strings(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A string section: three detuned saws with vibrato and a slow attack."""
    wave = _wave(frequency, _harmonics(1.15), rng)
    envelope = _envelope(held, min(0.18, held / 2), 1.0, 1.0, 0.18)
    voices = [_read(wave, _cycles(frequency, len(envelope), rng, detune=cents, vibrato=12)) for cents in (-9, 1, 8)]
    return sum(voices, np.float32(0)) * envelope * np.float32(0.5)


def choir(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """Voices singing "ah": saws filtered by four formants."""
    harmonics = frequency * np.arange(1, 120)
    formants = ((750, 90, 1.0), (1150, 110, 0.6), (2700, 160, 0.25), (3500, 200, 0.15))
    weights = sum(gain / (1 + ((harmonics - center) / width) ** 2) for center, width, gain in formants)
    wave = _wave(frequency, (weights + 0.02) * _harmonics(0.5, 119), rng)
    envelope = _envelope(held, min(0.12, held / 2), 1.0, 1.0, 0.2)
    voices = [_read(wave, _cycles(frequency, len(envelope), rng, detune=cents, vibrato=25)) for cents in (-7, 7)]
    breath = 0.004 * noise(len(envelope), rng)
    return (sum(voices, np.float32(0)) * np.float32(0.6) + breath) * envelope


def flute(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A few harmonics, vibrato, and breath that follows the pitch."""
    wave = _wave(frequency, [1, 0.35, 0.2, 0.06, 0.03, 0.01], rng)
    envelope = _envelope(held, 0.05, 0.4, 0.85, 0.06)
    breath = np.convolve(noise(len(envelope), rng), [0.25, 0, 0.5, 0, 0.25], "same").astype(np.float32)
    tone = _read(wave, _cycles(frequency, len(envelope), rng, vibrato=18))
    return (tone * 0.9 + breath * (0.04 + 0.05 * np.abs(tone))) * envelope


def brass(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A tone that brightens with its level: a dark and a bright wave, cross-faded by the square of the envelope."""
    phases = int(rng.integers(2**31))
    dark = _wave(frequency, _harmonics(2.2), np.random.default_rng(phases))
    bright = _wave(frequency, _harmonics(0.9, 40), np.random.default_rng(phases))
    envelope = _envelope(held, 0.06, 0.25, 0.7, 0.07)
    cycles = _cycles(frequency, len(envelope), rng, vibrato=10)
    mix = envelope**2
    return (_read(dark, cycles) * (1 - mix) + _read(bright, cycles) * mix) * envelope


def lead(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A synthesizer lead: two detuned pulses through a falling filter."""
    odd = _harmonics(1.0) * (1 - 0.7 * (np.arange(1, 201) % 2 == 0))
    bright, dark = _wave(frequency, odd, rng), _wave(frequency, odd * np.exp(-0.25 * np.arange(200)), rng)
    envelope = _envelope(held, 0.005, 0.5, 0.7, 0.08)
    mix = np.exp(-np.arange(len(envelope)) / (0.18 * SAMPLE_RATE)).astype(np.float32)
    out = np.zeros(len(envelope), np.float32)
    for cents in (-6, 6):
        cycles = _cycles(frequency, len(envelope), rng, detune=cents, vibrato=8)
        out += _read(bright, cycles) * mix + _read(dark, cycles) * (1 - mix)
    return out * envelope * np.float32(0.5)


def bass(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A synthesizer bass: a dark saw with twice its fundamental."""
    amplitudes = _harmonics(1.0, 60) * np.exp(-0.12 * np.arange(60))
    amplitudes[0] *= 2
    wave = _wave(frequency, amplitudes, rng)
    envelope = _envelope(held, 0.004, 0.4, 0.5, 0.05)
    return _read(wave, _cycles(frequency, len(envelope), rng)) * envelope


def guitar(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A plucked string (Karplus and Strong, 1983), computed period by period and tuned by resampling."""
    envelope = _envelope(held, 0.001, 10.0, 1.0, 0.08)
    # The loop is a delay of `period` and the mean of two neighbors, which adds half a sample.
    period = int(SAMPLE_RATE / frequency)
    step = frequency / SAMPLE_RATE * (period + 0.5)
    keep = 0.5 * 0.5 ** (1 / (frequency * 2.5))
    burst = np.convolve(noise(period, rng), [0.25, 0.5, 0.25], "same").astype(np.float32)
    pluck = max(1, round(period * rng.uniform(0.12, 0.25)))
    block = burst - np.roll(burst, pluck)
    before = np.float32(0)
    blocks = []
    for _ in range(int(len(envelope) * step / period) + 2):
        blocks.append(block)
        shifted = np.concatenate([[before], block[:-1]], dtype=np.float32)
        before = block[-1]
        block = (block + shifted) * np.float32(keep)
    string = np.concatenate(blocks)
    tone = np.interp(np.arange(len(envelope)) * step, np.arange(len(string)), string).astype(np.float32)
    return tone * envelope / np.abs(tone).max()


def electric_guitar(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """The plucked string and its fifth, overdriven and low-passed by a cabinet."""
    string, fifth = guitar(frequency, held, rng), guitar(1.4983 * frequency, held, rng)
    both = string + fifth[: len(string)]
    driven = np.tanh(6 * both) * _envelope(held, 0.001, 10.0, 1.0, 0.08)
    cabinet = np.hanning(9)
    return np.convolve(driven, cabinet / cabinet.sum(), "same").astype(np.float32) * np.float32(0.6)


def plucked_bass(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A low plucked string, low-passed."""
    tone = np.convolve(guitar(frequency, held, rng), np.hanning(48), "same").astype(np.float32)
    return tone / np.abs(tone).max()


def marimba(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A struck bar: three modes."""
    ratios, amplitudes = np.array([1, 3.93, 9.6]), np.array([1, 0.35, 0.15])
    decays = np.array([5.0, 14.0, 40.0]) * (frequency / 440) ** 0.5
    tone = partials(frequency, 1.0, ratios, amplitudes, decays, rng)
    return tone * _envelope(0.6, 0.001, 10.0, 1.0, 0.1)[: len(tone)]


def bell(frequency: float, held: float, rng: Generator) -> np.ndarray:
    """A bell: inharmonic partials, paired so that they beat."""
    ratios = np.array([0.5, 1, 1.003, 1.19, 1.506, 2, 2.006, 2.51, 2.66, 3.01, 4.17, 5.43, 6.8])
    amplitudes = np.array([0.4, 1, 0.6, 0.7, 0.5, 0.8, 0.5, 0.4, 0.35, 0.4, 0.3, 0.2, 0.15])
    tone = partials(frequency, 2.5, ratios, amplitudes, 0.8 + 0.9 * ratios, rng)
    return tone * _envelope(2.0, 0.001, 10.0, 1.0, 0.125)[: len(tone)] * np.float32(0.3)


INSTRUMENTS: dict[str, Tone] = {
    "piano": piano,
    "electric piano": electric_piano,
    "organ": organ,
    "strings": strings,
    "choir": choir,
    "flute": flute,
    "brass": brass,
    "synth lead": lead,
    "synth bass": bass,
    "acoustic guitar": guitar,
    "overdriven guitar": electric_guitar,
    "plucked bass": plucked_bass,
    "marimba": marimba,
    "bells": bell,
}
