import torch
from partita_core import AudioSpec
from partita_newcomer import Newcomer


def test_newcomer_encodes_each_frame_alone():
    encoder = Newcomer(1, AudioSpec(8000), hop=2)
    with torch.no_grad():
        encoder.project.weight.copy_(torch.tensor([[[1.0, 10.0]]]))
        encoder.project.bias.zero_()
        encoder.layout.weight.zero_()
    audio = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert encoder(audio, torch.zeros(1, dtype=torch.int64)).tolist() == [[[21.0, 43.0]]]
