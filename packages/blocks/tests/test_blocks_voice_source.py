"""Pulses, white noise and envelopes of the source-filter decoder."""

import math

import torch
from partita_blocks import EnvelopeNodes, PitchScale, PulseTrain, white_noise

RATE, HOP = 16_000, 320
SCALE = PitchScale()


def pulses(position: torch.Tensor) -> torch.Tensor:
    train = PulseTrain(RATE, HOP, SCALE)
    start = torch.zeros(len(position), 1, dtype=torch.float64)
    return train(position, train.phases(position, position[:, :1], start))


def test_pulses_are_harmonics_of_unit_power_in_phase():
    position = SCALE.position(torch.full((1, 50), 200.0, dtype=torch.float64))
    audio = pulses(position)[0]
    assert abs(float(audio.square().mean()) - 1) < 1e-6
    spectrum = torch.fft.rfft(audio).abs() / len(audio)
    harmonics = spectrum[200::200]  # one second, so that a bin is a Hz
    assert harmonics[0] > 0.1
    torch.testing.assert_close(harmonics[:38] / harmonics[0], torch.ones(38, dtype=torch.float64))
    # The band ends at 7900 Hz, 39.5 harmonics: the last one within it has half the amplitude.
    torch.testing.assert_close(harmonics[38:] / harmonics[0], torch.tensor([0.5, 0], dtype=torch.float64))
    spectrum[200::200] = 0
    assert spectrum.max() < 1e-6


def test_pulses_are_continuous_where_frames_meet():
    """The phase of a glide is that of a numerical integral of its frequency."""
    position = torch.tensor([[-0.9, -0.2, 0.1, 0.9, 0.85]], dtype=torch.float64)
    train = PulseTrain(RATE, HOP, SCALE)
    phases = train.phases(position, position[:, :1], torch.zeros(1, 1, dtype=torch.float64))[0]
    fine = 1000
    logs = SCALE.frequency(position[0]).log()
    for before in range(4):
        time = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine
        cycles = torch.lerp(logs[before], logs[before + 1], time).exp().mean() * HOP / RATE
        difference = (phases[before + 1] - phases[before] - cycles) % 1
        assert min(difference, 1 - difference) < 1e-5


def test_pulses_do_not_depend_on_where_a_tile_starts():
    position = 0.8 * torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    train = PulseTrain(RATE, HOP, SCALE)
    phases = train.phases(position, position[:, :1], torch.zeros(2, 1, dtype=torch.float64))
    whole = train(position, phases).unflatten(1, (12, HOP))
    tile = train(position[:, 3:9], phases[:, 3:9]).unflatten(1, (6, HOP))
    torch.testing.assert_close(tile[:, 1:-1], whole[:, 4:8], atol=1e-9, rtol=0)


def test_pulses_change_smoothly_with_the_number_of_harmonics():
    """A harmonic that leaves the band fades out."""
    limit = 0.9875 * RATE / 2
    around = [
        pulses(SCALE.position(torch.full((1, 1), limit / (30 + side), dtype=torch.float64))) for side in (-1e-6, 1e-6)
    ]
    torch.testing.assert_close(around[0], around[1], atol=1e-3, rtol=0)


def test_white_noise_is_white_uniform_and_a_function_of_the_position():
    index = torch.arange(1 << 16)
    noise = white_noise(index, torch.float64)
    assert torch.equal(white_noise(index[1000:2000], torch.float64), noise[1000:2000])
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.square().mean()) - 1) < 0.02
    assert float(noise.abs().max()) <= math.sqrt(3)
    lags = torch.fft.irfft(torch.fft.rfft(noise).abs().square())[1 : 1 << 15] / len(noise)
    assert float(lags.abs().max()) < 6 / math.sqrt(len(noise))  # 6 standard deviations


def test_white_noise_is_the_same_everywhere():
    """Integers are exact, so these values hold on every machine."""
    hashes = (white_noise(torch.tensor([0, 1, 2, 2**32 + 1]), torch.float64) / math.sqrt(3) + 1) * 2**31 - 0.5
    rounds = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))

    def reference(x: int) -> int:
        for shift, factor in rounds:
            x = ((x ^ (x >> shift)) * factor) % 2**32
        return x ^ (x >> 14)

    assert hashes.round().long().tolist() == [reference(i) for i in (0, 1, 2, 1)]


def test_envelope_passes_through_its_ends_and_between_its_nodes():
    logs = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bins = EnvelopeNodes(RATE, 512, 20)(logs)
    torch.testing.assert_close(bins[:, 0], logs[:, 0])
    torch.testing.assert_close(bins[:, -1], logs[:, -1])
    assert (bins <= logs.amax(1, keepdim=True) + 1e-9).all() and (bins >= logs.amin(1, keepdim=True) - 1e-9).all()


def test_envelope_of_one_pole_has_its_phase():
    """A filter with a pole within the unit circle has minimum phase."""
    n_fft, pole = 512, 0.7
    envelope = EnvelopeNodes(RATE, n_fft, 200)
    turns = torch.arange(n_fft // 2 + 1, dtype=torch.float64) / n_fft
    response = 1 / (1 - pole * torch.polar(torch.ones_like(turns), -2 * math.pi * turns))
    angles = 2 * math.pi * envelope.frequencies / RATE
    logs = -(1 - 2 * pole * angles.cos() + pole**2).log() / 2
    torch.testing.assert_close(envelope(logs[None])[0], response.abs().log(), atol=2e-3, rtol=0)
    torch.testing.assert_close(envelope.phase(logs[None])[0], response.angle(), atol=5e-3, rtol=0)
