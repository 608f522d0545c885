import pytest
import torch
from partita_newcomer import Newcomer


def test_newcomer_multiplies_each_channel_by_its_gain():
    bottleneck = Newcomer(2, initial_gain=0.5)
    with torch.no_grad():
        bottleneck.gain[1] = 3.0
    output = bottleneck(torch.tensor([[[2.0, -4.0], [1.0, 0.0]]]))
    assert output.values.tolist() == [[[1.0, -2.0], [3.0, 0.0]]]
    assert output.metrics["latent_rms"].item() == pytest.approx((14 / 4) ** 0.5)
