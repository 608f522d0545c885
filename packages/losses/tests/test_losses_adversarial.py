import pytest
import torch
from partita_core import DiscriminatorOutput, PartitaError
from partita_losses import (
    ADVERSARIAL_LOSSES,
    feature_matching_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
)


def outputs(*logits, features=((),)):
    return [DiscriminatorOutput(torch.tensor(x), tuple(map(torch.tensor, f))) for x, f in zip(logits, features * 9)]


def test_hinge_losses_by_hand():
    real, fake = outputs([2.0, 0.5], [-1.0]), outputs([-2.0, 0.0], [1.0])
    # relu(1 - real): (0 + 0.5) / 2 and 2; relu(1 + fake): (0 + 1) / 2 and 2
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx((0.25 + 0.5 + 2 + 2) / 2)
    assert hinge_generator_loss(fake).item() == pytest.approx((1.0 - 1.0) / 2)
    assert hinge_generator_loss(outputs([3.0], [1.0])).item() == pytest.approx(-2.0)
    assert hinge_discriminator_loss(outputs([1.5]), outputs([-1.5])).item() == 0


def test_least_squares_losses_by_hand():
    real, fake = outputs([1.0, 0.5], [-1.0]), outputs([0.0, 2.0], [1.0])
    # (1 - real)^2: (0 + 0.25) / 2 and 4; fake^2: (0 + 4) / 2 and 1
    assert least_squares_discriminator_loss(real, fake).item() == pytest.approx((0.125 + 2 + 4 + 1) / 2)
    assert least_squares_generator_loss(fake).item() == pytest.approx(((1 + 1) / 2 + 0) / 2)
    assert least_squares_discriminator_loss(outputs([0.5]), outputs([0.5])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_loss_at_chance_is_the_minimum_over_equal_logits(name):
    loss = ADVERSARIAL_LOSSES[name]
    values = [float(loss.discriminator(outputs([x], [x]), outputs([x], [x]))) for x in torch.arange(-3, 3.01, 0.125)]
    assert min(values) == pytest.approx(loss.chance)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_generator_and_discriminator_pull_logits_apart(name):
    """Gradients by the logits: the discriminator raises real and lowers fake ones, the generator raises its own."""
    logits = {side: torch.zeros(3, 1, 4, dtype=torch.bfloat16, requires_grad=True) for side in ("real", "fake")}
    real, fake = ([DiscriminatorOutput(logits[side], ())] for side in ("real", "fake"))
    loss = ADVERSARIAL_LOSSES[name].discriminator(real, fake)
    by_real, by_fake = torch.autograd.grad(loss, (logits["real"], logits["fake"]), allow_unused=name != "hinge")
    assert loss.dtype == torch.float32 and (by_real < 0).all() and (by_fake >= 0).all()
    (by_fake,) = torch.autograd.grad(ADVERSARIAL_LOSSES[name].generator(fake), logits["fake"])
    assert (by_fake < 0).all()


def test_feature_matching_by_hand():
    real = outputs([0.0], features=(([2.0, -2.0], [10.0]),))
    fake = outputs([0.0], features=(([1.0, -2.0], [15.0]),))
    # mean |r - f| / mean |r|: 0.5 / 2 and 5 / 10
    assert feature_matching_loss(real, fake).item() == pytest.approx((0.25 + 0.5) / 2)
    assert feature_matching_loss(real, real).item() == 0


def test_feature_matching_is_scale_invariant_and_detaches_real_features():
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


def test_silent_features_and_half_types_are_finite():
    silent = [DiscriminatorOutput(torch.zeros(1), (torch.zeros(4),))]
    other = [DiscriminatorOutput(torch.ones(1, dtype=torch.bfloat16), (torch.ones(4, dtype=torch.bfloat16),))]
    assert feature_matching_loss(silent, other).isfinite()
    assert hinge_generator_loss(other).dtype == least_squares_generator_loss(other).dtype == torch.float32


PAIRED = [feature_matching_loss, *(pair.discriminator for pair in ADVERSARIAL_LOSSES.values())]


@pytest.mark.parametrize("loss", PAIRED, ids=lambda loss: loss.__name__)
def test_different_numbers_of_outputs_are_an_error(loss):
    output = DiscriminatorOutput(torch.zeros(1), (torch.zeros(4),))
    with pytest.raises(PartitaError, match="2 .*1 "):
        loss([output, output], [output])
    with pytest.raises(PartitaError, match="outputs|features"):
        loss([], [])
