"""SnakeLite against ELU, Snake and its own separate operations, at the sizes of GenAE's stem and first stage.

    python benchmarks/activations.py [--device cuda] [--dtype bfloat16] [--threads N] [--rounds N]

Ten seconds of stereo: 128 channels at the rate of the audio, and after the first stride of 6. On a GPU the table also
says which share of a copy's bytes per second is reached, counting x and y forward, and x twice, y, the gradient of y
and that of x both ways.
"""

# ruff: noqa: E402
import argparse
from functools import partial

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import alternate, machine, publish, summary, table
from partita_blocks import ELU, Snake, SnakeLite
from torch import Tensor, nn

SIZES = {"stem": (1, 128, 443_520), "stage 1": (1, 128, 73_920)}


class SeparateSnakeLite(nn.Module):
    """SnakeLite as one would write it down, differentiated by autograd."""

    def __init__(self, channels: int) -> None:
        """Starts every beta at 1."""
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, length)` to as much."""
        beta = self.log_beta.exp() + 1e-9
        wide = x.float()
        turns = wide * beta
        a = turns - torch.pi * torch.round(turns / torch.pi)
        u = a * a
        return (wide + u * (1 + u * (-1 / 3 + u * (2 / 45 - u / 315))) / beta).to(x.dtype)


def forward(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    """One pass without gradients."""
    with torch.no_grad():
        layer(x)


def both_ways(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    """One pass with gradients by the input and the parameters."""
    torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)


def main() -> None:
    """Times every layer at every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layers = {"SnakeLite": SnakeLite, "ELU": ELU, "Snake": Snake, "SnakeLite, separate": SeparateSnakeLite}
    results, rows = {}, []
    for size, shape in SIZES.items():
        x = torch.randn(shape).to(options.device, getattr(torch, options.dtype)).requires_grad_()
        grad, out = torch.randn_like(x), torch.empty_like(x)
        built = {name: layer(shape[1]).to(options.device) for name, layer in layers.items()}
        for way, call, crossings in (("forward", forward, 2), ("both ways", both_ways, 5)):
            subjects = {name: partial(call, layer, x, grad) for name, layer in built.items()}
            subjects["copy"] = partial(out.copy_, x.detach())
            found = summary(alternate(subjects, rounds=options.rounds, warm_up=2))
            results[f"{size}, {way}"] = found
            for name, figures in found.items():
                row = [size, way, name, f"{1e3 * figures['median']:.3f}"]
                row.append(f"{figures['median'] / found['ELU']['median']:.2f}")
                if x.is_cuda:
                    moved = (2 if name == "copy" else crossings) * x.nbytes / figures["median"]
                    copied = 2 * x.nbytes / found["copy"]["median"]
                    row += [f"{moved / 1e9:.0f}", f"{moved / copied:.2f}"]
                rows.append(row)
    facts = machine() | {"device": options.device, "dtype": options.dtype}
    header = ["128 channels", "", "", "median, ms", "times ELU"]
    header += ["GB/s", "of a copy"] if options.device.startswith("cuda") else []
    publish(f"activations_{options.device}_{options.dtype}".replace(":", ""), facts, results, table(header, rows))


if __name__ == "__main__":
    main()
