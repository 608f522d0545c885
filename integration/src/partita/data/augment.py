"""Augmentation of crops: channel format, requested output format, level, and polarity.

Pure functions of audio and a generator. The default probabilities are those of GenAE (multi-format training).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import NamedTuple, TypeVar

import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError, convert, network_layout, to_network
from partita_core.ranges import Finite, NonNegative, Proportion, Ranged
from torch import Generator, Tensor

T = TypeVar("T")

MONO, STEREO, MID_SIDE = ChannelLayout

_FORMATS = {
    "stereo": STEREO,
    "mid_side": MID_SIDE,
    "mono_average": MONO,
    "mono_channel": MONO,
    "pseudo_stereo": STEREO,
}

# Layouts that a decoder may be asked for instead of the input's; no other layout follows from mono.
_SWITCHES = {STEREO: (MID_SIDE, MONO), MID_SIDE: (STEREO, MONO), MONO: ()}

_DELAY_SECONDS = (0.005, 0.020)


@dataclass(frozen=True)
class Augmentation(Ranged):
    """Settings of augmentation.

    The five formats are relative probabilities; formats that a model lacks are never drawn. A mono file becomes
    pseudo-stereo with probability `pseudo_stereo`, and stays mono otherwise.

    Attributes:
        stereo: relative probability of left and right.
        mid_side: relative probability of mid and side.
        mono_average: relative probability of the mean of both channels.
        mono_channel: relative probability of one of the channels.
        pseudo_stereo: relative probability of mono that is randomly widened and panned.
        swap: probability of exchanging left and right.
        switch_target: probability of requesting another layout from the decoder, one that the model has and that can be
            derived from the input.
        flip: probability of inverting the polarity.
        mix: probability of adding a crop of another file, before all other steps (0.5 in CoDiCodec; see `mixed`).
        level_db: RMS over channels and samples to which a crop is scaled, in dB of full scale; None keeps the level.
        level_range_db: half the width of the uniform distribution of the level around `level_db`.
        max_gain_db: maximum gain of a quiet crop.
    """

    stereo: Proportion = 0.45
    mid_side: Proportion = 0.20
    mono_average: Proportion = 0.20
    mono_channel: Proportion = 0.10
    pseudo_stereo: Proportion = 0.05
    swap: Proportion = 0.5
    switch_target: Proportion = 0.25
    flip: Proportion = 0.5
    mix: Proportion = 0.0
    level_db: Finite | None = -16.0
    level_range_db: NonNegative = 6.0
    max_gain_db: NonNegative = 30.0

    def formats(self, layouts: tuple[ChannelLayout, ...]) -> dict[str, float]:
        """Formats that a stereo file may take in a model of these layouts, with their relative probabilities.

        Raises:
            PartitaError: all of them have probability 0.
        """
        chances = {name: getattr(self, name) for name, layout in _FORMATS.items() if layout in layouts}
        if not sum(chances.values()):
            names = " and ".join(layout.name.lower() for layout in layouts)
            raise PartitaError(f"augmentation has no format for {names}: {', '.join(chances)} are 0; raise one of them")
        return {name: chance for name, chance in chances.items() if chance}


class Example(NamedTuple):
    """A crop in a channel layout of the network.

    Attributes:
        audio: `(audio_spec.channels, samples)`.
        layout: channel layout of the audio.
        target_layout: channel layout requested from the decoder.
    """

    audio: Tensor
    layout: ChannelLayout
    target_layout: ChannelLayout


def plain_format(audio: Tensor, spec: AudioSpec) -> tuple[Tensor, ChannelLayout]:
    """`(1 or 2, samples)` unchanged, except that stereo is averaged for a mono model."""
    if audio.shape[0] == 1:
        return audio, MONO
    return (convert(audio, STEREO, MONO), MONO) if spec.channels == 1 else (audio, STEREO)


def plain(audio: Tensor, spec: AudioSpec) -> Example:
    """`(1 or 2, samples)` in its plain format, without augmentation."""
    return unvaried(*plain_format(audio, spec), spec)


def unvaried(audio: Tensor, layout: ChannelLayout, spec: AudioSpec) -> Example:
    """Audio of a given layout as an example, without augmentation."""
    known = network_layout(layout, spec.layouts)
    return Example(to_network(audio, layout, spec.layouts), known, known)


def augment(audio: Tensor, spec: AudioSpec, settings: Augmentation, generator: Generator) -> Example:
    """Augment a crop: its format, by `draw_format`, and then the rest, by `vary`.

    Args:
        audio: `(1 or 2, samples)`, mono or left and right.
        spec: audio that the network takes.
        settings: probabilities and levels.
        generator: source of the random draws.
    """
    return vary(*draw_format(audio, spec, settings, generator), spec, settings, generator)


def vary(
    audio: Tensor, layout: ChannelLayout, spec: AudioSpec, settings: Augmentation, generator: Generator
) -> Example:
    """Augment a crop in the format that was drawn: channel order, level, polarity, and the requested layout.

    Args:
        audio: `(1 or 2, samples)`, mono or left and right.
        layout: channel layout of the format that was drawn.
        spec: audio that the network takes.
        settings: probabilities and levels.
        generator: source of the random draws.
    """
    if layout is not MONO and chance(settings.swap, generator):
        audio = audio.flip(0)
    if settings.level_db is not None:
        spread = settings.level_range_db * (2 * _uniform(generator) - 1)
        audio = audio * level_gain(audio, settings.level_db + spread, settings.max_gain_db)
    if chance(settings.flip, generator):
        audio = -audio
    if layout is MID_SIDE:
        audio = convert(audio, STEREO, MID_SIDE)
    known = network_layout(layout, spec.layouts)
    targets = [target for target in _SWITCHES[layout] if target in spec.layouts]
    switched = bool(targets) and chance(settings.switch_target, generator)
    target = _choose(targets, generator) if switched else known
    return Example(to_network(audio, layout, spec.layouts), known, target)


def mixed(first: Tensor, second: Tensor) -> Tensor:
    """The sum of two clips, clamped to full scale: as long as the longer one, stereo if one of them is.

    Args:
        first: `(1 or 2, samples)`.
        second: `(1 or 2, samples)`, of any length.
    """
    length = max(first.shape[-1], second.shape[-1])
    padded = [torch.nn.functional.pad(audio, (0, length - audio.shape[-1])) for audio in (first, second)]
    return (padded[0] + padded[1]).clamp(-1, 1)


def draw_format(
    audio: Tensor, spec: AudioSpec, settings: Augmentation, generator: Generator
) -> tuple[Tensor, ChannelLayout]:
    """Draw a channel format; for mid/side, the returned audio is still left and right."""
    if audio.shape[0] == 1:
        widened = STEREO in spec.layouts and chance(settings.pseudo_stereo, generator)
        return (pseudo_stereo(audio, spec.sample_rate, generator), STEREO) if widened else (audio, MONO)
    chances = settings.formats(spec.layouts)
    weights = torch.tensor(list(chances.values()), dtype=torch.float64)
    name = list(chances)[int(torch.multinomial(weights, 1, generator=generator))]
    if name == "mono_average":
        audio = audio.mean(0, keepdim=True)
    elif name == "mono_channel":
        audio = _choose(audio.split(1), generator)
    elif name == "pseudo_stereo":
        audio = pseudo_stereo(audio.mean(0, keepdim=True), spec.sample_rate, generator)
    return audio, _FORMATS[name]


def pseudo_stereo(audio: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Mono `(1, samples)` to `(2, samples)` with random width, by complementary comb filters, and random panning.

    The comb filters are Lauridsen's: a delayed copy is added on the left and subtracted on the right, so that the mean
    of the channels before panning is the mono signal.
    """
    shortest, longest = _DELAY_SECONDS
    delay = round((shortest + (longest - shortest) * _uniform(generator)) * sample_rate)
    delayed = torch.nn.functional.pad(audio, (delay, 0))[:, : audio.shape[-1]]
    side = delayed * _uniform(generator)
    angle = torch.tensor(pi / 2 * _uniform(generator), dtype=torch.float64)
    gains = torch.stack([angle.cos(), angle.sin()]).to(audio.dtype)[:, None] * 2**0.5
    return torch.cat([audio + side, audio - side]) * gains


def level_gain(audio: Tensor, level_db: float, max_gain_db: float) -> float:
    """The gain that scales `audio` to an RMS of `level_db`, limited so that its peak is at most 1.

    It is at most `max_gain_db`. The peak is limited in any case, also for audio beyond full scale.
    """
    power = float(audio.double().square().mean())
    peak = float(audio.abs().max())
    if power == 0:
        return 1.0
    gain = min(10 ** (level_db / 20) / power**0.5, 10 ** (max_gain_db / 20))
    return min(gain, 1 / peak)


def _uniform(generator: Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def chance(probability: float, generator: Generator) -> bool:
    """True with the given probability."""
    return _uniform(generator) < probability


def _choose(options: Sequence[T], generator: Generator) -> T:
    return options[int(torch.randint(len(options), (), generator=generator))]
