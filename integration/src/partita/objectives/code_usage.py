"""Codebook usage: the fraction of the codes of each level that were used recently, which reveals dead codes."""

from collections.abc import Sequence

import torch
from partita_core import is_distributed, upcast
from torch import Tensor, distributed, nn

# Number of steps within which a code counts as in use.
_RECENT_STEPS = 1000

# Largest codebook whose codes are tracked.
_MAX_CODES = 2**16


class CodeUsage(nn.Module):
    """Tracker of the step at which each code was last used, in all processes.

    The steps are a buffer of the objective: saved in checkpoints, not in the model.
    """

    last_use: Tensor | None

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """Track levels of these numbers of codes; empty for a model without codes."""
        super().__init__()
        self.codebook_sizes = tuple(codebook_sizes)
        largest = max(self.codebook_sizes, default=0)
        tracked = 0 < largest <= _MAX_CODES
        last_use = torch.zeros(len(self.codebook_sizes), largest, dtype=torch.int64) if tracked else None
        self.register_buffer("last_use", last_use)  # steps counted from 1; 0 for never

    @torch.no_grad()
    def forward(self, codes: Tensor | None, step: int) -> dict[str, Tensor]:
        """Fraction of the codes of each level that were used within a thousand steps; updated in training mode.

        Args:
            codes: `(batch, num_quantizers, tokens)` codes of this step, -1 for dropped levels; None for no codes.
            step: number of steps taken.
        """
        if codes is None or self.last_use is None:
            return {}
        if self.training:  # evaluations run in the main process alone, without the others to reduce with
            codes = codes.movedim(1, 0).flatten(1)
            used = torch.where(codes >= 0, step + 1, 0)
            self.last_use.scatter_reduce_(1, codes.clamp(min=0), used, "amax")
            if is_distributed():
                distributed.all_reduce(self.last_use, distributed.ReduceOp.MAX)
        recent = (self.last_use > max(0, step + 1 - _RECENT_STEPS)).sum(1)
        return {f"in_use_{i}": upcast(recent[i] / size) for i, size in enumerate(self.codebook_sizes)}
