import pytest
import torch
from partita_core import PartitaError
from partita_losses import CompandedSTFTLoss

ENERGY = 3 / 8  # of a Hann window, per sample


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(**settings):
    return CompandedSTFTLoss(n_ffts=(64, 32), **settings).double().eval()


def definition(prediction, target, *, n_ffts=(64, 32), exponent=0.5, weights=(0.5, 1.0), floor=1e-4):
    """Distance of each item from the definition, differentiable by autograd."""
    if prediction.shape[1] == 2:
        prediction, target = (
            torch.stack([(x[:, 0] + x[:, 1]) / 2, (x[:, 0] - x[:, 1]) / 2], 1) for x in (prediction, target)
        )
    value = 0
    for n_fft in n_ffts:
        window, sides = torch.hann_window(n_fft, dtype=torch.float64), []
        for x in (prediction, target):
            spectrum = torch.stft(x.flatten(0, 1), n_fft, n_fft // 4, window=window, return_complex=True)
            spectrum = spectrum.unflatten(0, x.shape[:2]).flatten(1)
            magnitude = (spectrum.abs().square() + ENERGY * n_fft * floor**2).sqrt()
            sides.append((spectrum * magnitude ** (exponent - 1), magnitude**exponent))
        (y, y_size), (x, x_size) = sides
        norm = x.abs().square().sum(1)
        parts = ((y - x).abs().square().sum(1), (y_size - x_size).square().sum(1))
        value = value + sum(w * part for w, part in zip(weights, parts)) / norm / len(n_ffts)
    return value


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "exponent, weights, floor", [(0.5, (0.5, 1.0), 1e-4), (0.3, (1.0, 0.0), 0.1), (1.0, (0.0, 2.0), 1e-4)]
)
def test_companded_stft_matches_its_definition_and_autograd(channels, exponent, weights, floor):
    loss = loss_of(exponent=exponent, complex_weight=weights[0], magnitude_weight=weights[1], floor=floor)
    prediction, target = noise(2, channels, 300).requires_grad_(), noise(2, channels, 300, seed=1)
    expected = definition(prediction, target, exponent=exponent, weights=weights, floor=floor)
    torch.testing.assert_close(loss(prediction, target), expected, rtol=1e-9, atol=0)
    wanted, found = (torch.autograd.grad(x.sum(), prediction)[0] for x in (expected, loss(prediction, target)))
    assert wanted.norm() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_silence_costs_the_weights_and_only_the_complex_term_depends_on_phase():
    target = noise(1, 1, 4000)
    loss = loss_of(complex_weight=0.3, magnitude_weight=0.6)
    assert float(loss(torch.zeros_like(target), target)) == pytest.approx(0.9, rel=0.02)
    complex_term, magnitudes = loss_of(magnitude_weight=0.0), loss_of(complex_weight=0.0)
    assert float(magnitudes(-target, target)) == 0
    assert float(complex_term(-target, target)) == pytest.approx(0.5 * 4)


def test_gain_is_companded():
    """A gain g costs (g^c - 1)^2."""
    target = noise(1, 1, 4000)
    for exponent in (0.3, 0.5, 1.0):
        loss = loss_of(exponent=exponent, complex_weight=1.0, magnitude_weight=0.0)
        assert float(loss(2 * target, target)) == pytest.approx((2**exponent - 1) ** 2, rel=1e-3)


def test_distances_to_near_silent_targets_are_relative_to_a_floor():
    """At -80 dB, the distance of silence is E|X| over the RMS magnitude at -50 dB; E|X| is 0.886 of the RMS."""
    loss = loss_of(complex_weight=1.0, magnitude_weight=0.0, floor=1e-9)
    target = noise(1, 1, 20_000)
    values = [float(loss(torch.zeros_like(target), 10 ** (level / 20) * target)) for level in (-80, -40, 0)]
    assert values == pytest.approx([0.886 * 10 ** (-30 / 20), 1, 1], rel=0.05)


def test_frames_start_at_random_in_training_only():
    loss, (prediction, target) = loss_of(), noise(2, 2, 1, 300)
    fixed = loss_of(random_offset=False)
    torch.testing.assert_close(loss(prediction, target), fixed(prediction, target), rtol=0, atol=0)
    loss.train(), fixed.train()
    torch.testing.assert_close(fixed(prediction, target), fixed.eval()(prediction, target), rtol=0, atol=0)
    torch.manual_seed(0)
    values = [float(loss(prediction, target).sum()) for _ in range(8)]
    assert len(set(values)) > 4 and values == pytest.approx([float(fixed(prediction, target).sum())] * 8, rel=0.1)
    lengths = torch.tensor([300, 200])  # padding stays excluded
    torch.manual_seed(1)
    first = loss(prediction, target, lengths=lengths)
    prediction[1, :, 200:] = 100
    torch.manual_seed(1)
    torch.testing.assert_close(loss(prediction, target, lengths=lengths), first, rtol=0, atol=0)


def test_invalid_settings_of_companded_stft():
    with pytest.raises(PartitaError, match="n_ffts"):
        CompandedSTFTLoss(n_ffts=())
    with pytest.raises(PartitaError, match="n_ffts.*2"):
        CompandedSTFTLoss(n_ffts=(64, 2))
    with pytest.raises(PartitaError, match="complex_weight and magnitude_weight"):
        CompandedSTFTLoss(complex_weight=0.0, magnitude_weight=0.0)


@pytest.mark.parametrize("complex_weight, finds", [(0.5, True), (0.0, False)])
def test_waveform_is_found_by_the_complex_term_only(complex_weight, finds):
    """Samples that start as noise follow the gradient; the cosine with the target is near 1 if phases are found."""
    torch.manual_seed(0)
    target, samples = 0.1 * noise(1, 1, 600), (0.1 * noise(1, 1, 600, seed=1)).requires_grad_()
    loss = loss_of(complex_weight=complex_weight).train()
    optimizer = torch.optim.Adam([samples], lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss(samples, target).sum().backward()
        optimizer.step()
    cosine = float(torch.cosine_similarity(samples.detach().flatten(), target.flatten(), dim=0))
    assert cosine > 0.99 if finds else abs(cosine) < 0.5
