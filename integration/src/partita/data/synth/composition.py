"""Composition of short pieces by the rules of a style: key, accompaniment, bass, melody and drums."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .styles import STYLES, Style

PITCHES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

STEPS = 16  # sixteenths per bar


@dataclass(frozen=True)
class Note:
    """A note, or a drum stroke.

    Attributes:
        instrument: name in `INSTRUMENTS` or `DRUMS`.
        start: onset in seconds.
        held: duration in seconds.
        midi: pitch as a MIDI number; 0 for drums.
        level: amplitude.
        pan: position from 0, left, to 1, right.
    """

    instrument: str
    start: float
    held: float
    midi: int
    level: float
    pan: float


# Onsets in a bar of melody; a piece repeats them.
_RHYTHMS = (
    (0, 4, 8, 12),
    (0, 6, 8, 14),
    (0, 3, 6, 8, 11, 14),
    (0, 4, 6, 8, 10),
    (2, 4, 6, 10, 12, 14),
    (0, 8, 10, 12),
)


@dataclass(frozen=True)
class Piece:
    """A piece of music.

    Attributes:
        style: name of its style in `STYLES`.
        tempo: beats per minute.
        key: key, as in "A minor".
        instruments: its instruments, the leading one first; drums as "drums".
        notes: all notes.
        reverb: level of reverberation.
    """

    style: str
    tempo: int
    key: str
    instruments: tuple[str, ...]
    notes: tuple[Note, ...]
    reverb: float


def compose(name: str, seconds: float, rng: Generator) -> Piece:
    """Compose a piece of the style `name` that lasts `seconds`."""
    style = STYLES[name]
    tempo = int(rng.integers(style.tempos[0], style.tempos[1] + 1))
    tonic, mode = int(rng.integers(12)), str(rng.choice(style.modes))
    progression = style.progressions[rng.integers(len(style.progressions))]
    chords, lead = str(rng.choice(style.chords)), str(rng.choice(style.leads)) if style.leads else ""
    score = _Score(style, 15 / tempo, tonic, SCALES[mode], progression, rng)
    bars = int(np.ceil(seconds / (score.step * STEPS)))
    notes = [
        *score.accompaniment(bars, chords),
        *score.bass(bars),
        *score.melody(bars, lead),
        *score.drums(bars),
    ]
    players = dict.fromkeys(part for part in (lead, chords, style.bass, "drums" if style.drums else "") if part)
    kept = tuple(note for note in notes if note.start < seconds)
    return Piece(name, tempo, f"{PITCHES[tonic]} {mode}", tuple(players), kept, style.reverb)


@dataclass(frozen=True)
class _Score:
    """Settings shared by the parts of a piece; `step` is a sixteenth in seconds."""

    style: Style
    step: float
    tonic: int
    scale: tuple[int, ...]
    progression: tuple[int, ...]
    rng: Generator

    def pitch(self, degree: int) -> int:
        """The MIDI number of a scale degree, counted from the tonic in the octave of middle C."""
        octave, index = divmod(degree, 7)
        return 60 + self.tonic - (12 if self.tonic > 6 else 0) + 12 * octave + self.scale[index]

    def chord(self, bar: int) -> tuple[int, ...]:
        """Scale degrees of the chord of a bar: a triad, possibly with its seventh or octave."""
        root = self.progression[bar % len(self.progression)]
        fourth = 6 if self.style.swing else 7
        return tuple(root + third for third in (0, 2, 4, fourth)[: max(3, self.style.chord_size)])

    def time(self, bar: int, step: float) -> float:
        """Time in seconds of a step in a bar, with swing and slight timing noise."""
        late = self.style.swing if step % 4 == 2 else 0.0
        uneven = abs(self.rng.normal(0, 0.004))
        return (bar * STEPS + step + late) * self.step + uneven

    def accompaniment(self, bars: int, instrument: str) -> Iterator[Note]:
        """Chords: sustained, struck, or as arpeggios."""
        hits = self.style.hits
        for bar in range(bars):
            pitches = sorted(self.voiced(degree) for degree in self.chord(bar))
            if self.style.chord_size == 1:
                pitches = [self.voiced(self.chord(bar)[0]) - 12]
            turn = pitches + pitches[-2:0:-1]
            for count, step in enumerate(hits):
                gap = ((*hits, STEPS)[count + 1] - step) * self.step
                if self.style.figure == "arpeggio":
                    level = 0.30 * self.rng.uniform(0.75, 1.0)
                    midi = turn[count % len(turn)]
                    yield Note(instrument, self.time(bar, step), 2 * gap, midi, level, 0.3 + 0.4 * (count % 2))
                    continue
                held = gap * (0.98 if self.style.figure == "sustain" else 0.7)
                start = self.time(bar, step)
                for index, midi in enumerate(pitches):
                    pan = 0.5 if len(pitches) == 1 else 0.2 + 0.6 * index / (len(pitches) - 1)
                    yield Note(instrument, start, held, midi, 0.22 * self.rng.uniform(0.85, 1.0), pan)

    def voiced(self, degree: int) -> int:
        """A chord tone within the octave around middle C."""
        return 54 + (self.pitch(degree) - 54) % 12

    def bass(self, bars: int) -> Iterator[Note]:
        """Roots on the first step, then roots, fifths and octaves; with swing, a walk through the chord."""
        steps = self.style.bass_steps
        for bar in range(bars):
            root = self.progression[bar % len(self.progression)]
            for count, step in enumerate(steps):
                choices = (0, 2, 4, 6) if self.style.swing else (0, 0, 0, 4)
                degree = root + (0 if count == 0 else choices[self.rng.integers(4)])
                midi = 33 + (self.pitch(degree) - 33) % 12
                gap = ((*steps, STEPS + steps[0])[count + 1] - step) * self.step
                yield Note(self.style.bass, self.time(bar, step), 0.85 * gap, midi, 0.45, 0.5)

    def melody(self, bars: int, instrument: str) -> Iterator[Note]:
        """A repeated motif of two bars, moved to chord tones on strong beats."""
        if not instrument:
            return
        rng, pan = self.rng, self.rng.uniform(0.3, 0.7)
        motif = []
        degree = int(rng.integers(2, 7))
        for half in range(2):
            rhythm = _RHYTHMS[rng.integers(len(_RHYTHMS))]
            for count, step in enumerate(rhythm):
                gap = (*rhythm, STEPS)[count + 1] - step
                motif.append((half, step, gap, degree))
                degree = int(np.clip(degree + rng.choice([-2, -1, -1, 1, 1, 2, 3]), 0, 11))
        for bar in range(bars):
            for half, step, gap, wanted in motif:
                if half != bar % 2 or (step % 8 and rng.random() < 0.1):
                    continue
                degree = self.nearest(wanted, bar) if step % 8 == 0 else wanted
                level = 0.34 * rng.uniform(0.8, 1.0)
                held = gap * self.step * rng.uniform(0.7, 0.95)
                yield Note(instrument, self.time(bar, step), held, self.pitch(degree) + 12, level, pan)

    def nearest(self, degree: int, bar: int) -> int:
        """The chord tone closest to a scale degree."""
        tones = [tone + 7 * octave for tone in self.chord(bar) for octave in (-1, 0, 1)]
        return min(tones, key=lambda tone: (abs(tone - degree), tone))

    def drums(self, bars: int) -> Iterator[Note]:
        """The pattern of the style, with additional strokes at the end of every fourth bar."""
        pans = {"hat": 0.65, "ride": 0.35, "shaker": 0.7, "clap": 0.45, "kick": 0.5, "snare": 0.5}
        for bar in range(bars):
            for drum, pattern in self.style.drums.items():
                for step, stroke in enumerate(pattern):
                    fill = bar % 4 == 3 and step >= 12 and drum in ("snare", "clap") and self.rng.random() < 0.5
                    if stroke == "." and not fill:
                        continue
                    level = {"kick": 0.7, "snare": 0.5, "clap": 0.45}.get(drum, 0.14)
                    level *= self.rng.uniform(0.85, 1.0) * (1.0 if stroke == "X" else 0.7)
                    yield Note(drum, self.time(bar, step), 0.0, 0, level, pans[drum])
