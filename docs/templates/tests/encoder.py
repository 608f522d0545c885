import pytest
import torch
from partita_core import AudioSpec
from partita_newcomer import Newcomer


def test_newcomer_encodes_each_frame_alone():
    encoder = Newcomer(1, AudioSpec(8000), hop=2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.inner.weight.copy_(torch.tensor([[[1.0, 10.0]]]))
        encoder.outer.weight.fill_(2.0)
    audio = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    hidden = encoder(audio, torch.zeros(1, dtype=torch.int64))
    assert hidden.flatten().tolist() == pytest.approx([42.0, 86.0])  # SiLU(x) is nearly x for large x
