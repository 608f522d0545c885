from collections import Counter
from dataclasses import replace

import pytest
import torch
from partita.data import Augmentation, augment, plain
from partita.data.augment import level_gain, pseudo_stereo
from partita_core import AudioSpec, ChannelLayout, PartitaError, convert

MONO, STEREO, MID_SIDE = ChannelLayout
ALL = AudioSpec(8000, 2, (MONO, STEREO, MID_SIDE))
ONLY_MONO = AudioSpec(8000, 1, (MONO,))
ONLY_STEREO = AudioSpec(8000, 2, (STEREO,))

BARE = Augmentation(0, 0, 0, 0, 0, swap=0, switch_target=0, flip=0, level_db=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stereo(samples: int = 400) -> torch.Tensor:
    return torch.rand(2, samples, generator=generator(9)) - 0.5


@pytest.mark.parametrize(
    "name, layout, expected",
    [
        ("stereo", STEREO, lambda x: x),
        ("mid_side", MID_SIDE, lambda x: convert(x, STEREO, MID_SIDE)),
        ("mono_average", MONO, lambda x: x.mean(0, keepdim=True).expand(2, -1)),
    ],
)
def test_channel_formats(name, layout, expected):
    out = augment(stereo(), ALL, replace(BARE, **{name: 1.0}), generator())
    assert (out.layout, out.target_layout) == (layout, layout)
    torch.testing.assert_close(out.audio, expected(stereo()))


def test_mono_channel_draws_either_channel():
    seen = set()
    for seed in range(20):
        out = augment(stereo(), ALL, replace(BARE, mono_channel=1.0), generator(seed))
        assert out.layout == MONO and torch.equal(out.audio[0], out.audio[1])
        seen.add(next(c for c in (0, 1) if torch.equal(out.audio[0], stereo()[c])))
    assert seen == {0, 1}


def test_swap_and_flip():
    settings = replace(BARE, stereo=1.0, swap=1.0, flip=1.0)
    assert torch.equal(augment(stereo(), ALL, settings, generator()).audio, -stereo().flip(0))
    side = augment(stereo(), ALL, replace(BARE, mid_side=1.0, swap=1.0), generator()).audio
    torch.testing.assert_close(side[1], (stereo()[1] - stereo()[0]) / 2)


def test_format_frequencies():
    draws = Counter(augment(stereo(8), ALL, Augmentation(), generator(seed)).layout for seed in range(4000))
    assert draws[STEREO] / 4000 == pytest.approx(0.50, abs=0.03)
    assert draws[MID_SIDE] / 4000 == pytest.approx(0.20, abs=0.03)
    assert draws[MONO] / 4000 == pytest.approx(0.30, abs=0.03)


def test_target_switch_frequencies():
    examples = [augment(stereo(8), ALL, Augmentation(), generator(seed)) for seed in range(4000)]
    wide = [example for example in examples if example.layout != MONO]
    switched = [example for example in wide if example.target_layout != example.layout]
    assert len(switched) / len(wide) == pytest.approx(0.25, abs=0.03)
    assert {(e.layout, e.target_layout) for e in switched} == {
        (STEREO, MID_SIDE),
        (STEREO, MONO),
        (MID_SIDE, STEREO),
        (MID_SIDE, MONO),
    }
    assert all(example.target_layout == MONO for example in examples if example.layout == MONO)


@pytest.mark.parametrize("layouts", [(MONO,), (STEREO,), (MID_SIDE,), (MONO, STEREO), (STEREO, MID_SIDE)])
@pytest.mark.parametrize("channels", [1, 2])
def test_only_layouts_of_the_model_are_drawn(layouts, channels):
    spec = AudioSpec(8000, 1 if layouts == (MONO,) else 2, layouts)
    for seed in range(60):
        out = augment(stereo()[:channels], spec, Augmentation(), generator(seed))
        assert out.layout in layouts and out.target_layout in layouts
        assert out.audio.shape == (spec.channels, 400)


def test_mono_file_in_stereo_model():
    same = [
        torch.equal(*augment(stereo()[:1], ONLY_STEREO, Augmentation(), generator(seed)).audio) for seed in range(400)
    ]
    assert sum(same) / 400 == pytest.approx(0.95, abs=0.04)


def test_level_range_and_peak_limit():
    levels = []
    for seed in range(200):
        out = augment(0.05 * stereo(), ONLY_STEREO, Augmentation(pseudo_stereo=0), generator(seed)).audio
        assert out.abs().max() <= 1
        levels.append(10 * out.square().mean().log10().item())
    assert -22.001 <= min(levels) < -20.5 and -11.5 < max(levels) <= -9.999


def test_level_gain():
    spike = torch.zeros(1, 1000)
    spike[0, 0] = 0.5
    assert level_gain(spike, -3.0, 100.0) == pytest.approx(2.0)
    assert level_gain(torch.full((1, 10), 4.0), 20.0, 30.0) == pytest.approx(0.25)
    assert level_gain(torch.full((1, 10), 1e-4), -16.0, 30.0) == pytest.approx(10**1.5)
    assert level_gain(torch.full((2, 10), 0.1), -16.0, 30.0) == pytest.approx(10**-0.8 / 0.1, rel=1e-5)
    assert level_gain(torch.zeros(1, 10), -16.0, 30.0) == 1.0


def test_pseudo_stereo_downmix_is_mono_input():
    mono = stereo(2000)[:1]
    out = pseudo_stereo(mono, 8000, generator(3))
    assert out.shape == (2, 2000) and not torch.allclose(out[0], out[1])
    # the gains of the two channels, found by least squares, restore the mono signal
    solution = torch.linalg.lstsq(out.T, mono.T).solution
    torch.testing.assert_close((out.T @ solution).T, mono, atol=1e-4, rtol=0)


def test_augmentation_depends_on_generator_only():
    for seed in range(10):
        torch.manual_seed(seed)
        first = augment(stereo(), ALL, Augmentation(), generator(seed))
        torch.manual_seed(99)
        again = augment(stereo(), ALL, Augmentation(), generator(seed))
        assert torch.equal(first.audio, again.audio) and first[1:] == again[1:]


def test_augmentation_does_not_modify_input():
    audio = stereo()
    for seed in range(20):
        augment(audio, ALL, Augmentation(), generator(seed))
    assert torch.equal(audio, stereo())


def test_plain():
    assert plain(stereo(), ALL).layout == STEREO
    folded = plain(stereo(), ONLY_MONO)
    assert folded.layout == MONO and torch.equal(folded.audio, stereo().mean(0, keepdim=True))
    doubled = plain(stereo()[:1], ONLY_STEREO)
    assert doubled.layout == STEREO and torch.equal(doubled.audio, stereo()[:1].expand(2, -1))


def test_invalid_augmentation_settings():
    with pytest.raises(PartitaError, match="flip is 1.5; it must be at least 0 and at most 1"):
        Augmentation(flip=1.5)
    with pytest.raises(PartitaError, match="mono: mono_average, mono_channel are 0"):
        Augmentation(mono_average=0, mono_channel=0).formats((MONO,))
    with pytest.raises(PartitaError, match="level_range_db"):
        Augmentation(level_range_db=-1)
