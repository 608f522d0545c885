"""Speed of SnakeLite, ELU, Snake and an unfused SnakeLite, at the sizes of GenAE's stem and first stage.

    python benchmarks/activations.py [--device cuda] [--dtype bfloat16] [--threads N] [--rounds N]

Ten seconds of stereo: 128 channels at the audio sample rate, and after the first stride of 6. On a GPU the table also
has the throughput relative to a copy, counting x and y in the forward pass, and x twice, y, and the gradients of y and
x with the backward pass.
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
    """SnakeLite by its formula, differentiated by autograd."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to `(batch, channels, length)`."""
        beta = self.log_beta.exp() + 1e-9
        wide = x.float()
        turns = wide * beta
        a = turns - torch.pi * torch.round(turns / torch.pi)
        u = a * a
        return (wide + u * (1 + u * (-1 / 3 + u * (2 / 45 - u / 315))) / beta).to(x.dtype)


def forward(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    """A forward pass without gradients."""
    with torch.no_grad():
        layer(x)


def both_ways(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    """A forward and backward pass, with gradients of the input and the parameters."""
    torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)


def main() -> None:
    """Time every layer at every size, and print the table."""
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
            for name, times in found.items():
                row = [size, way, name, f"{1e3 * times['median']:.3f}"]
                row.append(f"{times['median'] / found['ELU']['median']:.2f}")
                if x.is_cuda:
                    moved = (2 if name == "copy" else crossings) * x.nbytes / times["median"]
                    copied = 2 * x.nbytes / found["copy"]["median"]
                    row += [f"{moved / 1e9:.0f}", f"{moved / copied:.2f}"]
                rows.append(row)
    facts = machine() | {"device": options.device, "dtype": options.dtype}
    header = ["128 channels", "", "", "median, ms", "relative to ELU"]
    header += ["GB/s", "relative to a copy"] if options.device.startswith("cuda") else []
    publish(f"activations_{options.device}_{options.dtype}".replace(":", ""), facts, results, table(header, rows))


if __name__ == "__main__":
    main()
