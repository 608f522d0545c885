import torch
from partita_core import is_distributed, process_mean


def test_process_mean_in_one_process_is_the_mean():
    assert not is_distributed()
    total = torch.tensor([6.0, 0.0], requires_grad=True)
    mean = process_mean(total, torch.tensor([4, 0]))
    assert mean.tolist() == [1.5, 0.0]
    mean.sum().backward()
    assert total.grad is not None and total.grad.tolist() == [0.25, 1.0]


def test_fractional_count_is_kept():
    """The mean count over processes can be below one."""
    count = torch.tensor(0.5, requires_grad=True)
    mean = process_mean(torch.tensor(1.0), count)
    assert mean.item() == 2.0 and not mean.requires_grad


def test_processes_exchange_one_dtype(monkeypatch):
    """A process without entries can have a total of another dtype than the others."""
    exchanged = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: exchanged.append(x.dtype) or x.add_(4))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        mean = process_mean(torch.tensor(6.0, dtype=dtype), torch.tensor(2))
        assert mean.dtype == dtype and mean == 2
    assert set(exchanged) == {torch.float64}
