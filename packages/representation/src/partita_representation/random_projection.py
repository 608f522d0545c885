"""Random-projection quantizer of BEST-RQ (arXiv 2202.01855): training labels from a fixed random map."""

import torch
from partita_core import TypedModule
from torch import Tensor
from torch.nn import functional as F


class RandomProjectionQuantizer(TypedModule):
    """Codes from a projection and codebooks that are drawn once and never trained.

    A vector is layer-normalized without parameters and projected; its code is the codebook entry of largest cosine
    similarity. Several codebooks share the projection (WeUSM). The draw depends on `seed` alone and is the same on
    every machine; it is saved nevertheless, so that labels do not depend on later versions of the random generator.

    Args:
        dim: width of the vectors.
        codes: entries per codebook.
        code_dim: width of the projection, drawn from the uniform Xavier distribution.
        codebooks: number of codebooks of unit vectors.
        seed: seed of projection and codebooks.

    Example:
        >>> quantizer = RandomProjectionQuantizer(64, codes=1024, code_dim=16, codebooks=1, seed=0)
        >>> quantizer(torch.randn(2, 50, 64)).shape  # one int64 code per vector and codebook
        torch.Size([2, 50, 1])
    """

    projection: Tensor
    codebooks: Tensor

    def __init__(self, dim: int, *, codes: int, code_dim: int, codebooks: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6 / (dim + code_dim)) ** 0.5
        projection = bound * (2 * torch.rand(dim, code_dim, generator=generator, dtype=torch.float64) - 1)
        entries = torch.randn(codebooks, codes, code_dim, generator=generator, dtype=torch.float64)
        self.register_buffer("projection", projection.to(torch.get_default_dtype()))
        self.register_buffer("codebooks", F.normalize(entries, dim=-1).to(torch.get_default_dtype()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Quantize vectors `(..., dim)` to codes `(..., codebooks)` int64, unaffected by autocast."""
        with torch.autocast(x.device.type, enabled=False):
            x = F.layer_norm(x.to(self.projection.dtype), x.shape[-1:])
            projected = F.normalize(x @ self.projection, dim=-1)
            return torch.einsum("...d,bcd->...bc", projected, self.codebooks).argmax(-1)
