import pytest
import torch
from partita.objectives import TrainState
from partita_core import ChannelLayout
from partita_newcomer import NewcomerConfig
from partita_testing.dummies import autoencoder


def test_newcomer_total_is_the_loss_of_the_reconstruction():
    torch.manual_seed(0)
    objective = NewcomerConfig().build(model=autoencoder())
    layout = torch.full((2,), int(ChannelLayout.STEREO))
    audio = torch.randn(2, 2, 4 * objective.crop_multiple)
    batch = {"audio": audio, "audio_lengths": torch.full((2,), audio.shape[-1])}
    batch |= {"layout": layout, "target_layout": layout}
    output = objective(batch, TrainState(0, 10), "generator")
    expected = (output.samples - audio).abs().mean()
    assert output.losses["distance"].item() == pytest.approx(expected.item(), rel=1e-5)
