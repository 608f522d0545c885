import pytest
import torch
from partita_core import (
    AudioSpec,
    ChannelLayout,
    LatentSpec,
    PartitaError,
    as_layouts,
    convert,
    convert_pairs,
    default_layout,
    from_dict,
    network_layout,
    to_dict,
    to_network,
)
from partita_core.layouts import from_network

MONO, STEREO, MID_SIDE = ChannelLayout
LEFT, RIGHT = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([0.0, 4.0, 1.0])
MID, SIDE = (LEFT + RIGHT) / 2, (LEFT - RIGHT) / 2
AUDIO = {MONO: MID[None], STEREO: torch.stack([LEFT, RIGHT]), MID_SIDE: torch.stack([MID, SIDE])}
POSSIBLE = [(source, target) for source in ChannelLayout for target in ChannelLayout if source or not target]


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["mid_side", "mid-side", " MID_SIDE ", 2, "Mid-Side", MID_SIDE])
def test_parse(name):
    assert ChannelLayout.parse(name) is MID_SIDE


@pytest.mark.parametrize(
    "name, message",
    [
        ("sterio", "unknown channel layout 'sterio'; did you mean stereo?"),
        ("quad", "unknown channel layout 'quad'; valid: mid_side, mono, stereo"),
        (3, "unknown channel layout 3; valid: 0, 1, 2"),
        (-1, "unknown channel layout -1; valid: 0, 1, 2"),
    ],
)
def test_unknown_names_raise(name, message):
    with pytest.raises(PartitaError) as caught:
        ChannelLayout.parse(name)
    assert str(caught.value) == message


def test_widths():
    assert [layout.width for layout in ChannelLayout] == [1, 2, 2]
    assert [default_layout(1), default_layout(2)] == [MONO, STEREO]
    for channels in (0, 3, 6):
        with pytest.raises(PartitaError, match=f"audio has {channels} channels"):
            default_layout(channels)


def test_as_layouts():
    assert as_layouts("stereo", 3).tolist() == [1, 1, 1]
    assert as_layouts(["mono", 2, STEREO], 3).tolist() == [0, 2, 1]
    assert as_layouts(torch.tensor([2, 0]), 2).tolist() == [2, 0]
    assert as_layouts(MID_SIDE, 1).dtype == torch.int64
    with pytest.raises(PartitaError, match="2 layouts for 3 items"):
        as_layouts(["mono", "stereo"], 3)


# ------------------------------------------------------------------ convert


@pytest.mark.parametrize("source, target", POSSIBLE)
def test_convert(source, target):
    assert torch.equal(convert(AUDIO[source], source, target), AUDIO[target])
    batch = torch.stack([AUDIO[source], 2 * AUDIO[source]])
    assert torch.equal(convert(batch, source, target)[1], 2 * AUDIO[target])


def test_convert_returns_audio_of_equal_layout():
    assert convert(AUDIO[STEREO], STEREO, STEREO) is AUDIO[STEREO]


@pytest.mark.parametrize("target", [STEREO, MID_SIDE])
def test_mono_to_other_layouts_raises(target):
    with pytest.raises(PartitaError, match=f"mono .* {target.name.lower()}"):
        convert(AUDIO[MONO], MONO, target)


@pytest.mark.parametrize("layout", ChannelLayout)
def test_convert_raises_for_another_width(layout):
    with pytest.raises(PartitaError, match=f"{layout.name.lower()} audio has {layout.width} channels, got 3"):
        convert(torch.zeros(3, 5), layout, layout)


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    "layout, layouts, known",
    [
        (MONO, (MONO,), MONO),
        (MONO, (STEREO,), STEREO),
        (MONO, (MID_SIDE,), MID_SIDE),
        (MONO, (STEREO, MID_SIDE), STEREO),
        (MONO, tuple(ChannelLayout), MONO),
        (STEREO, (MID_SIDE,), MID_SIDE),
        (STEREO, (MONO, MID_SIDE), MID_SIDE),
        (MID_SIDE, (MONO, STEREO), STEREO),
        (MID_SIDE, tuple(ChannelLayout), MID_SIDE),
    ],
)
def test_to_network_and_back(layout, layouts, known):
    audio = AUDIO[layout]
    assert network_layout(layout, layouts) is known
    seen = to_network(audio, layout, layouts)
    assert seen.shape[0] == (1 if layouts == (MONO,) else 2)
    assert torch.equal(from_network(seen, known, layout), audio)


def test_mono_enters_networks_as_a_pair():
    assert torch.equal(to_network(AUDIO[MONO], MONO, tuple(ChannelLayout)), torch.stack([MID, MID]))
    assert torch.equal(to_network(AUDIO[MONO], MONO, (STEREO,)), torch.stack([MID, MID]))
    assert torch.equal(to_network(AUDIO[MONO], MONO, (MID_SIDE,)), torch.stack([MID, torch.zeros(3)]))


def test_two_mono_channels_are_averaged():
    assert torch.equal(to_network(AUDIO[STEREO], MONO, (MONO,)), MID[None])


def test_mono_output_pair_is_averaged():
    assert torch.equal(from_network(AUDIO[STEREO], MONO, MONO), MID[None])


@pytest.mark.parametrize("layout", [STEREO, MID_SIDE])
def test_mono_network_raises_for_two_channels(layout):
    with pytest.raises(PartitaError, match=f"{layout.name.lower()}.* mono only"):
        to_network(AUDIO[layout], layout, (MONO,))


# ------------------------------------------------------------------ convert_pairs


def as_pair(layout):
    return AUDIO[layout].expand(2, -1)


def test_convert_pairs_agrees_with_convert():
    sources, targets = zip(*POSSIBLE)
    audio = torch.stack([as_pair(source) for source in sources]).double()
    converted = convert_pairs(audio, torch.tensor(sources), torch.tensor(targets))
    expected = torch.stack([as_pair(target) for target in targets]).double()
    assert torch.equal(converted, expected)
    assert converted.dtype == torch.float64


def test_convert_pairs_averages_unequal_mono_pairs():
    pair = AUDIO[STEREO][None]
    assert torch.equal(convert_pairs(pair, torch.tensor([0]), torch.tensor([0]))[0], torch.stack([MID, MID]))


def test_convert_pairs_gives_nan_where_convert_raises():
    audio = torch.stack([as_pair(MONO), as_pair(MONO)])
    assert convert_pairs(audio, torch.tensor([0, 0]), torch.tensor([1, 2])).isnan().all()


def test_convert_pairs_returns_one_channel_unchanged():
    audio = torch.randn(2, 1, 5)
    assert convert_pairs(audio, torch.tensor([0, 0]), torch.tensor([0, 0])) is audio


def test_convert_pairs_passes_gradients():
    audio = torch.randn(3, 2, 4, requires_grad=True)
    convert_pairs(audio, torch.tensor([0, 1, 2]), torch.tensor([0, 2, 1])).square().sum().backward()
    assert (audio.grad != 0).all()


# ------------------------------------------------------------------ specs


@pytest.mark.parametrize(
    "given, channels, layouts",
    [
        (AudioSpec(24_000), 1, (MONO,)),
        (AudioSpec(24_000, 2), 2, (STEREO,)),
        (AudioSpec(24_000, layouts=("mono", "stereo")), 2, (MONO, STEREO)),
        (AudioSpec(24_000, layouts="stereo"), 2, (STEREO,)),
    ],
)
def test_audio_spec_fields_follow_from_each_other(given, channels, layouts):
    assert (given.channels, given.layouts) == (channels, layouts)
    assert from_dict(AudioSpec, to_dict(given)) == given


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 1, (MONO,)), "sample_rate is 0; it must be at least 1"),
        ((8000, 2, (MONO,)), "channels is 2, but the layouts mono need 1"),
        ((8000, 1, (MONO, STEREO)), "channels is 1, but the layouts mono, stereo need 2"),
        ((8000, 2, (STEREO, STEREO)), "layouts must name each channel layout once"),
        ((8000, STEREO), "channels is ChannelLayout.STEREO"),
        ((8000, 2, ()), "layouts must name each channel layout once"),
    ],
)
def test_invalid_audio_spec_raises(arguments, message):
    with pytest.raises(PartitaError, match=message):
        AudioSpec(*arguments)


@pytest.mark.parametrize("name", ["dim", "sample_rate", "hop", "tokens_per_frame"])
def test_latent_spec_raises_for_nonpositive_values(name):
    with pytest.raises(PartitaError, match=f"{name} is 0; it must be at least 1"):
        LatentSpec(**{"dim": 4, "sample_rate": 8000, "hop": 16, "tokens_per_frame": 1} | {name: 0})


@pytest.mark.parametrize("name", ["mean", "std"])
def test_latent_spec_raises_for_statistics_of_another_width(name):
    with pytest.raises(PartitaError, match=f"{name} has 3 .* 4"):
        LatentSpec(4, 8000, 16, **{name: (1.0, 1.0, 1.0)})


def test_latent_spec_counts_frames():
    spec = LatentSpec(4, 44100, 3360)
    assert (spec.frame_rate.numerator, spec.frame_rate.denominator) == (105, 8)
    assert [spec.frames(n) for n in (0, 1, 3359, 3360, 3361, 6720)] == [0, 1, 1, 1, 2, 2]
