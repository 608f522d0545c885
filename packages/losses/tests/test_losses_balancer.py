import pytest
import torch
from partita_core import PartitaError
from partita_losses import GradientBalancer

EQUAL = {"linear": 1.0, "square": 1.0}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def balancer(weights=EQUAL, **settings):
    return GradientBalancer(weights, **settings).double()


def problem(samples, scale=1.0):
    return {"linear": (samples * noise(*samples.shape, seed=5)).sum() * scale, "square": samples.square().mean()}


def per_item(gradient):
    return gradient.flatten(1).norm(dim=1).mean()


def test_gradient_matches_the_closed_form():
    samples = noise(3, 2, 50).requires_grad_()
    losses, weights = problem(samples), {"linear": 1.0, "square": 3.0}
    total = balancer(weights, norm=2.0)(losses, samples)
    assert total.item() == pytest.approx((losses["linear"] + 3 * losses["square"]).item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(total, samples)
    linear, square = noise(3, 2, 50, seed=5), 2 * samples.detach() / samples.numel()
    expected = 2.0 / 3 * (0.25 * linear / per_item(linear) + 0.75 * square / per_item(square))
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=0)


def test_gradient_is_independent_of_the_scale_of_a_loss():
    samples = noise(3, 2, 50).requires_grad_()
    gradients = []
    for scale in (1.0, 1000.0):
        total = balancer()(problem(samples, scale), samples)
        gradients += torch.autograd.grad(total, samples)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=0)


def test_running_mean_of_norms_is_corrected_for_its_start():
    module, samples, decay = balancer(decay=0.9), noise(2, 1, 20).requires_grad_(), 0.9
    norms = []
    for scale in (1.0, 5.0, 2.0):
        losses = problem(samples, scale)
        (gradient,) = torch.autograd.grad(losses["linear"], samples, retain_graph=True)
        norms.append(per_item(gradient))
        module(losses, samples)
    weights = [decay**2, decay, 1.0]
    expected = sum(w * n for w, n in zip(weights, norms)) / sum(weights)
    torch.testing.assert_close(module.running[0] / module.seen[0], expected, rtol=1e-9, atol=0)


def test_backward_passes_through_the_model_once():
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
    total = module(problem(samples), samples)
    assert Model.backwards == 0 and weight.grad is None
    total.backward()
    assert Model.backwards == 1
    # One of two items has a gradient of norm 1 / 2 if both losses agree, and less otherwise.
    assert 0.25 < per_item(weight.grad / 2) <= 0.5


def test_gradient_of_the_model_is_independent_of_the_batch_size():
    gradients = []
    for copies in (1, 3):
        weight = torch.ones(20, dtype=torch.float64, requires_grad=True)
        samples = weight * noise(2, 1, 20).repeat(copies, 1, 1)
        losses = {"linear": samples.abs().mean(), "square": samples.square().mean()}
        gradients += torch.autograd.grad(balancer({"linear": 1.0, "square": 2.0})(losses, samples), weight)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=0)


def test_losses_and_forward_calls_can_share_a_graph():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    shared = samples.exp().tanh()
    losses = {"linear": shared.sum(), "square": shared.square().sum()}
    first = module(losses, samples)
    second = module(problem(samples), samples)
    (first + second).backward()
    assert samples.grad.isfinite().all()


def test_evaluation_keeps_state_and_needs_no_graph():
    module = balancer({"linear": 1.0, "square": 2.0}).eval()
    samples = noise(2, 1, 20).requires_grad_()
    balanced = module(problem(samples), samples)
    with torch.no_grad():
        plain = module(problem(samples), samples)
    torch.testing.assert_close(balanced.detach(), plain)
    assert not plain.requires_grad and (module.running == 0).all() and (module.seen == 0).all()


def test_zero_gradient_is_finite_and_state_is_saved():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    losses = problem(samples)
    losses["linear"] = (samples * 0).sum()
    (gradient,) = torch.autograd.grad(module(losses, samples), samples)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert set(module.state_dict()) == {"running", "seen"}
    assert all(buffer.ndim == 1 for buffer in module.buffers())


def test_losses_without_a_weight_or_a_gradient_are_named():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    losses = problem(samples)
    for wrong, name in (
        (losses | {"sqare": samples.sum()}, "'sqare'.*square"),
        ({"linear": losses["linear"]}, "'square'"),
        (losses | {"linear": torch.zeros(())}, "'linear'"),
    ):
        with pytest.raises(PartitaError, match=name):
            module(wrong, samples)


@pytest.mark.parametrize("wrong", [{}, {"a": 0.0}, {"a": 1.0, "b": -1.0}, {"a": float("nan")}, {"a": float("inf")}])
def test_weights_that_are_no_shares_are_errors(wrong):
    with pytest.raises(PartitaError, match="weights"):
        GradientBalancer(wrong)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("first", [True, False])
def test_nonfinite_loss_keeps_the_running_means(value, first):
    module, untouched, samples = balancer(), balancer(), noise(2, 1, 20).requires_grad_()
    if not first:
        module(problem(samples), samples)
        untouched(problem(samples), samples)
    module(problem(samples, value), samples)
    assert torch.equal(module.running, untouched.running) and torch.equal(module.seen, untouched.seen)
    for scale in (1.0, 3.0):
        gradients = [
            torch.autograd.grad(each(problem(samples, scale), samples), samples)[0] for each in (module, untouched)
        ]
        assert torch.equal(*gradients) and gradients[0].isfinite().all()


def test_weights_of_a_call_may_leave_out_losses():
    """The absent loss takes no part in the shares, and its running mean starts when it first appears."""
    module, samples = balancer({"linear": 1.0, "square": 3.0}, decay=0.9), noise(3, 2, 50).requires_grad_()
    for _ in range(3):
        total = module({"square": problem(samples)["square"]}, samples, {"square": 3.0})
    (gradient,) = torch.autograd.grad(total, samples)
    square = 2 * samples.detach() / samples.numel()
    torch.testing.assert_close(gradient, square / per_item(square) / 3, rtol=1e-9, atol=0)
    assert total.item() == pytest.approx(3 * samples.square().mean().item())
    assert module.seen.tolist() == pytest.approx([0, 1 - 0.9**3]) and module.running[0] == 0
    fresh = balancer({"linear": 0.5, "square": 3.0})
    totals = [make(problem(samples, 7.0), samples, {"linear": 0.5, "square": 3.0}) for make in (fresh, module)]
    wanted, found = (torch.autograd.grad(total, samples)[0] for total in totals)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


def test_weights_of_a_call_must_belong_to_the_losses():
    module, samples = balancer(), noise(2, 1, 20).requires_grad_()
    losses = problem(samples)
    for weights in ({"linear": 1.0}, {**EQUAL, "third": 1.0}):
        with pytest.raises(PartitaError, match="square|third"):
            module(losses, samples, weights)
    with pytest.raises(PartitaError, match="third"):
        module({**losses, "third": losses["linear"]}, samples, {**EQUAL, "third": 1.0})
