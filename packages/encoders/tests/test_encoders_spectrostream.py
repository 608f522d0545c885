"""The SpectroStream encoder: published shapes and sizes at three sample rates, and streaming."""

from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError
from partita_encoders import SpectroStreamEncoderConfig
from torch._subclasses.fake_tensor import FakeTensorMode

MONO = (ChannelLayout.MONO,)
STEREO = (ChannelLayout.MONO, ChannelLayout.STEREO)
STRIDES_24 = ((1, 2), (1, 2), (1, 3), (1, 2), (1, 2), (2, 1), (2, 1))
STRIDES_16 = (*[(1, 2)] * 5, (2, 1), (2, 1))
AT_48 = SpectroStreamEncoderConfig()
AT_24 = SpectroStreamEncoderConfig(stft_hop=240, strides=STRIDES_24)
AT_16 = SpectroStreamEncoderConfig(stft_hop=160, strides=STRIDES_16)


def spec(rate, layouts):
    return AudioSpec(rate, len(layouts), layouts)


def built(config, audio_spec, *, out_dim=8, dtype=torch.float64):
    torch.manual_seed(0)
    return config.build(out_dim=out_dim, audio_spec=audio_spec).to(dtype).eval()


def noise(encoder, frames, batch=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, encoder.audio_spec.channels, frames * encoder.hop)
    return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)


def layouts(batch=1):
    return torch.ones(batch, dtype=torch.int64)


@pytest.mark.parametrize(
    "config, audio_spec, dim, millions",
    [
        (AT_48, spec(48_000, STEREO), 256, 9.3),
        (AT_48, spec(48_000, MONO), 64, 6.1),
        (AT_24, spec(24_000, MONO), 64, 5.9),
        (AT_16, spec(16_000, MONO), 64, 5.9),
        (replace(AT_24, width=16), spec(24_000, MONO), 64, 1.5),
    ],
)
def test_parameter_counts_are_as_published(config, audio_spec, dim, millions):
    with FakeTensorMode():
        encoder = config.build(out_dim=dim, audio_spec=audio_spec)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert audio_spec.sample_rate / encoder.hop == 25
    assert encoder.linear.in_features == 40 * config.width  # 5 bins of 8 * width channels


@torch.no_grad()
@pytest.mark.parametrize(
    "config, audio_spec, stages",
    [
        (
            AT_48,
            spec(48_000, STEREO),
            # Channels in multiples of the width, frames per second, bins, and rows per item.
            [
                (1, 100, 480, 2),
                (2, 100, 240, 2),
                (2, 100, 120, 2),
                (4, 100, 40, 2),
                (4, 100, 20, 2),
                (4, 100, 10, 2),
                (8, 50, 5, 2),
                (8, 25, 5, 1),
                (8, 25, 5, 1),
            ],
        ),
        (
            AT_24,
            spec(24_000, MONO),
            [(1, 100, 240, 1), *[(w, 100, b, 1) for w, b in ((2, 120), (2, 60), (4, 20), (4, 10), (4, 5))]]
            + [(8, 50, 5, 1), (8, 25, 5, 1), (8, 25, 5, 1)],
        ),
        (
            AT_16,
            spec(16_000, MONO),
            [(1, 100, 160, 1), *[(w, 100, b, 1) for w, b in ((2, 80), (2, 40), (4, 20), (4, 10), (4, 5))]]
            + [(8, 50, 5, 1), (8, 25, 5, 1), (8, 25, 5, 1)],
        ),
    ],
)
def test_layer_shapes_are_as_published(config, audio_spec, stages):
    """One second of two items through every layer, with a sixteenth of the widths."""
    encoder = built(replace(config, width=2), audio_spec)
    seen = []
    for layer in (encoder.stem, *encoder.units):
        layer.register_forward_hook(lambda _, inputs, outputs: seen.append(tuple(outputs[0].shape)))
    hidden = encoder(noise(encoder, 25, batch=2), layouts(2))
    assert hidden.shape == (2, 8, 25)
    assert seen == [(2 * rows, 2 * w, frames, bins) for w, frames, bins, rows in stages]
    if encoder.audio_spec.channels == 2:
        assert encoder.units[6].inner.channels == 2 * 16  # left and right side by side


def test_context_of_the_published_sizes():
    """55 frames of the spectrum before a frame: 31 at 100 Hz, 4 at 50 Hz and 4 at 25 Hz."""
    assert built(replace(AT_48, width=1), spec(48_000, MONO)).context == (14, 0)
    assert -(-(31 + 4 * 2 + 4 * 4) // 4) == 14


@torch.no_grad()
def test_channels_share_layers_until_fusion():
    encoder = built(SpectroStreamEncoderConfig.example(), spec(8000, STEREO))
    rows = []
    for layer in (encoder.stem, *encoder.units):
        layer.register_forward_hook(lambda _, inputs, outputs: rows.append(outputs[0]))
    audio = noise(encoder, 3)
    straight = encoder(audio, layouts())
    apart = rows[: 1 + encoder.fusion]
    rows.clear()
    crossed = encoder(audio.flip(1), layouts())
    assert [len(t) for t in rows] == [2, 2, 2, 1, 1]
    for before, after in zip(apart, rows):
        assert torch.equal(before, after.flip(0))
    assert (straight - crossed).abs().max() > 1e-3  # the fused layers distinguish them

    mono = built(SpectroStreamEncoderConfig.example(), spec(8000, MONO))
    mono.stem.load_state_dict(encoder.stem.state_dict())
    left = mono.stem(mono_spectrum(mono, audio[:, :1]), state_of(mono))[0]
    torch.testing.assert_close(left, apart[0][:1], rtol=0, atol=1e-12)


def mono_spectrum(encoder, audio):
    padded = torch.nn.functional.pad(audio, (encoder.stft.hop, 0))
    spectrum = encoder.stft(padded)
    return torch.stack([spectrum.real, spectrum.imag], dim=-1)[:, 0].permute(0, 3, 2, 1)


def state_of(encoder):
    return encoder.init_state(1, device=torch.device("cpu"), dtype=torch.float64)[1][0]


@torch.no_grad()
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_stream_equals_forward_for_any_split(dtype, tolerance):
    encoder = built(replace(AT_48, width=2), spec(48_000, STEREO), dtype=dtype)
    audio = noise(encoder, 20, batch=2).to(dtype)
    whole = encoder(audio, layouts(2))
    for pieces, width in (([20], 7), ([1, 0, 4, 10, 5, 0], 2), ([1] * 20, 1)):
        stream = encoder.stream(layouts(2), dtype=dtype, width=width)
        assert stream.latency == 0
        pushed = []
        for piece in audio.split([size * encoder.hop for size in pieces], dim=-1):
            pushed.append(stream.push(piece))
            assert pushed[-1].shape[-1] == piece.shape[-1] // encoder.hop  # nothing is held back
        error = (torch.cat(pushed, dim=-1) - whole).abs().max() / whole.square().mean().sqrt()
        assert float(error) < tolerance


@torch.no_grad()
def test_bf16_keeps_the_stem_in_float32_and_streams():
    encoder = built(replace(AT_16, width=8), spec(16_000, MONO), dtype=torch.float32)
    audio = noise(encoder, 12).float()
    before = encoder(audio, layouts())
    encoder.optimize(precision="bf16", compile=False)
    assert encoder.stem.conv.weight.dtype == torch.float32
    assert encoder.units[0].inner.conv.weight.dtype == torch.bfloat16
    after = encoder(audio, layouts()).float()
    error = (after - before).square().mean() / before.square().mean()
    assert 0 < float(error) < 1e-3
    stream = encoder.stream(layouts(), width=2)
    streamed = torch.cat([stream.push(piece).float() for piece in audio.split(3 * encoder.hop, dim=-1)], dim=-1)
    assert float((streamed - after).square().mean() / after.square().mean()) < 1e-3


def test_init_std_is_the_deviation_of_the_weights():
    """A truncated normal distribution at two deviations has 0.88 of the standard deviation."""
    for std, expected in ((0.02, 0.02), (None, (5 * 64) ** -0.5)):
        encoder = built(replace(AT_48, width=8, init_std=std), spec(48_000, MONO))
        assert encoder.linear.weight.std().item() == pytest.approx(0.88 * expected, rel=0.05)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"multiples": (1, 2)}, "7 strides .* 8 multiples"),
        ({"fusion": 8}, "fusion is 8.* 7 units"),
        ({"stft_hop": 240}, "240 bins .* 96"),
    ],
)
def test_inconsistent_settings_raise(changed, message):
    with pytest.raises(PartitaError, match=message):
        replace(AT_48, **changed).build(out_dim=4, audio_spec=spec(48_000, MONO))
