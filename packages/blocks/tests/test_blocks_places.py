import torch
from partita_blocks import Gather, Spread


def test_gather_is_one_matrix_of_narrowed_places():
    torch.manual_seed(0)
    gather = Gather(6, places=5, vectors=3, width=2)
    x = torch.randn(4, 5, 6)
    weight = gather.across.weight.unflatten(0, (3, 6)).unflatten(-1, (5, 2))  # vector, channel, place, narrow
    wanted = torch.einsum("vcpw,wd,bpd->bvc", weight, gather.narrow.weight, x)
    torch.testing.assert_close(gather(x), wanted)
    assert gather(x).shape == (4, 3, 6)


def test_spread_is_one_matrix_of_all_vectors():
    torch.manual_seed(0)
    spread = Spread(6, vectors=3, vector_dim=4, places=5, width=2)
    x = torch.randn(7, 3, 4)
    weight = spread.across.weight.unflatten(0, (5, 2)).unflatten(-1, (3, 4))  # place, narrow, vector, channel
    wanted = torch.einsum("dw,pwvc,bvc->bpd", spread.widen.weight, weight, x)
    torch.testing.assert_close(spread(x), wanted)


def test_places_are_told_apart():
    """Also where every place says the same, it comes out differently by where it was said."""
    torch.manual_seed(0)
    gather = Gather(6, places=5, vectors=3, width=2)
    x = torch.zeros(5, 5, 6)
    x[range(5), range(5)] = torch.randn(6)
    said = torch.nn.functional.normalize(gather(x).flatten(1), dim=1)
    assert (said @ said.T - torch.eye(5)).abs().max() < 0.9
