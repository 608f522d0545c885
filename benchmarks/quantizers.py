"""Speed of our residual quantizer and vector-quantize-pytorch's: training step, encoding to codes, codes to values.

    python benchmarks/quantizers.py [--threads N] [--rounds N]

Both have the same sizes: 16 levels of 2048 codes in 8 dimensions on latents of width 64, a minute of GenAE's frames in
a batch of eight, with input and output projections per level. In training both use the package's codebook update, ours
with its own projections and straight-through gradient; in eval mode ours has its own look-up.
"""

# ruff: noqa: E402
import argparse
from collections.abc import Callable
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import alternate, machine, publish, summary, table
from partita_quantizers import ResidualVQ
from torch import Tensor, nn

DIM, LEVELS, CODES, WIDTH = 64, 16, 2048, 8
BATCH, FRAMES = 8, 788


class Direct(nn.Module):
    """The package's quantizers applied to successive residuals."""

    def __init__(self) -> None:
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.levels = nn.ModuleList(
            VectorQuantize(dim=DIM, codebook_dim=WIDTH, codebook_size=CODES, decay=0.99, commitment_weight=0.25)
            for _ in range(LEVELS)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize `(batch, frames, dim)` to values, codes and the commitment loss."""
        values, residual, codes, loss = torch.zeros_like(x), x, [], x.new_zeros(())
        for level in self.levels:
            found, index, commitment = level(residual)
            values, residual, loss = values + found, residual - found.detach(), loss + commitment.sum()
            codes.append(index)
        return values, torch.stack(codes), loss

    def decode(self, codes: Tensor) -> Tensor:
        """Values of codes `(levels, batch, frames)`."""
        return sum(level.get_output_from_indices(index) for level, index in zip(self.levels, codes))  # type: ignore


def main() -> None:
    """Time all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ours = ResidualVQ(
        DIM, num_quantizers=LEVELS, codebook_size=CODES, codebook_dim=WIDTH, quantizer_dropout=0.0, dead_after=0
    )
    theirs = Direct()
    latents = torch.randn(BATCH, DIM, FRAMES)
    across = latents.transpose(1, 2).contiguous()

    def train_ours() -> None:
        x = latents.clone().requires_grad_()
        found = ours(x)
        (found.values.square().mean() + found.losses["commitment"]).backward()

    def train_theirs() -> None:
        x = across.clone().requires_grad_()
        values, _, commitment = theirs(x)
        (values.square().mean() + commitment).backward()

    found = {"training step": alternate({"ours": train_ours, "direct": train_theirs}, rounds=options.rounds)}
    ours.eval(), theirs.eval()
    with torch.no_grad():
        our_codes, their_codes = ours.encode_codes(latents), theirs(across)[1]
        calls: dict[str, dict[str, Callable[[], Any]]] = {
            "codes of latents": {"ours": lambda: ours.encode_codes(latents), "direct": lambda: theirs(across)},
            "values of codes": {
                "ours": lambda: ours.codes_to_values(our_codes),
                "direct": lambda: theirs.decode(their_codes),
            },
        }
        found |= {name: alternate(each, rounds=options.rounds) for name, each in calls.items()}
    times = {name: summary(each) for name, each in found.items()}
    rows = [
        [name, *(f"{1e3 * each[who]['median']:.1f}" for who in ("ours", "direct")), f"{ratio(each):.2f}"]
        for name, each in times.items()
    ]
    facts = machine("vector-quantize-pytorch") | {"latents": f"{BATCH} x {DIM} x {FRAMES}", "rounds": options.rounds}
    header = ["", "ours, median, ms", "vector-quantize-pytorch, median, ms", "speed-up"]
    publish("quantizers", facts, times, table(header, rows))


def ratio(times: dict[str, dict[str, float]]) -> float:
    """Speed-up of ours."""
    return times["direct"]["median"] / times["ours"]["median"]


if __name__ == "__main__":
    main()
