import torch
from partita_blocks import GridToVectors, VectorsToGrid


def test_grid_to_vectors_is_one_matrix_of_narrowed_positions():
    torch.manual_seed(0)
    module = GridToVectors(6, positions=5, vectors=3, width=2)
    x = torch.randn(4, 5, 6)
    weight = module.across.weight.unflatten(0, (3, 6)).unflatten(-1, (5, 2))  # vector, channel, position, narrow
    expected = torch.einsum("vcpw,wd,bpd->bvc", weight, module.narrow.weight, x)
    torch.testing.assert_close(module(x), expected)
    assert module(x).shape == (4, 3, 6)


def test_vectors_to_grid_is_one_matrix_of_all_vectors():
    torch.manual_seed(0)
    module = VectorsToGrid(6, vectors=3, vector_dim=4, positions=5, width=2)
    x = torch.randn(7, 3, 4)
    weight = module.across.weight.unflatten(0, (5, 2)).unflatten(-1, (3, 4))  # position, narrow, vector, channel
    expected = torch.einsum("dw,pwvc,bvc->bpd", module.widen.weight, weight, x)
    torch.testing.assert_close(module(x), expected)


def test_equal_content_at_different_positions_gives_different_vectors():
    torch.manual_seed(0)
    module = GridToVectors(6, positions=5, vectors=3, width=2)
    x = torch.zeros(5, 5, 6)
    x[range(5), range(5)] = torch.randn(6)
    directions = torch.nn.functional.normalize(module(x).flatten(1), dim=1)
    assert (directions @ directions.T - torch.eye(5)).abs().max() < 0.9
