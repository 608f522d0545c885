"""Frame encoder: pitch channel, layouts, settings."""

import math
from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError
from partita_encoders import FrameEncoderConfig

MONO = AudioSpec(16_000, 1, (ChannelLayout.MONO,))
PAIRS = AudioSpec(16_000, 2, tuple(ChannelLayout))
CONFIG = FrameEncoderConfig(width=8, inner=8, blocks=1, pitch=True)


def encoder(config=CONFIG, audio=MONO, out_dim=5):
    torch.manual_seed(0)
    return config.build(out_dim=out_dim, audio_spec=audio).eval()


def voice(frequency: float, samples: int = 40 * 320) -> torch.Tensor:
    phase = 2 * math.pi * frequency * torch.arange(samples) / 16_000
    return 0.1 * sum((h * phase).cos() / h for h in range(1, 16))  # pyright: ignore


def test_frames_first_channel_is_the_pitch():
    hidden = encoder()(voice(150.0)[None, None], torch.zeros(1, dtype=torch.int64)).detach()
    expected = math.log(150 / math.sqrt(60 * 400)) / (math.log(400 / 60) / 2)
    assert float((hidden[0, 0, 3:-3] - expected).abs().max()) < 0.01


def test_frames_pitch_is_that_of_the_mid_channel():
    left, right = voice(150.0), 0.1 * voice(333.0)
    audio = torch.stack([torch.stack([left + right, left - right]), torch.stack([left, right])])
    layout = torch.tensor([int(ChannelLayout.STEREO), int(ChannelLayout.MID_SIDE)])
    stereo, mid_side = encoder(audio=PAIRS)(audio, layout).detach()
    torch.testing.assert_close(stereo, mid_side, atol=1e-4, rtol=0)
    assert float((mid_side[0] - encoder()(left[None, None], layout[:1]).detach()[0, 0]).abs().max()) < 1e-4


def test_frames_pitch_is_not_trained_and_feeds_the_network():
    part = encoder()
    audio = voice(150.0)[None, None].requires_grad_()
    hidden = part(audio, torch.zeros(1, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(hidden[:, 0].sum(), audio, retain_graph=True)
    assert (gradient == 0).all()
    hidden[:, 1:].sum().backward()
    assert part.network.stem.weight.grad[:, -2:].abs().min() > 0


def test_frames_spectra_change_by_the_logarithm_of_the_level():
    part = encoder(replace(CONFIG, pitch=False))
    audio = 0.1 * torch.randn(1, 1, 20 * 320, generator=torch.Generator().manual_seed(0))
    change = part._spectra(10 * audio) - part._spectra(audio)
    assert float(change.median()) == pytest.approx(0.4 * math.log(10), rel=1e-3)
    assert part.context == (2, 2)  # a block, and windows that reach into the next frame


@pytest.mark.parametrize("window", [0.02, 0.024, 0.0275])
def test_frames_windows_are_centered_on_their_steps(window):
    """An impulse between two steps is equally strong in both, and strongest there."""
    part = encoder(replace(CONFIG, pitch=False, window=window))
    steps, step = 2 * 8, 160
    audio = torch.zeros(1, 1, steps * step)
    audio[..., 6 * step] = 1
    spectra = part._spectra(audio).unflatten(2, (2, -1)).flatten(1, 2)[0]
    energy = spectra.double().exp().mean(1).tolist()
    assert energy[5] == pytest.approx(energy[6], rel=1e-3)
    assert energy[5] > 1.1 * max(energy[:5] + energy[7:])


@pytest.mark.parametrize(
    "config, out_dim, numbers",
    [
        (CONFIG, 1, "1 channel"),
        (replace(CONFIG, steps=3), 5, "320.* 3"),
        (replace(CONFIG, window=0.005), 5, "80.* 160"),
    ],
)
def test_frames_sizes_have_to_fit(config, out_dim, numbers):
    with pytest.raises(PartitaError, match=numbers):
        encoder(config, out_dim=out_dim)


def test_frames_with_pitch_cannot_start_at_zero():
    with pytest.raises(PartitaError, match="pitch=false"):
        encoder().start_at_zero()
