"""The random-projection quantizer of BEST-RQ (arXiv 2202.01855): labels that nobody has to learn."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomProjectionQuantizer(nn.Module):
    """Vectors to codes by a projection and codebooks that are drawn once and never change.

    A vector is layer-normed without parameters and projected; its code is the codebook's entry with the largest cosine.
    Several codebooks share the projection (WeUSM). What is drawn depends on `seed` alone, on every machine, and is
    saved all the same: labels outlive the generator that drew them.
    """

    projection: Tensor
    codebooks: Tensor

    def __init__(self, dim: int, *, codes: int, code_dim: int, codebooks: int, seed: int) -> None:
        """Draws a projection of width `dim` to `code_dim` (Xavier, uniform) and unit vectors in all directions."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6 / (dim + code_dim)) ** 0.5
        projection = bound * (2 * torch.rand(dim, code_dim, generator=generator, dtype=torch.float64) - 1)
        entries = torch.randn(codebooks, codes, code_dim, generator=generator, dtype=torch.float64)
        self.register_buffer("projection", projection.to(torch.get_default_dtype()))
        self.register_buffer("codebooks", F.normalize(entries, dim=-1).to(torch.get_default_dtype()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Codes `(..., codebooks)` int64 of vectors `(..., dim)`; autocast does not touch them."""
        with torch.autocast(x.device.type, enabled=False):
            x = F.layer_norm(x.to(self.projection.dtype), x.shape[-1:])
            projected = F.normalize(x @ self.projection, dim=-1)
            return torch.einsum("...d,bcd->...bc", projected, self.codebooks).argmax(-1)
