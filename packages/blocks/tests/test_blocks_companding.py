import math

import pytest
import torch
from partita_blocks import CompandedSTFT
from partita_core import PartitaError, TiledStream

SIZES = [(2048, 512), (2048, 1024), (24, 6), (32, 4)]
LAWS = ["polar", "component"]


def transform(n_fft=24, hop=6, companding="polar", scale=0.34, exponent=0.65, tilt=0.0):
    return CompandedSTFT(n_fft=n_fft, hop=hop, companding=companding, scale=scale, exponent=exponent, tilt=tilt)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("companding", LAWS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("frames, tilt", [(1, 0.0), (2, 6.0), (9, 0.0)])
def test_inverse_is_exact_to_the_ends(sizes, companding, frames, tilt):
    """White noise has as much energy at the Nyquist bin as anywhere."""
    stft = transform(*sizes, companding, tilt=tilt)
    audio = 0.1 * noise(2, 2, frames * stft.hop)
    x = stft(audio)
    assert x.shape == (2, 4, sizes[0] // 2, frames)
    torch.testing.assert_close(stft.inverse(x), audio, rtol=0, atol=1e-12)
    in_float32 = stft.inverse(stft(audio.float()))
    assert in_float32.dtype == torch.float32
    torch.testing.assert_close(in_float32.double(), audio, rtol=0, atol=1e-6)


def test_a_tilt_raises_high_frequencies_by_so_many_decibels_an_octave():
    """Far above the corner, at 1/64 of the highest frequency; below it hardly anything changes."""
    audio = noise(1, 1, 2048 * 4)
    settings = {"scale": 1.0, "exponent": 1.0}
    plain, tilted = (transform(2048, 512, **settings, tilt=tilt)(audio) for tilt in (0.0, 6.0))
    gain = 20 * (tilted / plain)[0, 0].abs().mean(-1).log10()
    assert gain[1] < 0.1
    torch.testing.assert_close(gain[512] - gain[256], torch.tensor(6.0).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(gain[16], torch.tensor(3.0).double(), rtol=0, atol=0.01)


def test_frames_are_those_of_a_padded_fourier_transform():
    stft = transform(exponent=1.0, scale=1.0)
    audio = noise(1, 2, 48)
    window = torch.hann_window(24, dtype=torch.float64)
    padded = torch.nn.functional.pad(audio, (9, 9))
    for frame in range(8):
        spectrum = torch.fft.rfft(window * padded[0, :, 6 * frame : 6 * frame + 24])
        x = stft(audio)[0, :, :, frame]
        torch.testing.assert_close(x[0::2, 1:], spectrum.real[:, 1:12])
        torch.testing.assert_close(x[1::2, 1:], spectrum.imag[:, 1:12])
        torch.testing.assert_close(x[0::2, 0], spectrum.real[:, 0])
        torch.testing.assert_close(x[1::2, 0], spectrum.real[:, 12])  # where bin 0 has nothing to say


def test_polar_companding_keeps_phases_and_takes_the_power_of_magnitudes():
    plain, companded = transform(exponent=1.0, scale=1.0), transform()
    audio = noise(1, 1, 60)
    before, after = (torch.complex(*stft(audio)[0]) for stft in (plain, companded))
    torch.testing.assert_close(after.abs(), 0.34 * before.abs() ** 0.65)
    torch.testing.assert_close(after.angle(), before.angle())


def test_component_companding_takes_the_power_of_parts():
    plain, companded = transform(exponent=1.0, scale=1.0), transform(companding="component")
    audio = noise(1, 1, 60)
    before, after = plain(audio), companded(audio)
    torch.testing.assert_close(after, 0.34 * before.sign() * before.abs() ** 0.65)


@pytest.mark.parametrize("companding", LAWS)
@pytest.mark.parametrize("loudness", [1e-9, 1e-6, 1e-5, 1e-4, 1.0])
def test_quiet_audio_comes_back(companding, loudness):
    """Around and below the magnitude from which on companding is linear."""
    stft = transform(companding=companding)
    audio = loudness * noise(1, 1, 60)
    torch.testing.assert_close(stft.inverse(stft(audio)), audio, rtol=1e-9, atol=1e-12 * loudness)


@pytest.mark.parametrize("companding", LAWS)
def test_slope_at_silence_is_bounded(companding):
    audio = torch.zeros(1, 1, 60, requires_grad=True)
    stft = transform(companding=companding)
    stft(audio).sum().backward()
    assert audio.grad.isfinite().all() and 0 < audio.grad.abs().max() < 24 * 0.34 * 1e-8 ** (-0.35 / 2)


@pytest.mark.parametrize("sizes, reach", [((2048, 512), 2), ((2048, 1024), 1), ((24, 6), 2), ((32, 4), 4)])
def test_context_is_what_the_inverse_sees(sizes, reach):
    stft = transform(*sizes)
    assert stft.context == (reach, reach)
    x = noise(1, 2, stft.bins, 2 * reach + 9)
    middle = reach + 4
    changed = x.clone()
    changed[..., middle] += 1
    difference = (stft.inverse(changed) - stft.inverse(x)).abs().unflatten(-1, (-1, stft.hop)).amax((0, 1, 3))
    felt = (difference > 1e-12).nonzero().flatten()
    assert felt.min() == middle - reach and felt.max() == middle + reach


@pytest.mark.parametrize("sizes", SIZES)
def test_tiles_equal_the_whole_to_the_ends(sizes):
    stft = transform(*sizes)
    x = noise(1, 2, stft.bins, 13)
    whole = stft.inverse(x)
    for width in (1, 4):
        tiles = TiledStream(
            stft.inverse, units_in=1, units_out=stft.hop, context=stft.context, hop=stft.hop, width=width
        )
        parts = [tiles.push(piece, last=i == 2) for i, piece in enumerate(x.split([5, 0, 8], dim=-1))]
        torch.testing.assert_close(torch.cat(parts, dim=-1), whole, rtol=0, atol=1e-12)


def test_half_types_are_lifted():
    stft = transform()
    audio = (0.1 * noise(1, 1, 60)).bfloat16()
    x = stft(audio)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, stft(audio.float()))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(stft(audio.float()), x, rtol=0, atol=0)


def test_spread_of_music_like_noise():
    """With the published constants and audio at -20 dB the standard deviation is near 0.5, which sigma_data expects."""
    x = transform(2048, 512)(0.1 * noise(1, 1, 20 * 512))
    assert 0.3 < x.std() < 0.6


@pytest.mark.parametrize("sizes", [(24, 14), (24, 5), (25, 6), (24, 0)])
def test_sizes_without_overlap_are_refused(sizes):
    with pytest.raises(PartitaError, match=f"n_fft is {sizes[0]} and its hop {sizes[1]}"):
        transform(*sizes)


@pytest.mark.parametrize("law", [(0.0, 0.65), (0.34, 0.0), (0.34, 1.5), (0.34, math.nan)])
def test_laws_without_an_inverse_are_refused(law):
    with pytest.raises(PartitaError, match="companding with scale"):
        transform(scale=law[0], exponent=law[1])
