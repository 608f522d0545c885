"""Bottlenecks, quantizers, losses and discriminators as a user's script constructs them."""

import pytest
import torch
from partita_bottlenecks import VAE
from partita_losses import (
    ComplexSTFTDiscriminators,
    GradientBalancer,
    MultiBandSTFTDiscriminators,
    MultiPeriodDiscriminators,
    MultiResolutionSTFT,
    MultiScaleDiscriminators,
    MultiScaleMel,
    feature_matching_loss,
    hinge_generator_loss,
)
from partita_quantizers import FSQ, ResidualVQ


def test_bottlenecks_and_quantizers():
    vae = VAE(dim=8)
    assert vae(torch.randn(2, 16, 5)).values.shape == (2, 8, 5)
    fsq = FSQ(levels=(8, 5, 5, 5))
    assert (fsq.dim, fsq.codebook_sizes) == (4, (1000,))
    rvq = ResidualVQ(dim=64, num_quantizers=8, codebook_size=1024).eval()
    assert rvq.encode_codes(torch.randn(2, 64, 5)).shape == (2, 8, 5)


@pytest.mark.parametrize(
    "make",
    [ComplexSTFTDiscriminators, MultiBandSTFTDiscriminators, MultiPeriodDiscriminators, MultiScaleDiscriminators],
)
def test_losses_discriminators_and_balancer(make):
    stft, mel = MultiResolutionSTFT(sample_rate=24000), MultiScaleMel(sample_rate=24000)
    discriminators, balancer = (
        make(channels=2),
        GradientBalancer({"stft": 1.0, "mel": 1.0, "features": 2.0, "adv": 1.0}),
    )
    prediction, target = torch.randn(2, 1, 6000, requires_grad=True), torch.randn(2, 1, 6000)
    real, fake = discriminators(target), discriminators(prediction)
    losses = {
        "stft": stft(prediction, target).mean(),
        "mel": mel(prediction, target).mean(),
        "features": feature_matching_loss(real, fake),
        "adv": hinge_generator_loss(fake),
    }
    balancer(losses, prediction).backward()
    assert prediction.grad is not None
    assert 0 < float(prediction.grad.flatten(1).norm(dim=1).mean()) <= 0.5 + 1e-6  # norm 1 over two items
