import pytest
import torch
from partita_core import PartitaError
from partita_losses import GradientBalancerConfig

NAMES = ("linear", "square")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def balancer(**changes):
    return GradientBalancerConfig(**changes).build(names=NAMES).double()


def problem(samples, scale=1.0):
    return {"linear": (samples * noise(*samples.shape, seed=5)).sum() * scale, "square": samples.square().mean()}


def per_item(gradient):
    return gradient.flatten(1).norm(dim=1).mean()


def test_gradient_is_the_closed_form():
    samples = noise(3, 2, 50).requires_grad_()
    losses, weights = problem(samples), {"linear": 1.0, "square": 3.0}
    total = balancer(norm=2.0)(losses, weights, samples)
    assert total.item() == pytest.approx((losses["linear"] + 3 * losses["square"]).item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(total, samples)
    linear, square = noise(3, 2, 50, seed=5), 2 * samples.detach() / samples.numel()
    expected = 2.0 / 3 * (0.25 * linear / per_item(linear) + 0.75 * square / per_item(square))
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=0)


def test_scale_of_a_loss_does_not_matter():
    samples = noise(3, 2, 50).requires_grad_()
    gradients = []
    for scale in (1.0, 1000.0):
        total = balancer()(problem(samples, scale), {"linear": 1.0, "square": 1.0}, samples)
        gradients += torch.autograd.grad(total, samples)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=0)


def test_norms_are_a_running_mean_from_the_first_step():
    module, samples, decay = balancer(decay=0.9), noise(2, 1, 20).requires_grad_(), 0.9
    norms = []
    for scale in (1.0, 5.0, 2.0):
        losses = problem(samples, scale)
        (gradient,) = torch.autograd.grad(losses["linear"], samples, retain_graph=True)
        norms.append(per_item(gradient))
        module(losses, {"linear": 1.0, "square": 1.0}, samples)
    weights = [decay**2, decay, 1.0]
    expected = sum(w * n for w, n in zip(weights, norms)) / sum(weights)
    torch.testing.assert_close(module.running[0] / module.seen[0], expected, rtol=1e-9, atol=0)


def test_the_model_is_walked_once_and_gets_the_balanced_gradient():
    class Model(torch.autograd.Function):
        backwards = 0

        @staticmethod
        def forward(ctx, weight):
            return weight * 2

        @staticmethod
        def backward(ctx, outer):
            Model.backwards += 1
            return outer * 2

    weight = noise(2, 1, 30).requires_grad_()
    samples = Model.apply(weight)
    module = balancer()
    total = module(problem(samples), {"linear": 1.0, "square": 1.0}, samples)
    assert Model.backwards == 0 and weight.grad is None
    total.backward()
    assert Model.backwards == 1
    # Of the mean over two items, that of one has a norm of 1 / 2 at most, where the two losses pull the same way.
    assert 0.25 < per_item(weight.grad / 2) <= 0.5


def test_a_larger_batch_of_the_same_moves_the_model_as_much():
    gradients = []
    for copies in (1, 3):
        weight = torch.ones(20, dtype=torch.float64, requires_grad=True)
        samples = weight * noise(2, 1, 20).repeat(copies, 1, 1)
        losses = {"linear": samples.abs().mean(), "square": samples.square().mean()}
        gradients += torch.autograd.grad(balancer()(losses, {"linear": 1.0, "square": 2.0}, samples), weight)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=0)


def test_losses_may_share_a_graph_and_two_forwards_one():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    shared = samples.exp().tanh()
    losses = {"linear": shared.sum(), "square": shared.square().sum()}
    first = module(losses, {"linear": 1.0, "square": 1.0}, samples)
    second = module(problem(samples), {"linear": 1.0, "square": 1.0}, samples)
    (first + second).backward()
    assert samples.grad.isfinite().all()


def test_evaluation_moves_nothing_and_needs_no_graph():
    module = balancer().eval()
    samples = noise(2, 1, 20).requires_grad_()
    weights = {"linear": 1.0, "square": 2.0}
    balanced = module(problem(samples), weights, samples)
    with torch.no_grad():
        plain = module(problem(samples), weights, samples)
    torch.testing.assert_close(balanced.detach(), plain)
    assert not plain.requires_grad and (module.running == 0).all() and (module.seen == 0).all()


def test_a_loss_without_gradient_is_harmless_and_state_is_saved():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    losses = problem(samples)
    losses["linear"] = (samples * 0).sum()
    (gradient,) = torch.autograd.grad(module(losses, {"linear": 1.0, "square": 1.0}, samples), samples)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert set(module.state_dict()) == {"running", "seen"}
    assert all(buffer.ndim == 1 for buffer in module.buffers())


def test_what_does_not_fit_is_named():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    weights = {"linear": 1.0, "square": 1.0}
    with pytest.raises(PartitaError, match="'sqare' is unknown.*did you mean square"):
        module(problem(samples) | {"sqare": samples.sum()}, weights, samples)
    with pytest.raises(PartitaError, match="'square' is missing"):
        module(problem(samples), {"linear": 1.0}, samples)
    with pytest.raises(PartitaError, match="'linear' does not depend on the samples"):
        module(problem(samples) | {"linear": torch.zeros(())}, weights, samples)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("first", [True, False])
def test_a_loss_that_is_not_finite_leaves_the_running_means_alone(value, first):
    module, untouched, samples = balancer(), balancer(), noise(2, 1, 20).requires_grad_()
    weights = {"linear": 1.0, "square": 1.0}
    if not first:
        module(problem(samples), weights, samples)
        untouched(problem(samples), weights, samples)
    module(problem(samples, value), weights, samples)
    assert torch.equal(module.running, untouched.running) and torch.equal(module.seen, untouched.seen)
    for scale in (1.0, 3.0):
        gradients = [
            torch.autograd.grad(each(problem(samples, scale), weights, samples), samples)[0]
            for each in (module, untouched)
        ]
        assert torch.equal(*gradients) and gradients[0].isfinite().all()
