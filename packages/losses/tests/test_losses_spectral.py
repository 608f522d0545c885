import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from partita_blocks import STFT, mel_filterbank
from partita_core import AudioSpec, ChannelLayout, PartitaError, build, components, to_dict
from partita_losses import (
    CompandedSTFTLossConfig,
    ComplexSTFTDiscriminatorsConfig,
    LogErrorConfig,
    MultiResolutionSTFTConfig,
    MultiScaleMelConfig,
    RelativeL1Config,
    WaveformL1Config,
)
from partita_losses.spectral import unpadded_frames

MONO = AudioSpec(44_100, 1, (ChannelLayout.MONO,))
STEREO = AudioSpec(44_100, 2, (ChannelLayout.MONO, ChannelLayout.STEREO))
SPECTRAL = [
    MultiResolutionSTFTConfig.example(),
    MultiScaleMelConfig.example(),
    replace(CompandedSTFTLossConfig.example(), random_offset=False),
]
LOSSES = [*SPECTRAL, WaveformL1Config.example(), RelativeL1Config.example(), LogErrorConfig.example()]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def loss_of(config, spec=STEREO, dtype=torch.float64):
    return config.build(audio_spec=spec).to(dtype)


def gradient_of(loss, prediction, target, **options):
    prediction = prediction.clone().requires_grad_()
    return torch.autograd.grad(loss(prediction, target, **options).sum(), prediction)[0]


def plain_stft_distance(prediction, target, n_fft, win_length, hop, gains=1.0, floor=1e-4):
    """Distance of one view of one item, (samples,), from the definition."""
    window = torch.hann_window(win_length, dtype=torch.float64)
    spectra = [torch.stft(x, n_fft, hop, win_length, window, return_complex=True) for x in (prediction, target)]
    p, t = (x.abs().mul(gains) for x in spectra)
    logs = p.clamp_min(floor).log() - t.clamp_min(floor).log()
    return (p - t).norm() / t.norm() + logs.abs().mean()


def test_hops_are_pairwise_coprime():
    hops = [*MultiResolutionSTFTConfig().hops, *ComplexSTFTDiscriminatorsConfig().hops, 3360, 1200]
    pairs = [pair for pair in combinations(hops, 2) if pair != (3360, 1200)]
    assert len(pairs) == 90
    assert [pair for pair in pairs if math.gcd(*pair) != 1] == []


@pytest.mark.parametrize("channels", [1, 2])
def test_stft_loss_matches_its_definition(channels):
    config = MultiResolutionSTFTConfig(n_ffts=(64, 32), win_lengths=(61, 31), hops=(17, 11), a_weighted=False)
    prediction, target = noise(3, channels, 400), noise(3, channels, 400, seed=1)
    measured = loss_of(config, MONO if channels == 1 else STEREO)(prediction, target)
    for item in range(3):
        p, t = prediction[item], target[item]
        views = [(1.0, p[0], t[0])]
        if channels == 2:
            views = [(1, p[0] + p[1], t[0] + t[1]), (1, p[0] - p[1], t[0] - t[1]), (0.5, p[0], t[0]), (0.5, p[1], t[1])]
        expected = sum(
            weight * plain_stft_distance(a, b, *sizes) / 2
            for weight, a, b in views
            for sizes in ((64, 61, 17), (32, 31, 11))
        )
        torch.testing.assert_close(measured[item], expected, rtol=1e-6, atol=0)  # the buffers are float32


def test_a_weighting_scales_the_spectra():
    config = MultiResolutionSTFTConfig(n_ffts=(512,), win_lengths=(509,), hops=(127,), floor=1e-9)
    time = torch.arange(8000, dtype=torch.float64) / 44_100
    low, high = torch.sin(2 * math.pi * 60 * time), torch.sin(2 * math.pi * 3000 * time)
    target = (low + high).view(1, 1, -1)
    weighted, plain = (
        loss_of(config, MONO),
        loss_of(MultiResolutionSTFTConfig(**vars(config) | {"a_weighted": False}), MONO),
    )
    without_low, without_high = high.view(1, 1, -1), low.view(1, 1, -1)
    assert weighted(without_low, target) < plain(without_low, target) - 0.4  # nearly inaudible
    assert weighted(without_high, target) > plain(without_high, target) + 0.2


def test_stft_loss_matches_auraloss():
    auraloss = pytest.importorskip("auraloss")
    config = MultiResolutionSTFTConfig(a_weighted=False)
    peer = auraloss.freq.MultiResolutionSTFTLoss(
        fft_sizes=list(config.n_ffts), hop_sizes=list(config.hops), win_lengths=list(config.win_lengths)
    )
    prediction, target = (noise(1, 1, 8000, seed=seed, dtype=torch.float32) * 0.1 for seed in (0, 1))
    loss = loss_of(config, MONO, torch.float32)
    torch.testing.assert_close(loss(prediction, target)[0], peer(prediction, target), rtol=0, atol=1e-4)
    ours, theirs = (gradient_of(fn, prediction, target) for fn in (loss, lambda p, t: peer(p, t)))
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_mel_loss_matches_its_definition():
    loss = loss_of(MultiScaleMelConfig(num_mels=(5, 100), win_lengths=(32, 256)))  # 100 bands: three groups
    prediction, target = noise(2, 2, 500), noise(2, 2, 500, seed=1)
    expected = torch.zeros(2, dtype=torch.float64)
    for length, num_mels in ((32, 5), (256, 100)):
        window = torch.hann_window(length, dtype=torch.float64)
        bank = mel_filterbank(sample_rate=44_100, n_fft=length, num_mels=num_mels, f_min=0, f_max=22_050)

        def mel(x, length=length, window=window, bank=bank):
            spectrum = torch.stft(x.flatten(0, 1), length, length // 4, window=window, return_complex=True)
            return (spectrum.abs().mT @ bank).clamp_min(1e-5).log10()

        expected += (mel(prediction) - mel(target)).abs().unflatten(0, (2, 2)).mean((1, 2, 3))
    torch.testing.assert_close(loss(prediction, target), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_gradients_match_finite_differences(config, channels):
    if hasattr(config, "floor"):
        config = replace(config, floor=1e-12)  # below it the gradient differs on purpose
    loss = loss_of(config, MONO if channels == 1 else STEREO)
    prediction, target = noise(2, channels, 150), noise(2, channels, 150, seed=1)
    for lengths in (None, torch.tensor([150, 120])):
        gradient = gradient_of(loss, prediction, target, lengths=lengths)
        for seed in (2, 3):
            step = 1e-6 * noise(2, channels, 150, seed=seed)
            there, back = (loss(prediction + sign * step, target, lengths=lengths).sum() for sign in (1, -1))
            torch.testing.assert_close((there - back) / 2, (gradient * step).sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_items_are_independent(config):
    loss = loss_of(config)
    prediction, target = noise(3, 2, 500), noise(3, 2, 500, seed=1)
    together = loss(prediction, target)
    assert together.shape == (3,) and together.dtype == torch.float64
    torch.testing.assert_close(together[1:2], loss(prediction[1:2], target[1:2]), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(target, target), torch.zeros(3, dtype=torch.float64))
    assert (together > 0.1).all()


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_padding_is_excluded(config):
    loss = loss_of(config)
    prediction, target = noise(2, 2, 800), noise(2, 2, 800, seed=1)
    lengths = torch.tensor([800, 500])
    reference = loss(prediction, target, lengths=lengths)
    torch.testing.assert_close(reference[0], loss(prediction, target)[0])
    other = prediction.clone()
    other[1, :, 500:] = noise(2, 300, seed=2) * 100
    torch.testing.assert_close(loss(other, target, lengths=lengths), reference)
    longer = [torch.nn.functional.pad(x[1:], (0, 333)) for x in (prediction, target)]
    torch.testing.assert_close(loss(*longer, lengths=lengths[1:]), reference[1:], rtol=1e-9, atol=0)
    gradient = gradient_of(loss, prediction, target, lengths=lengths)
    assert (gradient[1, :, 500:] == 0).all() and (gradient[1, :, 100:400] != 0).all()
    nothing = loss(prediction, target, lengths=torch.tensor([0, 1]))
    assert nothing.isfinite().all()


@pytest.mark.parametrize("samples", [100, 150, 203])
def test_unpadded_frames_do_not_overlap_padding(samples):
    stft = STFT(n_fft=32, win_length=32, hop=11, padding="center", nyquist=True)
    for length in range(samples):
        audio = torch.zeros(samples)
        audio[length:] = 1
        energy = stft(audio).abs().sum(0)
        frames = int(unpadded_frames(stft, torch.tensor([length]), samples, len(energy)))
        assert frames == 0 or energy[:frames].max() < 1e-6
        assert frames < len(energy)
    assert unpadded_frames(stft, torch.tensor([samples]), samples, 19).tolist() == [19]


@pytest.mark.parametrize("config", SPECTRAL, ids=lambda config: config.tag)
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-12, 1e-6])
def test_gradients_are_finite_near_silence(config, level):
    loss = loss_of(config, dtype=torch.float32)
    quiet, other = noise(1, 2, 400, dtype=torch.float32) * level, noise(1, 2, 400, seed=1, dtype=torch.float32)
    for prediction, target in ((quiet, quiet), (quiet, other), (other, quiet), (quiet, -quiet)):
        assert loss(prediction, target).isfinite().all()
        assert gradient_of(loss, prediction, target).isfinite().all()


@pytest.mark.parametrize("config", SPECTRAL, ids=lambda config: config.tag)
def test_gradient_at_silence_points_to_the_target(config):
    loss = loss_of(config, dtype=torch.float32)
    target = noise(1, 2, 400, seed=1, dtype=torch.float32)
    silence = torch.zeros_like(target)
    gradient = gradient_of(loss, silence, target)
    similarity = torch.nn.functional.cosine_similarity(-gradient.flatten(), target.flatten(), dim=0)
    assert similarity > 0.5
    assert loss(-gradient / gradient.norm(), target) < loss(silence, target)


def test_equal_channels_have_no_difference():
    loss = loss_of(MultiResolutionSTFTConfig.example(), dtype=torch.float32)
    mono = loss_of(MultiResolutionSTFTConfig.example(), MONO, torch.float32)
    prediction, target = (noise(2, 1, 600, seed=seed, dtype=torch.float32) for seed in (0, 1))
    pair = loss(prediction.expand(-1, 2, -1), target.expand(-1, 2, -1))
    # The sum is twice the signal, the difference nothing; left and right, half each, are the signal.
    expected = mono(2 * prediction, 2 * target) + mono(prediction, target)
    torch.testing.assert_close(pair, expected, rtol=1e-5, atol=0)
    gradient = gradient_of(loss, prediction.expand(-1, 2, -1), target.expand(-1, 2, -1))
    assert gradient.isfinite().all() and torch.equal(gradient[:, 0], gradient[:, 1])


def test_gradient_is_bounded_for_nearly_mono_targets():
    loss = loss_of(MultiResolutionSTFTConfig.example())
    target = noise(1, 1, 2000).expand(-1, 2, -1)
    prediction = target + 0.01 * noise(1, 2, 2000, seed=1)
    assert gradient_of(loss, prediction, target).norm() < 100 * gradient_of(loss, noise(1, 2, 2000), target).norm()


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_values_are_at_least_float32(config):
    loss = loss_of(config, dtype=torch.float32)
    prediction, target = noise(1, 2, 500), noise(1, 2, 500, seed=1)
    exact = loss_of(config)(prediction, target)
    torch.testing.assert_close(loss(prediction.float(), target.float()).double(), exact, rtol=1e-5, atol=0)
    half = loss(prediction.bfloat16(), target.bfloat16())
    torch.testing.assert_close(half, loss(prediction.bfloat16().float(), target.bfloat16().float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(prediction.float(), target.float()).double(), exact, rtol=1e-5, atol=0)
    lowered = prediction.bfloat16().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(lowered, target.bfloat16()).sum(), lowered)
    assert gradient.dtype == torch.bfloat16 and gradient.abs().sum() > 0


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_invalid_shapes(config):
    loss = loss_of(config)
    with pytest.raises(PartitaError, match=r"\(2, 2, 500\), target \(2, 2, 499\)"):
        loss(noise(2, 2, 500), noise(2, 2, 499))
    with pytest.raises(PartitaError, match=r"\(2, 500\)"):
        loss(noise(2, 500), noise(2, 500))
    with pytest.raises(PartitaError, match=r"\(3,\) for a batch of 2"):
        loss(noise(2, 2, 500), noise(2, 2, 500), lengths=torch.tensor([1, 2, 3]))


def test_invalid_settings_and_targets():
    with pytest.raises(PartitaError, match="1 channels, the loss 2"):
        loss_of(SPECTRAL[0])(noise(1, 1, 500), noise(1, 1, 500))
    with pytest.raises(PartitaError, match="detach"):
        loss_of(SPECTRAL[0])(noise(1, 2, 500), noise(1, 2, 500).requires_grad_())
    with pytest.raises(PartitaError, match="2 .*1 .*2"):
        loss_of(MultiResolutionSTFTConfig(n_ffts=(64, 32), win_lengths=(64,), hops=(16, 8)))
    with pytest.raises(PartitaError, match="1 .*2"):
        loss_of(MultiScaleMelConfig(num_mels=(5,), win_lengths=(32, 64)))


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_no_gradient_without_grad_mode(config):
    loss = loss_of(config)
    prediction, target = noise(1, 2, 300).requires_grad_(), noise(1, 2, 300, seed=1)
    with torch.no_grad():
        value = loss(prediction, target)
    assert not value.requires_grad
    torch.testing.assert_close(value, loss(prediction, target).detach())
    assert not loss(prediction.detach(), target).requires_grad


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.tag)
def test_losses_are_registered_and_stateless(config):
    assert components("loss/*")[config.tag] is type(config)
    loss = build(to_dict(config), audio_spec=STEREO)
    assert loss.state_dict() == {} and loss.config == config


@pytest.mark.parametrize("layout", [MONO, STEREO])
def test_distance_to_silence_is_proportional_to_the_prediction(layout):
    channels = layout.channels
    loss = loss_of(MultiResolutionSTFTConfig(a_weighted=False), layout)
    silence = torch.zeros(1, channels, 4000, dtype=torch.float64)
    convergence = []
    for level in (-20, -30, -40):
        prediction = noise(1, channels, 4000) * 10 ** (level / 20)
        left, right = prediction[0, 0], prediction[0, -1]
        views = (
            [(1.0, left + right), (1.0, left - right), (0.5, left), (0.5, right)] if channels == 2 else [(1.0, left)]
        )
        logs = sum(weight * plain_logs(view, scale.stft) for weight, view in views for scale in loss.scales)
        convergence.append(float(loss(prediction, silence)) - float(logs) / len(loss.scales))
    # White noise over Q, white noise at -50 dB. Of the sum and the difference of two channels, Q has twice the norm of
    # one channel, and independent noise sqrt(2) times.
    views = 1.0 if channels == 1 else 2 * 2**-0.5 + 2 * 0.5
    assert convergence == pytest.approx([views * 10 ** ((50 + level) / 20) for level in (-20, -30, -40)], rel=0.05)


def plain_logs(signal, stft, floor=1e-4):
    window = torch.hann_window(stft.win_length, dtype=torch.float64)
    spectrum = torch.stft(signal, stft.n_fft, stft.hop, stft.win_length, window, return_complex=True)
    return (spectrum.abs().clamp_min(floor) / floor).log().mean()


def test_silent_item_has_a_weight_similar_to_auraloss():
    auraloss = pytest.importorskip("auraloss")

    config = MultiResolutionSTFTConfig()
    prediction = 0.1 * noise(4, 1, 8000, dtype=torch.float32)
    target = prediction + 0.02 * noise(4, 1, 8000, seed=1, dtype=torch.float32)
    target[0] = 0
    peer = auraloss.freq.MultiResolutionSTFTLoss(list(config.n_ffts), list(config.hops), list(config.win_lengths))
    ours, theirs = (
        float(loss_of(config, MONO, torch.float32)(prediction, target).mean()),
        float(peer(prediction, target)),
    )
    assert theirs / 3 < ours < 5 * theirs


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: type(config).__name__)
def test_arrays_and_lists_are_accepted(config):
    loss, (prediction, target) = loss_of(config), noise(2, 2, 2, 800)
    expected = loss(prediction, target, lengths=torch.tensor([800, 500]))
    for make in (torch.Tensor.numpy, torch.Tensor.tolist):
        torch.testing.assert_close(loss(make(prediction), make(target), lengths=[800, 500]).to(expected), expected)
    for lengths in ([800, 801], [-1, 800], [2**62, 1]):
        with pytest.raises(PartitaError, match="lengths are .*800"):
            loss(prediction, target, lengths=lengths)
    with pytest.raises(PartitaError, match="int16"):
        loss(prediction.short(), target.short())
    with pytest.raises(PartitaError, match="prediction"):
        loss(None, target)
