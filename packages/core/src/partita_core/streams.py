"""Streaming, tiling and sampling are one idea: a stream takes whole units and returns the units that are final.

Whole-file tiling is `TiledStream` with big pushes; batch decoding is a stream pushed once. Nothing is ever None: what
is not ready yet is an empty tensor, and the drivers here, not the networks, handle emptiness.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import PartitaError


class UnboundedError(PartitaError):
    """A part sees unbounded context and carries no state: it takes the whole at once, or nothing."""


Tree = Any
"""A tensor, None, or a tuple of these."""


class Stream(Protocol):
    """Whole units in, final units out.

    Attributes:
        latency: samples of audio that may be held back: after n pushed, at least n - latency have come out.
    """

    latency: int

    def push(self, x: Tree, *, last: bool = False) -> Tree:
        """Takes what comes next, possibly nothing, and returns what has become final, possibly nothing."""
        ...


@runtime_checkable
class Streamable(Protocol):
    """A part with a state; its `forward` is `step` on a fresh state with `last=True`."""

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Any:
        """A fresh state, as a tree of tensors."""
        ...

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        """Takes zero frames or more; returns what is final and a new state, and changes nothing in place."""
        ...


class FrameAligner:
    """Cuts what is pushed into whole units along the last axis; the last one is padded with zeros."""

    def __init__(self, unit: int, *, samples: int = 1) -> None:
        """Cuts to multiples of `unit`; `samples` is how many samples of audio one step of the axis stands for."""
        self.unit = unit
        self.latency = (unit - 1) * samples
        self._rest: Tensor | None = None

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """Returns the whole units there are by now, all of them where `last`."""
        x = x if self._rest is None else torch.cat([self._rest, x], dim=-1)
        if last:
            return F.pad(x, (0, -x.shape[-1] % self.unit))
        cut = x.shape[-1] // self.unit * self.unit
        self._rest = x[..., cut:].clone()
        return x[..., :cut]


class TiledStream:
    """Runs a function of bounded context piece by piece, with the same result as on the whole.

    The function maps `units_in` steps of the last axis to `units_out` and may look `context` frames to either side.
    Each call sees a piece with its context, of which only the piece is kept; at the true ends there is no context,
    exactly as on the whole.
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tree],
        *,
        units_in: int,
        units_out: int,
        context: tuple[int, int],
        hop: int,
        width: int,
    ) -> None:
        """Drives `fn`.

        Args:
            fn: from a tensor to a tree of tensors.
            units_in: steps of the input a frame.
            units_out: steps of the output a frame.
            context: frames that `fn` sees to the left and right.
            hop: samples of audio a frame.
            width: frames of output a call at most, which bounds memory.
        """
        self.fn, self.units_in, self.units_out = fn, units_in, units_out
        self.left, self.right = context
        self.width = max(1, width)
        self.latency = self.right * hop
        self._seen: Tensor | None = None  # input still needed; begins at most `left` frames before the next output
        self._next = 0  # frame of `_seen` that comes out next

    def push(self, x: Tensor, *, last: bool = False) -> Tree:
        """Takes whole frames; returns the frames whose context is complete, all of them where `last`."""
        seen = x if self._seen is None else torch.cat([self._seen, x], dim=-1)
        frames, rest = divmod(seen.shape[-1], self.units_in)
        if rest:
            raise PartitaError(f"{rest} steps more than whole frames of {self.units_in} were pushed")
        end = frames if last else frames - self.right
        pieces = []
        while self._next < end:
            stop = min(self._next + self.width, end)
            begin, until = max(0, self._next - self.left), min(frames, stop + self.right)
            y = self.fn(seen[..., begin * self.units_in : until * self.units_in])
            pieces.append(self._cut(y, self._next - begin, stop - begin))
            self._next = stop
        cut = max(0, self._next - self.left)
        self._seen = seen[..., cut * self.units_in :].clone()
        self._next -= cut
        if not pieces:
            # One frame of zeros tells what nothing looks like: widths and types are the function's own.
            empty = self.fn(seen.new_zeros(*seen.shape[:-1], self.units_in))
            return self._cut(empty, 0, 0)
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)

    def _cut(self, y: Tree, begin: int, stop: int) -> Tree:
        return map_tree(lambda t: t[..., begin * self.units_out : stop * self.units_out], y)


class StatefulStream:
    """Runs a `Streamable` part, which carries its own state."""

    def __init__(
        self,
        part: Streamable,
        batch_size: int,
        *,
        layout: Tensor | None,
        device: torch.device,
        dtype: torch.dtype,
        width: int,
    ) -> None:
        """Starts `part` on a fresh state; `width` is the most steps of the input that one call takes."""
        self.part, self.width = part, width
        self.latency: int = getattr(part, "latency", 0)
        self._state = part.init_state(batch_size, layout=layout, device=device, dtype=dtype)

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """Steps through `x`, at most `width` at a time."""
        pieces = []
        blocks = x.split(self.width, dim=-1) if x.shape[-1] else (x,)
        for index, block in enumerate(blocks):
            y, self._state = self.part.step(block, self._state, last=last and index == len(blocks) - 1)
            pieces.append(y)
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)


class Chain:
    """Streams one after the other."""

    def __init__(self, *streams: Stream) -> None:
        """Feeds each stream's output to the next."""
        self.streams = streams
        self.latency = sum(stream.latency for stream in streams)

    def push(self, x: Tree, *, last: bool = False) -> Tree:
        """Pushes through all of them."""
        for stream in self.streams:
            x = stream.push(x, last=last)
        return x


def map_tree(fn: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """`fn` of each tensor in a tree of tensors, tuples and None."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return fn(tree)
    mapped = [map_tree(fn, branch) for branch in tree]
    return type(tree)(*mapped) if hasattr(tree, "_fields") else tuple(mapped)


def concatenate(trees: list[Tree]) -> Tree:
    """Trees of one shape, joined along the last axis."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(trees, dim=-1)
    joined = [concatenate([tree[i] for tree in trees]) for i in range(len(first))]
    return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
