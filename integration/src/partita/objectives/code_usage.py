"""Which codes are in use: the figure that says whether a codebook has died."""

from collections.abc import Sequence

import torch
from partita_core import is_distributed, upcast
from torch import Tensor, distributed, nn

# Steps within which a code that is in use has been used.
_RECENT = 1000

# Levels of more codes than that are too large to be counted one by one.
_COUNTED = 2**16


class CodeUse(nn.Module):
    """Notes the step at which each code was used last, in all processes; kept in checkpoints, not in the model."""

    last_use: Tensor | None

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """Takes the number of codes of each level; none for a model without codes."""
        super().__init__()
        self.codebook_sizes = tuple(codebook_sizes)
        most = max(self.codebook_sizes, default=0)
        counted = torch.zeros(len(self.codebook_sizes), most, dtype=torch.int64) if 0 < most <= _COUNTED else None
        self.register_buffer("last_use", counted)  # the number of the step, from 1; 0 for never

    @torch.no_grad()
    def forward(self, codes: Tensor | None, step: int) -> dict[str, Tensor]:
        """For each level, the fraction of its codes in use within a thousand steps; in training, `codes` are noted.

        They are `(batch, num_quantizers, tokens)`, -1 for none.
        """
        if codes is None or self.last_use is None:
            return {}
        if self.training:  # an evaluation is one process's alone
            codes = codes.movedim(1, 0).flatten(1)
            used = torch.where(codes >= 0, step + 1, 0)
            self.last_use.scatter_reduce_(1, codes.clamp(min=0), used, "amax")
            if is_distributed():
                distributed.all_reduce(self.last_use, distributed.ReduceOp.MAX)
        recent = (self.last_use > max(0, step + 1 - _RECENT)).sum(1)
        return {f"in_use_{i}": upcast(recent[i] / size) for i, size in enumerate(self.codebook_sizes)}
