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
def test_each_format_is_what_its_name_says(name, layout, expected):
    out = augment(stereo(), ALL, replace(BARE, **{name: 1.0}), generator())
    assert (out.layout, out.target_layout) == (layout, layout)
    torch.testing.assert_close(out.audio, expected(stereo()))


def test_one_channel_is_either_of_the_two():
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


def test_formats_are_drawn_as_often_as_they_should():
    draws = Counter(augment(stereo(8), ALL, Augmentation(), generator(seed)).layout for seed in range(4000))
    assert draws[STEREO] / 4000 == pytest.approx(0.50, abs=0.03)
    assert draws[MID_SIDE] / 4000 == pytest.approx(0.20, abs=0.03)
    assert draws[MONO] / 4000 == pytest.approx(0.30, abs=0.03)


def test_targets_are_switched_as_often_as_they_should_and_never_from_mono():
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
def test_a_model_is_given_nothing_that_it_lacks(layouts, channels):
    spec = AudioSpec(8000, 1 if layouts == (MONO,) else 2, layouts)
    for seed in range(60):
        out = augment(stereo()[:channels], spec, Augmentation(), generator(seed))
        assert out.layout in layouts and out.target_layout in layouts
        assert out.audio.shape == (spec.channels, 400)


def test_a_mono_file_in_a_stereo_model_is_two_equal_channels_or_pseudo_stereo():
    same = [
        torch.equal(*augment(stereo()[:1], ONLY_STEREO, Augmentation(), generator(seed)).audio) for seed in range(400)
    ]
    assert sum(same) / 400 == pytest.approx(0.95, abs=0.04)


def test_the_level_lies_in_its_range_and_the_peak_at_most_at_one():
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


def test_pseudo_stereo_is_wide_and_folds_back_to_mono():
    mono = stereo(2000)[:1]
    out = pseudo_stereo(mono, 8000, generator(3))
    assert out.shape == (2, 2000) and not torch.allclose(out[0], out[1])
    # undone pan: the two channels' gains, by least squares, bring the mono signal back
    solution = torch.linalg.lstsq(out.T, mono.T).solution
    torch.testing.assert_close((out.T @ solution).T, mono, atol=1e-4, rtol=0)


def test_the_generator_is_the_only_source_of_chance():
    for seed in range(10):
        torch.manual_seed(seed)
        first = augment(stereo(), ALL, Augmentation(), generator(seed))
        torch.manual_seed(99)
        again = augment(stereo(), ALL, Augmentation(), generator(seed))
        assert torch.equal(first.audio, again.audio) and first[1:] == again[1:]


def test_the_input_is_left_alone():
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


def test_settings_that_cannot_be():
    with pytest.raises(PartitaError, match="flip is 1.5; it must be at least 0 and at most 1"):
        Augmentation(flip=1.5)
    with pytest.raises(PartitaError, match="no format is left to draw for mono: mono_average, mono_channel are 0"):
        Augmentation(mono_average=0, mono_channel=0).formats((MONO,))
    with pytest.raises(PartitaError, match="level_range_db"):
        Augmentation(level_range_db=-1)
