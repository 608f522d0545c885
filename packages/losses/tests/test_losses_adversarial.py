import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError
from partita_losses import (
    ComplexSTFTDiscriminatorsConfig,
    DiscriminatorOutput,
    feature_matching_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
)

STEREO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))


def outputs(*logits, features=((),)):
    return [DiscriminatorOutput(torch.tensor(x), tuple(map(torch.tensor, f))) for x, f in zip(logits, features * 9)]


def test_hinge_losses_by_hand():
    real, fake = outputs([2.0, 0.5], [-1.0]), outputs([-2.0, 0.0], [1.0])
    # relu(1 - real): (0 + 0.5) / 2 and 2; relu(1 + fake): (0 + 1) / 2 and 2
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx((0.25 + 0.5 + 2 + 2) / 2)
    assert hinge_generator_loss(fake).item() == pytest.approx((1.0 - 1.0) / 2)
    assert hinge_generator_loss(outputs([3.0], [1.0])).item() == pytest.approx(-2.0)
    assert hinge_discriminator_loss(outputs([1.5]), outputs([-1.5])).item() == 0


def test_feature_matching_by_hand():
    real = outputs([0.0], features=(([2.0, -2.0], [10.0]),))
    fake = outputs([0.0], features=(([1.0, -2.0], [15.0]),))
    # mean |r - f| / mean |r|: 0.5 / 2 and 5 / 10
    assert feature_matching_loss(real, fake).item() == pytest.approx((0.25 + 0.5) / 2)
    assert feature_matching_loss(real, real).item() == 0


def test_feature_matching_does_not_see_the_scale_of_a_layer_nor_train_the_real_side():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True) for _ in range(2))
    logits = torch.zeros(2, 1)

    def loss(scale):
        return feature_matching_loss(
            [DiscriminatorOutput(logits, (real * scale,))], [DiscriminatorOutput(logits, (fake * scale,))]
        )

    torch.testing.assert_close(loss(1.0), loss(1000.0))
    by_real, by_fake = torch.autograd.grad(loss(1.0), (real, fake), allow_unused=True)
    assert by_real is None and by_fake.abs().sum() > 0


def test_silent_features_and_half_types_stay_finite():
    silent = [DiscriminatorOutput(torch.zeros(1), (torch.zeros(4),))]
    other = [DiscriminatorOutput(torch.ones(1, dtype=torch.bfloat16), (torch.ones(4, dtype=torch.bfloat16),))]
    assert feature_matching_loss(silent, other).isfinite()
    assert hinge_generator_loss(other).dtype == torch.float32
    with pytest.raises(PartitaError, match="2 discriminators saw the recordings, 1 the samples"):
        feature_matching_loss(silent * 2, silent)


def discriminators(**changes):
    torch.manual_seed(0)
    config = ComplexSTFTDiscriminatorsConfig(n_ffts=(256, 128), hops=(67, 37), channels=4, **changes)
    return config.build(audio_spec=STEREO)


def test_shapes_follow_the_transforms():
    results = discriminators()(torch.randn(3, 2, 1000, generator=torch.Generator().manual_seed(0)))
    assert len(results) == 2
    for result, n_fft, hop in zip(results, (256, 128), (67, 37)):
        frames, bins = 1 + 1000 // hop, n_fft // 2 + 1
        widths = [bins, -(-bins // 2), -(-bins // 4), -(-bins // 8), -(-bins // 8)]
        assert [tuple(f.shape) for f in result.features] == [(3, 4, frames, width) for width in widths]
        assert result.logits.shape == (3, 1, frames, widths[-1])


def test_white_noise_reaches_the_convolutions_at_unit_variance():
    module = discriminators().scales[0]
    seen = []
    module.hidden[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.randn(4, 2, 20_000, generator=torch.Generator().manual_seed(0)))
    assert seen[0].shape[1] == 4  # real and imaginary part of two channels
    total = seen[0][:, :, :, 1:-1].square().sum(1).mean() / 2
    assert total.item() == pytest.approx(1.0, rel=0.03)


def test_phase_is_heard():
    module = discriminators()
    audio = torch.randn(1, 2, 1000, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(module(audio)[0].logits, module(-audio)[0].logits)


def test_a_discriminator_learns_to_tell_noise_from_a_tone():
    module = discriminators()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    tone = torch.sin(torch.arange(1000) * 0.1).expand(2, 2, -1)
    for _ in range(12):
        fake = 0.7 * torch.randn(2, 2, 1000, generator=generator)
        loss = hinge_discriminator_loss(module(tone), module(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.2  # from 2
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    fake.requires_grad_()
    (gradient,) = torch.autograd.grad(hinge_generator_loss(module(fake)), fake)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_silence_gives_finite_gradients_and_float64_works():
    module = discriminators().double()
    silence = torch.zeros(1, 2, 1000, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(hinge_generator_loss(module(silence)), silence)
    assert gradient.isfinite().all()


def test_as_many_hops_as_transforms():
    with pytest.raises(PartitaError, match="2 FFTs and 1 hops"):
        ComplexSTFTDiscriminatorsConfig(n_ffts=(64, 32), hops=(16,)).build(audio_spec=STEREO)
