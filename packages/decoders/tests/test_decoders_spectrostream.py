"""The SpectroStream decoder: published shapes and sizes at three sample rates, look-ahead, and streaming."""

from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, LatentSpec, PartitaError
from partita_decoders import SpectroStreamDecoderConfig
from torch._subclasses.fake_tensor import FakeTensorMode

MONO = (ChannelLayout.MONO,)
STEREO = (ChannelLayout.MONO, ChannelLayout.STEREO)
STRIDES_24 = ((2, 1), (2, 1), (1, 2), (1, 2), (1, 3), (1, 2), (1, 2))
STRIDES_16 = ((2, 1), (2, 1), *[(1, 2)] * 5)
AT_48 = SpectroStreamDecoderConfig()
AT_24 = SpectroStreamDecoderConfig(stft_hop=240, strides=STRIDES_24)
AT_16 = SpectroStreamDecoderConfig(stft_hop=160, strides=STRIDES_16)
EXAMPLE = SpectroStreamDecoderConfig.example()


def built(config, rate, layouts, *, dim=8, dtype=torch.float64):
    torch.manual_seed(0)
    hop = config.stft_hop * 4
    decoder = config.build(latent_spec=LatentSpec(dim, rate, hop), audio_spec=AudioSpec(rate, len(layouts), layouts))
    return decoder.eval() if dtype is None else decoder.to(dtype).eval()


def latents(frames, batch=1, seed=1):
    return torch.randn(batch, 8, frames, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layouts(batch=1):
    return torch.ones(batch, dtype=torch.int64)


@pytest.mark.parametrize(
    "config, rate, known, dim, millions",
    [
        (AT_48, 48_000, STEREO, 256, 35.7),
        (AT_48, 48_000, MONO, 64, 24.0),
        (AT_24, 24_000, MONO, 64, 23.4),
        (AT_16, 16_000, MONO, 64, 23.2),
        (replace(AT_24, width=32), 24_000, MONO, 64, 5.9),
    ],
)
def test_parameter_counts_are_as_published(config, rate, known, dim, millions):
    with FakeTensorMode():
        decoder = built(config, rate, known, dim=dim, dtype=None)
    assert sum(p.numel() for p in decoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert decoder.bins == 5 and decoder.linear.out_features == 40 * config.width


@torch.no_grad()
@pytest.mark.parametrize(
    "config, rate, known, stages",
    [
        (
            AT_48,
            48_000,
            STEREO,
            # Channels in multiples of the width, frames per second, bins, and rows per item.
            [
                (8, 25, 5, 1),
                (16, 50, 5, 1),
                (4, 100, 10, 2),
                (4, 100, 20, 2),
                (4, 100, 40, 2),
                (2, 100, 120, 2),
                (2, 100, 240, 2),
                (1, 100, 480, 2),
            ],
        ),
        (
            AT_24,
            24_000,
            MONO,
            [
                (8, 25, 5, 1),
                (8, 50, 5, 1),
                *[(w, 100, b, 1) for w, b in ((4, 5), (4, 10), (4, 20), (2, 60), (2, 120), (1, 240))],
            ],
        ),
        (
            AT_16,
            16_000,
            MONO,
            [
                (8, 25, 5, 1),
                (8, 50, 5, 1),
                *[(w, 100, b, 1) for w, b in ((4, 5), (4, 10), (4, 20), (2, 40), (2, 80), (1, 160))],
            ],
        ),
    ],
)
def test_layer_shapes_are_as_published(config, rate, known, stages):
    """24 frames of two items and one frame of look-ahead, which are one second, through every layer."""
    decoder = built(replace(config, width=2), rate, known)
    seen = []
    for layer in (*decoder.units, decoder.head):
        layer.register_forward_hook(lambda _, inputs, outputs: seen.append(tuple(outputs[0].shape)))
    audio = decoder(latents(24, batch=2), layouts(2))
    assert audio.shape == (2, len(known), 24 * config.stft_hop * 4)
    channels = len(known)
    expected = [(2 * rows, 2 * w, frames, bins) for w, frames, bins, rows in stages]
    assert seen == [*expected, (2 * channels, 2, 100, config.stft_hop)]


@torch.no_grad()
@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_dependence_on_latents_equals_the_declared_context(lookahead):
    decoder = built(replace(AT_48, width=1, lookahead=lookahead), 48_000, MONO)
    left = decoder.context[0]
    assert decoder.context == (14 - lookahead, lookahead) and decoder.latency == lookahead * 1920
    x = latents(left + 6)
    before = decoder(x, layouts())
    for frame in (2, 4):
        other = x.clone()
        other[:, :, frame] += 1
        affected = (decoder(other, layouts()) - before).abs().amax((0, 1)) > 1e-12 * before.abs().max()
        first, last = affected.nonzero().flatten()[[0, -1]].tolist()
        assert frame - lookahead <= first // 1920 <= frame - lookahead + 1
        assert left - 3 <= last // 1920 - frame <= left


@torch.no_grad()
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_stream_equals_forward_for_any_split(lookahead, dtype, tolerance):
    decoder = built(replace(AT_48, width=2, lookahead=lookahead), 48_000, STEREO, dtype=dtype)
    x = latents(12, batch=2).to(dtype)
    whole = decoder(x, layouts(2))
    for pieces, width in (([12], 5), ([1, 0, 4, 2, 5, 0], 2), ([1] * 12, 1)):
        stream, out, pushed = decoder.stream(layouts(2), dtype=dtype, width=width), whole[..., :0], 0
        for index, piece in enumerate(x.split(pieces, dim=-1)):
            last = index == len(pieces) - 1
            out, pushed = torch.cat([out, stream.push(piece, last=last)], dim=-1), pushed + pieces[index]
            assert out.shape[-1] == max(0, pushed - (0 if last else lookahead)) * decoder.hop
        error = (out - whole).abs().max() / whole.square().mean().sqrt()
        assert float(error) < tolerance


@torch.no_grad()
def test_inverse_transform_reproduces_a_signal():
    """Given the spectrum of a signal, the decoder returns the signal, delayed by the overlap of windows."""
    decoder = built(replace(EXAMPLE, lookahead=0), 8000, MONO)
    time = torch.arange(6 * decoder.hop, dtype=torch.float64)
    # Bins 1 and 3 of windows of 12 samples: nothing at the Nyquist bin from the first full window on.
    signal = (torch.sin(time * torch.pi / 6) + torch.cos(time * torch.pi / 2))[None, None]
    padded = torch.nn.functional.pad(signal, (decoder.stft.hop, 0))
    spectrum = decoder.stft(padded)[:, 0].transpose(1, 2)

    class GivenSpectrum(torch.nn.Module):
        def forward(self, x, state):
            return torch.stack([spectrum.real, spectrum.imag], dim=1), state

        init_state, stride = decoder.head.init_state, (1, 1)

    decoder.head = GivenSpectrum()
    decoder._head_dtype = lambda: torch.float64
    audio = decoder(latents(6), layouts())
    hop = decoder.stft.hop
    torch.testing.assert_close(audio[..., 2 * hop :], signal[..., hop:-hop], rtol=0, atol=1e-9)


@torch.no_grad()
def test_bf16_keeps_the_head_in_float32():
    decoder = built(replace(AT_16, width=8), 16_000, MONO, dtype=torch.float32)
    x = latents(8).float()
    before = decoder(x, layouts())
    decoder.optimize(precision="bf16", compile=False)
    assert decoder.head.conv.weight.dtype == torch.float32
    assert decoder.units[0].inner.conv.weight.dtype == torch.bfloat16
    after = decoder(x.bfloat16(), layouts()).float()
    error = (after - before).square().mean() / before.square().mean()
    assert 0 < float(error) < 1e-3


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"multiples": (1, 2)}, "7 strides .* 8 multiples"),
        ({"split": 8}, "split is 8.* 7 units"),
        ({"lookahead": -1}, "lookahead is -1"),
        ({"stft_hop": 240}, "240 bins .* 96"),
        ({"stft_hop": 960}, "3840.*1920"),
    ],
)
def test_inconsistent_settings_raise(changed, message):
    with pytest.raises(PartitaError, match=message):
        replace(AT_48, **changed).build(latent_spec=LatentSpec(8, 48_000, 1920), audio_spec=AudioSpec(48_000, 1, MONO))
