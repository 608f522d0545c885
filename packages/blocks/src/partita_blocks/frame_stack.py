"""Networks over frames that consist of matrix products, the fastest layers on processors without a GPU."""

import torch
from partita_core import PartitaError, TypedModule
from torch import Tensor, nn


def sub_frame_hop(hop: int, count: int) -> int:
    """Samples per sub-frame, if a frame of `hop` samples has `count` of them.

    Raises:
        PartitaError: `count` does not divide the hop.
    """
    if hop % count:
        raise PartitaError(f"a frame of {hop} samples cannot have {count} sub-frames; choose a divisor of the hop")
    return hop // count


class FrameBlock(TypedModule):
    """Residual MLP over each frame and its two neighbors.

    A convolution with kernel 3, written as one matrix product; frames beyond the ends are zero.

    Args:
        width: channels of input and output.
        inner: channels of the hidden layer.
        scale: initial factor of the residual branch, one learned factor per channel.
    """

    def __init__(self, width: int, inner: int, *, scale: float = 0.2) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3 * width, inner), nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, frames, width)` to the same shape."""
        padded = nn.functional.pad(x, (0, 0, 1, 1))
        neighbors = torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=-1)
        return x + self.scale * self.down(nn.functional.silu(self.up(neighbors)))


class FrameStack(TypedModule):
    """Linear layer to `width`, `blocks` residual blocks over neighboring frames, linear layer to `out_dim`.

    Args:
        in_dim: channels of the input.
        out_dim: channels of the output.
        width: channels between the blocks.
        inner: channels of the hidden layer of a block.
        blocks: number of blocks, each of which adds one frame of context to either side.

    Attributes:
        context: frames to either side that a frame of the output depends on.
    """

    def __init__(self, in_dim: int, out_dim: int, *, width: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Linear(in_dim, width)
        self.blocks = nn.Sequential(*(FrameBlock(width, inner) for _ in range(blocks)))
        self.head = nn.Linear(width, out_dim)
        self.context = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, frames, in_dim)` to `(batch, frames, out_dim)`."""
        return self.head(nn.functional.silu(self.blocks(self.stem(x))))
