"""Source-filter decoder: sources, streams, likelihood."""

import math
from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, LatentSpec, PartitaError
from partita_decoders import SourceFilterDecoderConfig
from torch import nn

MONO = AudioSpec(16_000, 1, (ChannelLayout.MONO,))
PAIRS = AudioSpec(16_000, 2, tuple(ChannelLayout))
CONFIG = SourceFilterDecoderConfig(width=16, inner=16, blocks=1, nodes=16)
HOP = 320


def decoder(config=CONFIG, audio=MONO, dim=5):
    torch.manual_seed(0)
    spec = LatentSpec(dim, audio.sample_rate, HOP, 1, True)
    return config.build(latent_spec=spec, audio_spec=audio).to(torch.float64).eval().requires_grad_(False)


def latents(batch=1, frames=50, frequency=160.0):
    hidden = torch.randn(batch, 5, frames, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    hidden[:, 0] = math.log(frequency / math.sqrt(60 * 400)) / (math.log(400 / 60) / 2)
    return hidden


def envelope_of(part, pulses: float, noise: float):
    """Set the network to constant log amplitudes."""
    head = part.network.head
    nn.init.zeros_(head.weight)
    typical = part._typical.exact[:, 0].to(torch.float64)
    wanted = torch.stack([torch.full_like(typical[0], pulses), torch.full_like(typical[1], noise)])
    bias = ((wanted - typical) / 1.5)[None, :, None].expand(part.steps, -1, part.audio_spec.channels, -1)
    with torch.no_grad():
        head.bias.copy_(bias.flatten())


def test_source_filter_frequency_is_that_of_the_first_channel():
    part = decoder()
    envelope_of(part, 0.0, -14.0)
    layout = torch.zeros(1, dtype=torch.int64)
    audio = part(latents(frequency=160.0), layout)[0, 0]
    spectrum = torch.fft.rfft(audio).abs()  # one second, so that a bin is a Hz
    harmonics = spectrum[160::160]
    assert harmonics.square().sum() > 0.98 * spectrum.square().sum()
    assert float(audio.square().mean()) == pytest.approx(1, rel=0.05)


def test_source_filter_noise_has_the_level_of_its_envelope_and_is_not_periodic():
    part = decoder()
    envelope_of(part, -14.0, math.log(0.1))
    layout = torch.zeros(1, dtype=torch.int64)
    audio = part(latents(), layout)[0, 0]
    assert float(audio.std()) == pytest.approx(0.1, rel=0.1)
    repeated = (audio[:-HOP] * audio[HOP:]).mean() / audio.square().mean()
    assert abs(float(repeated)) < 0.05


def test_source_filter_stream_continues_the_phase():
    part = decoder()
    layout = torch.zeros(2, dtype=torch.int64)
    hidden = latents(batch=2, frames=30)
    hidden[:, 0] += 0.3 * torch.linspace(-1, 1, 30)
    whole = part(hidden, layout)
    stream = part.stream(layout, dtype=torch.float64)
    pieces = [stream.push(piece, last=i == 3) for i, piece in enumerate(hidden.split([1, 0, 17, 12], dim=-1))]
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, atol=1e-9, rtol=0)
    assert stream.latency == part.context[1] * HOP
    # The same latents later in a recording begin at another phase and in other noise.
    later = part(hidden.repeat(1, 1, 2), layout)[..., 30 * HOP :]
    inner = slice(5 * HOP, -5 * HOP)
    assert float((later - whole)[..., inner].std()) > 0.3 * float(whole[..., inner].std())


def test_source_filter_training_starts_anywhere():
    part = decoder().train()
    layout = torch.zeros(2, dtype=torch.int64)
    hidden = latents().expand(2, -1, -1)
    torch.manual_seed(3)
    first = part(hidden, layout)
    assert not torch.allclose(first[0], first[1])
    torch.manual_seed(3)
    assert torch.equal(part(hidden, layout), first)


def test_source_filter_likelihood_is_least_at_the_true_level():
    part = decoder(replace(CONFIG, likelihood_weight=1.0))
    layout = torch.zeros(1, dtype=torch.int64)
    hidden = latents(frames=100)
    target = 0.05 * torch.randn(1, 1, 100 * HOP, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = []
    for level in (0.025, 0.05, 0.1):
        envelope_of(part, -14.0, math.log(level))
        values.append(float(part.losses(hidden, layout, target)["likelihood"]))
    assert values[1] < min(values[0], values[2]) - 0.1
    # For exponentially distributed powers of the expected mean, the distance is Euler's constant.
    assert values[1] == pytest.approx(0.577, abs=0.06)


def test_source_filter_likelihood_weighs_harmonics_by_the_pulses():
    """Pulses of the true frequency explain a voice better than those of another one."""
    part = decoder()
    layout = torch.zeros(1, dtype=torch.int64)
    envelope_of(part, math.log(0.05), -9.0)
    target = part(latents(frequency=210.0), layout)
    envelope_of(part, math.log(0.05), -5.0)
    losses = [float(part.losses(latents(frequency=f), layout, target)["likelihood"]) for f in (210.0, 150.0)]
    assert losses[0] < 0.7 * losses[1]


def test_source_filter_side_is_that_of_the_layout():
    part = decoder(audio=PAIRS)
    hidden = latents(frames=8).expand(3, -1, -1)
    mono, stereo, mid_side = part(hidden, torch.tensor([int(x) for x in PAIRS.layouts])).unbind(0)
    torch.testing.assert_close(mono[0], mono[1])
    torch.testing.assert_close(mono[0], mid_side[0])
    torch.testing.assert_close(stereo, torch.stack([mid_side[0] + mid_side[1], mid_side[0] - mid_side[1]]))
    assert float(mid_side[1].std()) > 0


def test_source_filter_without_likelihood_has_no_loss():
    part = decoder(replace(CONFIG, likelihood_weight=0.0))
    hidden, layout = latents(), torch.zeros(1, dtype=torch.int64)
    assert part.loss_weights == {} and part.losses(hidden, layout, torch.zeros(1, 1, 50 * HOP)) == {}


@pytest.mark.parametrize(
    "config, dim, numbers",
    [
        (CONFIG, 1, "1 channel.* 16 nodes"),
        (replace(CONFIG, steps=3), 5, "320.* 3"),
        (replace(CONFIG, window=0.005), 5, "80.* 80"),
    ],
)
def test_source_filter_sizes_have_to_fit(config, dim, numbers):
    with pytest.raises(PartitaError, match=numbers):
        decoder(config, dim=dim)
