"""Styles of music, as the rules of `composition`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Rules of a musical style.

    Attributes:
        tempos: minimum and maximum of beats per minute.
        modes: modes to choose from, "major" and "minor".
        progressions: chord progressions as scale degrees, one per bar.
        chords: instruments of the accompaniment.
        figure: playing of the accompaniment, "sustain", "block" (at `hits`) or "arpeggio".
        hits: steps of the accompaniment in a bar.
        leads: instruments of the melody; empty for none.
        bass: instrument of the bass, or "" for none.
        bass_steps: steps of the bass in a bar.
        drums: strokes in a bar of sixteenths, by drum; "X" is loud.
        swing: delay of off-beat eighths, as a fraction of a sixteenth.
        chord_size: notes per chord.
        reverb: level of reverberation.
    """

    tempos: tuple[int, int]
    modes: tuple[str, ...]
    progressions: tuple[tuple[int, ...], ...]
    chords: tuple[str, ...]
    figure: str
    hits: tuple[int, ...]
    leads: tuple[str, ...]
    bass: str
    bass_steps: tuple[int, ...]
    drums: dict[str, str]
    swing: float = 0.0
    chord_size: int = 3
    reverb: float = 0.25


STYLES: dict[str, Style] = {
    "ballad": Style(
        tempos=(60, 80),
        modes=("major", "minor"),
        progressions=((0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4)),
        chords=("piano",),
        figure="arpeggio",
        hits=tuple(range(0, 16, 2)),
        leads=("flute", "strings", "choir"),
        bass="plucked bass",
        bass_steps=(0, 8),
        drums={},
        reverb=0.35,
    ),
    "dance": Style(
        tempos=(118, 134),
        modes=("minor",),
        progressions=((0, 5, 2, 6), (0, 0, 5, 6), (0, 3, 5, 4)),
        chords=("strings", "organ"),
        figure="block",
        hits=(0, 3, 6, 10, 13),
        leads=("synth lead", "bells"),
        bass="synth bass",
        bass_steps=(2, 6, 10, 14),
        drums={"kick": "X...X...X...X...", "hat": "..x...x...x...x.", "clap": "....X.......X..."},
        reverb=0.2,
    ),
    "chorale": Style(
        tempos=(64, 84),
        modes=("major", "minor"),
        progressions=((0, 3, 4, 0), (0, 5, 1, 4), (0, 4, 3, 4)),
        chords=("organ", "choir", "strings", "brass"),
        figure="sustain",
        hits=(0, 8),
        leads=(),
        bass="",
        bass_steps=(),
        drums={},
        chord_size=4,
        reverb=0.5,
    ),
    "folk": Style(
        tempos=(88, 112),
        modes=("major", "minor"),
        progressions=((0, 3, 0, 4), (0, 4, 3, 4), (0, 6, 3, 0)),
        chords=("acoustic guitar",),
        figure="arpeggio",
        hits=(0, 2, 4, 6, 7, 8, 10, 12, 14, 15),
        leads=("flute", "acoustic guitar"),
        bass="plucked bass",
        bass_steps=(0, 6, 8),
        drums={"shaker": "x.xxX.xxx.xxX.xx"},
        chord_size=4,
    ),
    "jazz": Style(
        tempos=(104, 150),
        modes=("major", "minor"),
        progressions=((1, 4, 0, 5), (0, 5, 1, 4), (0, 3, 1, 4)),
        chords=("electric piano", "piano"),
        figure="block",
        hits=(0, 6, 14),
        leads=("brass", "flute"),
        bass="plucked bass",
        bass_steps=(0, 4, 8, 12),
        drums={"ride": "X...x.x.X...x.x.", "hat": "....x.......x...", "kick": "x.........x....."},
        swing=0.6,
        chord_size=4,
        reverb=0.18,
    ),
    "minimal": Style(
        tempos=(116, 144),
        modes=("major", "minor"),
        progressions=((0, 0, 3, 3), (0, 2, 0, 2), (0, 5, 5, 3)),
        chords=("marimba", "electric piano"),
        figure="arpeggio",
        hits=tuple(range(16)),
        leads=("bells", "marimba"),
        bass="",
        bass_steps=(),
        drums={"shaker": "..x...x...x...x."},
        chord_size=4,
        reverb=0.3,
    ),
    "rock": Style(
        tempos=(104, 144),
        modes=("minor",),
        progressions=((0, 6, 5, 6), (0, 5, 6, 0), (0, 3, 5, 4)),
        chords=("overdriven guitar",),
        figure="block",
        hits=(0, 2, 4, 6, 8, 10, 12, 14),
        leads=("synth lead", "organ"),
        bass="plucked bass",
        bass_steps=(0, 2, 4, 6, 8, 10, 12, 14),
        drums={"kick": "X.....x.X.x.....", "snare": "....X.......X..x", "hat": "x.x.x.x.x.x.x.x."},
        chord_size=1,
        reverb=0.15,
    ),
}
