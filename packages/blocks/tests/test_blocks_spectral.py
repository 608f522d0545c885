import math

import pytest
import torch
from partita_blocks import CompandedSTFT
from partita_blocks.spectral import STFT, LogMel, a_weighting, mel_filterbank, overlap_add, reflect_pad
from partita_core import PartitaError


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def transform(n_fft=64, win_length=61, hop=17, padding="center", nyquist=True):
    return STFT(n_fft=n_fft, win_length=win_length, hop=hop, padding=padding, nyquist=nyquist)


@pytest.mark.parametrize("sizes", [(64, 61, 17), (64, 64, 16), (63, 63, 21), (32, 31, 11)])
def test_stft_equals_torch_stft(sizes):
    audio = noise(2, 3, 500)
    n_fft, win_length, hop = sizes
    window = torch.hann_window(win_length, dtype=torch.float64)
    expected = torch.stft(audio.flatten(0, 1), n_fft, hop, win_length, window, return_complex=True)
    measured = transform(n_fft, win_length, hop)(audio)
    assert measured.shape == (2, 3, n_fft // 2 + 1, 1 + 500 // hop)
    torch.testing.assert_close(measured.flatten(0, 1), expected, rtol=1e-10, atol=1e-10)
    if win_length == n_fft:
        assert torch.equal(STFT(n_fft=n_fft, hop=hop)(audio), measured)


@pytest.mark.parametrize("samples", [1, 2, 3, 40, 63, 64, 500])
def test_reflect_pad_of_any_length(samples):
    audio = noise(1, samples)
    padded = reflect_pad(audio, 40, 30)
    assert padded.shape == (1, samples + 70)
    for position in (
        0,
        17,
        39,
        samples + 45,
        samples + 69,
    ):  # by walking from the first sample and turning at both ends
        at, step = 0, 1 if position >= 40 else -1
        for _ in range(abs(position - 40)):
            if not 0 <= at + step < samples:
                step = -step
            at = at + step if samples > 1 else 0
        assert padded[0, position] == audio[0, at]
    assert transform()(audio).isfinite().all()


@pytest.mark.parametrize("padding, frames", [("center", 31), ("same", 30), ("none", 27)])
def test_frame_counts(padding, frames):
    assert transform(64, 64, 16, padding)(noise(480)).shape == (33, frames)


def test_same_padding_centers_frames_on_blocks():
    audio = torch.zeros(160)
    audio[16 * 3 + 8] = 1  # the middle of block 3
    energy = transform(64, 64, 16, "same")(audio).abs().square().sum(0)
    assert energy.argmax() == 3
    torch.testing.assert_close(energy[2], energy[4])


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("n_fft, win_length, hop", [(64, 64, 16), (64, 64, 32), (64, 48, 16), (960, 960, 480)])
def test_inverse_is_exact(padding, n_fft, win_length, hop):
    audio = noise(2, 2, 4 * 960)
    stft = transform(n_fft, win_length, hop, padding)
    torch.testing.assert_close(stft.inverse(stft(audio), audio.shape[-1]), audio, rtol=0, atol=1e-9)


def test_inverse_without_nyquist_is_exact_below_it():
    time = torch.arange(640, dtype=torch.float64)
    low = torch.sin(time * 0.3) + torch.cos(time * 1.1)
    full, dropped = transform(64, 64, 16), transform(64, 64, 16, nyquist=False)
    assert dropped(low).shape == (32, 41)
    torch.testing.assert_close(dropped(low), full(low)[:32])
    inside = slice(64, -64)  # the reflected ends have energy at all frequencies
    error = (dropped.inverse(dropped(low), 640) - low)[inside].abs().max()
    alternating = (-1.0) ** time
    lost = (dropped.inverse(dropped(alternating), 640) - alternating)[inside].abs().max()
    assert error < 1e-4 and lost > 0.3


@pytest.mark.parametrize("samples", [5, 40, 333])
@pytest.mark.parametrize("sizes", [(64, 61, 17, "center"), (63, 63, 20, "same"), (32, 31, 3, "center")])
def test_adjoint_equals_autograd(samples, sizes):
    n_fft, win_length, hop, padding = sizes
    stft = transform(n_fft, win_length, hop, padding)
    audio = noise(2, max(samples, hop)).requires_grad_()
    spectrum = stft(audio)
    gradient = torch.complex(noise(*spectrum.shape, seed=1), noise(*spectrum.shape, seed=2))
    (expected,) = torch.autograd.grad(spectrum, audio, gradient)
    torch.testing.assert_close(stft.adjoint(gradient, audio.shape[-1]), expected, rtol=1e-9, atol=1e-9)


def test_adjoint_without_nyquist_equals_autograd():
    stft = transform(64, 64, 16, "same", nyquist=False)
    audio = noise(1, 160).requires_grad_()
    gradient = torch.complex(noise(1, 32, 10, seed=1), noise(1, 32, 10, seed=2))
    (expected,) = torch.autograd.grad(stft(audio), audio, gradient)
    torch.testing.assert_close(stft.adjoint(gradient, 160), expected, rtol=1e-9, atol=1e-9)


def test_overlap_add():
    frames = noise(3, 7)
    expected = torch.zeros(13, dtype=torch.float64)
    for frame in range(3):
        expected[3 * frame : 3 * frame + 7] += frames[frame]
    torch.testing.assert_close(overlap_add(frames, 3), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    audio = noise(200, dtype=dtype)
    torch.testing.assert_close(transform().to(dtype)(audio), transform()(audio.float()))


def test_invalid_sizes_raise():
    with pytest.raises(PartitaError, match="hop is 70, win_length is 61 and n_fft is 64"):
        transform(hop=70)
    with pytest.raises(PartitaError, match="n_fft is 63"):
        transform(63, 63, 21, nyquist=False)


def test_mel_bands_have_unit_area_and_slaney_spacing():
    bank = mel_filterbank(sample_rate=16_000, n_fft=16_000, num_mels=40, f_min=0, f_max=8000)
    torch.testing.assert_close(bank.sum(0), torch.ones(40, dtype=torch.float64), rtol=1e-3, atol=0)
    peaks = bank.argmax(0).double()
    top_mel = 15 + 27 * math.log(8) / math.log(6.4)
    linear = [(k + 1) * top_mel / 41 * 200 / 3 for k in range(10)]
    torch.testing.assert_close(peaks[:10], torch.tensor(linear, dtype=torch.float64), rtol=0, atol=0.51)
    ratios = peaks[-8:] / peaks[-9:-1]
    expected = math.exp(math.log(6.4) / 27 * top_mel / 41)
    torch.testing.assert_close(ratios, torch.full_like(ratios, expected), rtol=1e-3, atol=0)
    with pytest.raises(PartitaError, match="9000 Hz.* 8000.0 Hz"):
        mel_filterbank(sample_rate=16_000, n_fft=512, num_mels=40, f_min=0, f_max=9000)


def test_a_weighting_matches_the_standard():
    gains = a_weighting(torch.tensor([0.0, 31.62, 100, 1000, 1995, 10_000]))
    decibels = 20 * gains[1:].log10()
    expected = torch.tensor([-39.4, -19.1, 0.0, 1.2, -2.5], dtype=torch.float64)
    assert gains[0] == 0
    torch.testing.assert_close(decibels, expected, rtol=0, atol=0.1)


def log_mel():
    return LogMel(sample_rate=16_000, n_fft=512, hop=128, num_mels=32, padding="same")


def test_log_mel_of_a_tone_and_of_silence():
    mel = log_mel()
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)
    features = mel(tone.expand(2, -1))
    assert features.shape == (2, 32, 125)
    band = int(features[0, :, 60].argmax())
    assert mel.filterbank.exact[32, band] == mel.filterbank.exact[32].max()  # bin 32 is 1 kHz
    silence = torch.zeros(1280, requires_grad=True)
    features = mel(silence)
    torch.testing.assert_close(features, torch.full_like(features, math.log(1e-5)))
    (gradient,) = torch.autograd.grad(features.sum(), silence)
    assert (gradient == 0).all()


def test_log_mel_is_unaffected_by_autocast():
    mel, audio = log_mel(), noise(1, 1280, dtype=torch.float32)
    plain = mel(audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(audio), plain)


@pytest.mark.slow
def test_spectra_export_with_dynamic_batch_and_length():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mel, self.stft = log_mel(), transform(64, 64, 16)

        def forward(self, audio):
            return self.mel(audio), self.stft.inverse(self.stft(audio), audio.shape[-1])

    sizes = {0: torch.export.Dim("batch", max=64), 2: 128 * torch.export.Dim("frames", min=2, max=4096)}
    exported = torch.export.export(Both(), (noise(2, 2, 1280, dtype=torch.float32),), dynamic_shapes=(sizes,))
    audio = noise(3, 2, 2560, dtype=torch.float32)
    for measured, expected in zip(exported.module()(audio), Both()(audio)):
        torch.testing.assert_close(measured, expected)


def companded():
    return CompandedSTFT(n_fft=24, hop=6, companding="polar", scale=0.3, exponent=0.6, tilt=3.0)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (log_mel, torch.randn(2, 1280)),
        (companded, torch.randn(1, 1, 60)),
    ],
)
def test_modules_built_on_the_meta_device_work(make, given):
    with torch.device("meta"):
        shell = make()
    shell = shell.to_empty(device="cpu")
    assert not list(shell.buffers())  # the loader would leave them uninitialized
    assert torch.equal(shell(given), make()(given))
