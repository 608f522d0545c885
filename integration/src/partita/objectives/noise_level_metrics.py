"""Metrics of denoising by range of noise levels."""

import torch
from torch import Tensor

# Upper ends of the ranges; the last range has none.
_LEVELS = (0.01, 0.1, 1.0, 10.0)
_NAMES = (*(f"below_{level:g}" for level in _LEVELS), f"above_{_LEVELS[-1]:g}")


@torch.no_grad()
def noise_level_metrics(
    losses: Tensor, denoised: Tensor, clean: Tensor, sigma: Tensor, counted: Tensor
) -> dict[str, Tensor]:
    """Mean loss and relative error of the chunks in each range of noise levels; empty ranges are left out.

    Args:
        losses: `(chunks,)` loss of each chunk.
        denoised: `(chunks, C, F, T)` output of the denoiser.
        clean: `(chunks, C, F, T)` clean signal, to whose norm the error is relative.
        sigma: `(chunks,)` noise levels.
        counted: `(chunks,)` weights, 0 for chunks that are left out.
    """
    ranges = torch.bucketize(sigma, torch.tensor(_LEVELS, dtype=sigma.dtype))
    members = torch.nn.functional.one_hot(ranges, len(_NAMES)).T.to(counted) * counted
    count = members.sum(1)
    error, power = (x.flatten(1).square().sum(1) for x in (denoised - clean, clean))
    loss = (members @ losses) / count
    relative = ((members @ error) / (members @ power).clamp_min(torch.finfo(power.dtype).tiny)).sqrt()
    drawn = [i for i, found in enumerate((count > 0).tolist()) if found]
    metrics = {f"loss_sigma_{_NAMES[i]}": loss[i] for i in drawn}
    return metrics | {f"error_sigma_{_NAMES[i]}": relative[i] for i in drawn}
