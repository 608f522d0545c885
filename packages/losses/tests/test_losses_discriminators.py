"""Discriminators against their papers: shapes, inputs, parameter counts, and that each of them can be trained."""

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError, components
from partita_losses import (
    ComplexSTFTDiscriminators,
    LatentDiscriminator,
    MultiBandSTFTDiscriminators,
    MultiPeriodDiscriminators,
    MultiScaleDiscriminators,
    hinge_discriminator_loss,
    hinge_generator_loss,
)

STEREO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))
TINY = {
    "complex_stft": lambda channels: ComplexSTFTDiscriminators(channels, n_ffts=(256, 128), hops=(67, 37), channels=4),
    "multi_band_stft": lambda channels: MultiBandSTFTDiscriminators(channels, n_ffts=(256, 128), channels=4),
    "multi_period": lambda channels: MultiPeriodDiscriminators(channels, channels=2),
    "multi_scale": lambda channels: MultiScaleDiscriminators(channels, channels=4),
}
every = pytest.mark.parametrize("name", TINY)


def tiny(name, channels=2):
    torch.manual_seed(0)
    return TINY[name](channels)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs_of(layer, run):
    """Input of `layer` while `run` runs."""
    seen = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    run()
    handle.remove()
    return seen[0]


def test_complex_stft_shapes():
    results = tiny("complex_stft")(noise(3, 2, 1000))
    assert len(results) == 2
    for result, n_fft, hop in zip(results, (256, 128), (67, 37)):
        frames, bins = 1 + 1000 // hop, n_fft // 2 + 1
        widths = [bins, -(-bins // 2), -(-bins // 4), -(-bins // 8), -(-bins // 8)]
        assert [tuple(f.shape) for f in result.features] == [(3, 4, frames, width) for width in widths]
        assert result.logits.shape == (3, 1, frames, widths[-1])


def test_multi_band_stft_shapes():
    results = tiny("multi_band_stft")(noise(3, 2, 1000))
    assert len(results) == 2
    for result, n_fft in zip(results, (256, 128)):
        bins, frames = n_fft // 2 + 1, 1 + 1000 // (n_fft // 4)
        ends = [0, *(int(split * bins) for split in (0.1, 0.25, 0.5, 0.75)), bins]
        widths = [b - a for a, b in zip(ends, ends[1:])]
        assert len(result.features) == 5 * 5
        assert [f.shape[-1] for f in result.features[::5]] == widths
        assert all(f.shape[:3] == (3, 4, frames) for f in result.features)
        assert result.logits.shape == (3, 1, frames, sum(-(-width // 8) for width in widths))


def test_multi_period_shapes():
    results = tiny("multi_period")(noise(3, 2, 1000))
    for result, period in zip(results, (2, 3, 5, 7, 11), strict=True):
        rows = [-(-1000 // period)]
        for stride in (3, 3, 3, 3, 1):
            rows.append(-(-rows[-1] // stride))
        shapes = [(3, 2 * ratio, count, period) for ratio, count in zip((1, 4, 16, 32, 32), rows[1:])]
        assert [tuple(f.shape) for f in result.features] == shapes
        assert result.logits.shape == (3, 1, rows[-1], period)


def test_multi_scale_shapes():
    results = tiny("multi_scale")(noise(3, 2, 1000))
    assert len(results) == 3
    for i, result in enumerate(results):
        length = 1000
        for _ in range(i):
            length = length // 2 + 1
        lengths = [length]
        for stride in (1, 2, 2, 4, 4, 1, 1):
            lengths.append(-(-lengths[-1] // stride))
        shapes = [(3, 4 * ratio, count) for ratio, count in zip((1, 1, 2, 4, 8, 8, 8), lengths[1:])]
        assert [tuple(f.shape) for f in result.features] == shapes
        assert result.logits.shape == (3, 1, lengths[-1])


def test_layers_have_the_sizes_of_the_papers():
    """Parameters without the weight norm's gains: HiFi-GAN's 41.1 M (MPD) and 29.6 M (MSD) for mono audio."""

    def count(module):
        return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("original0"))

    with torch.device("meta"):
        period, scale = MultiPeriodDiscriminators(), MultiScaleDiscriminators()
        band, stft = MultiBandSTFTDiscriminators(), ComplexSTFTDiscriminators()
    widths = [1, 32, 128, 512, 1024, 1024]
    assert count(period) == 5 * (sum(5 * a * b + b for a, b in zip(widths, widths[1:])) + 3 * 1024 + 1)
    convs = [(1, 128, 15, 1), (128, 128, 41, 4), (128, 256, 41, 16), (256, 512, 41, 16)]
    convs += [(512, 1024, 41, 16), (1024, 1024, 41, 16), (1024, 1024, 5, 1), (1024, 1, 3, 1)]
    assert count(scale) == 3 * sum(k * a // groups * b + b for a, b, k, groups in convs)
    band_layers = (2 * 27 * 32 + 32) + 3 * (32 * 27 * 32 + 32) + (32 * 9 * 32 + 32)
    assert count(band) == 3 * (5 * band_layers + 32 * 9 + 1)
    layers = (2 * 27 * 64 + 64) + 3 * (64 * 27 * 64 + 64) + (64 * 9 * 64 + 64) + (64 * 9 + 1)
    assert count(stft) == 5 * layers


def test_multi_period_compares_samples_that_are_a_period_apart():
    """A change of one sample changes the logits of its column only."""
    module, audio = tiny("multi_period").double(), noise(1, 2, 1000).double()
    changed = audio.clone()
    changed[..., 503] += 1
    for one, other, period in zip(module(audio), module(changed), (2, 3, 5, 7, 11)):
        columns = (one.logits != other.logits).any(dim=2).flatten().nonzero().flatten().tolist()
        assert columns == [503 % period]


def test_multi_band_stft_has_separate_convolutions_per_band():
    """A tone in the lowest band changes no feature of the highest."""
    module = tiny("multi_band_stft", channels=1).double()
    audio = noise(1, 1, 4000).double()
    changed = audio + torch.sin(torch.arange(4000, dtype=torch.float64) * torch.pi * 0.03)
    one, other = module(audio)[0].features, module(changed)[0].features
    off = [float((a - b).detach()[:, :, 4:-4].abs().max()) for a, b in zip(one, other)]
    assert off[0] > 0.1 and max(off[20:]) < 1e-3 * off[0]


def test_multi_scale_halves_the_sample_rate():
    module = tiny("multi_scale", channels=1)
    audio = noise(1, 1, 64)
    given = inputs_of(module.scales[1].hidden[0], lambda: module(audio))
    expected = audio[0, 0, :].unfold(0, 4, 2).mean(1)
    torch.testing.assert_close(given[0, 0, 1:-1], expected)


@pytest.mark.parametrize("name", ["complex_stft", "multi_band_stft"])
def test_white_noise_has_unit_variance_per_bin(name):
    module = tiny(name)
    scale = module.scales[0]
    layers = [scale.hidden[0]] if name == "complex_stft" else [band[0] for band in scale.bands]
    seen = [inputs_of(layer, lambda: module(noise(4, 2, 20_000))) for layer in layers]
    assert all(x.shape[1] == 4 for x in seen)  # real and imaginary parts of two channels
    total = torch.cat(seen, dim=-1)[..., 1:-1].square().sum(1).mean() / 2
    assert total.item() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("name", ["complex_stft", "multi_band_stft"])
@pytest.mark.parametrize("autocast", [False, True])
def test_spectra_are_float32_in_half_precision(name, autocast):
    """A tone 100 dB below another one is lost in a bfloat16 transform, and is there in a float32 one."""
    module = tiny(name, channels=1)
    time = torch.arange(8192) / 8192
    audio = (torch.sin(2 * torch.pi * 512 * time) + 1e-4 * torch.sin(2 * torch.pi * 3000 * time))[None, None]
    spectrum = module.scales[0].spectrum
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        given = (spectrum if autocast else spectrum.bfloat16())(audio)
    assert given.dtype == torch.float32
    power = given[0, :, given.shape[2] // 2].square().sum(0)
    line, floor = power[round(3000 / 4096 * (len(power) - 1))], power[round(2000 / 4096 * (len(power) - 1))]
    assert line > 100 * floor


@pytest.mark.parametrize("name, frames", [("complex_stft", 10), ("multi_band_stft", 6)])
def test_context_of_stft_discriminators(name, frames):
    """One frame changes the logits of 10 frames to either side (dilations 1, 2 and 4), or of 6 (kernels of 3)."""
    module = tiny(name).double()
    scale = module.scales[0]
    spectrum = noise(1, 4, 41, 129).double()
    changed = spectrum.clone()
    changed[:, :, 20] += 1
    logits = []
    for x in (spectrum, changed):
        scale.spectrum.forward = lambda audio, x=x: x
        logits.append(scale(x).logits)
    seen = (logits[0] != logits[1]).any(dim=3).flatten().nonzero().flatten().tolist()
    assert seen == list(range(20 - frames, 20 + frames + 1))


@pytest.mark.parametrize(
    "name, slope", [("complex_stft", 0.2), ("multi_band_stft", 0.1), ("multi_period", 0.1), ("multi_scale", 0.1)]
)
def test_features_are_leaky_outputs_of_the_layers(name, slope):
    module, outputs = tiny(name), []
    layers = [layer for layer in module.modules() if isinstance(layer, (torch.nn.Conv1d, torch.nn.Conv2d))]
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    results = module(noise(1, 2, 600))
    expected = [torch.where(y > 0, y, slope * y) for y in outputs if y.shape[1] > 1]
    features = [feature for result in results for feature in result.features]
    assert all(torch.equal(a, b) for a, b in zip(expected, features, strict=True))


@every
def test_sign_and_order_of_channels_matter(name):
    """All channels are one input: another phase or an exchange of left and right changes the logits."""
    module, audio = tiny(name), noise(1, 2, 1000)
    for other in (-audio, audio.flip(1)):
        assert not torch.allclose(module(audio)[0].logits, module(other)[0].logits)


@every
def test_training_separates_noise_from_a_tone(name):
    module = tiny(name)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    tone = torch.sin(torch.arange(1000) * 0.1).expand(2, 2, -1)
    for step in range(15):
        fake = 0.7 * noise(2, 2, 1000, seed=step)
        loss = hinge_discriminator_loss(module(tone), module(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.2  # from 2
    fake.requires_grad_()
    (gradient,) = torch.autograd.grad(hinge_generator_loss(module(fake)), fake)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@every
def test_channels_follow_the_audio(name):
    module = components("discriminator/*")[f"discriminator/{name}"].example().build(audio_spec=STEREO)
    assert len(module(noise(1, 2, 600))) > 0
    with pytest.raises(RuntimeError):
        module(noise(1, 1, 600))


@pytest.mark.parametrize(
    "make, numbers",
    [
        (lambda: ComplexSTFTDiscriminators(n_ffts=(64, 32), hops=(16,)), "2 .*1"),
        (lambda: MultiBandSTFTDiscriminators(n_ffts=(32,), band_splits=(0.5, 0.51)), "17 .*0"),
        (lambda: MultiBandSTFTDiscriminators(n_ffts=(32,), band_splits=(0.5, 0.25)), "-4"),
        (lambda: MultiBandSTFTDiscriminators(n_ffts=()), "n_ffts"),
        (lambda: MultiPeriodDiscriminators(periods=()), "periods"),
        (lambda: LatentDiscriminator(4, kernel=4), "4"),
    ],
)
def test_invalid_settings(make, numbers):
    with pytest.raises(PartitaError, match=numbers):
        make()
