"""Streams: one interface for streaming, tiling and sampling.

A stream is pushed full frames and returns the frames that are final. Tiling a long file is a `TiledStream` with large
pushes; decoding a batch is a stream pushed once. Streams return empty tensors, never None, while nothing is ready.
Only the streams in this module handle empty inputs, so networks need not.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import PartitaError


class UnboundedError(PartitaError):
    """A part has unbounded context and no state, so it can only run on a full recording."""


Tree = Any
"""A tensor, None, or a tuple of these."""


class Stream(Protocol):
    """Incremental processing: push full frames, get back the frames that are final.

    The outputs of successive pushes, joined along the last axis, do not depend on how the input is split.

    Attributes:
        latency: maximum delay in samples of audio: after n samples have been pushed, at least n - latency are out.

    Example:
        >>> stream = model.decoder.stream(layout)
        >>> pieces = [stream.push(latents[..., :3]), stream.push(latents[..., 3:], last=True)]
        >>> torch.allclose(torch.cat(pieces, dim=-1), model.decoder(latents, layout), atol=1e-6)
        True
    """

    latency: int

    def push(self, x: Tree, *, last: bool = False) -> Tree:
        """Push the next frames, possibly 0, and return those that have become final, possibly 0.

        Args:
            x: next input.
            last: True for the end of the recording, after which nothing may be pushed.
        """
        ...


@runtime_checkable
class Streamable(Protocol):
    """A part with a state; its `forward` equals `step` on an initial state with `last=True`."""

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Any:
        """Return the initial state, as a tree of tensors."""
        ...

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        """Process 0 or more frames; return the final output and a new state, without changing any input in place."""
        ...


class FrameAligner:
    """Collect pushes of any length into full frames along the last axis; the last frame is zero-padded."""

    def __init__(self, unit: int, *, samples: int = 1) -> None:
        """Align to frames.

        Args:
            unit: steps of the axis per frame.
            samples: samples of audio per step of the axis.
        """
        self.unit = unit
        self.latency = (unit - 1) * samples
        self._rest: Tensor | None = None

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """Push any number of steps and return the full frames that are complete, or all of them if `last`."""
        x = x if self._rest is None else torch.cat([self._rest, x], dim=-1)
        if last:
            return F.pad(x, (0, -x.shape[-1] % self.unit))
        cut = x.shape[-1] // self.unit * self.unit
        self._rest = x[..., cut:].clone()
        return x[..., :cut]


class TiledStream:
    """Run a function of bounded context tile by tile, with the same result as on the full input.

    The function maps `units_in` steps of the last axis to `units_out` and may depend on `context` frames to either
    side. Each call gets a tile with its context and only the tile's output is kept. At both ends of the recording
    there is no context, as for the full input.
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
        """Tile `fn`.

        Args:
            fn: function from a tensor to a tree of tensors.
            units_in: input steps per frame.
            units_out: output steps per frame.
            context: frames to the left and right that a frame of `fn` depends on.
            hop: samples of audio per frame.
            width: maximum number of output frames per call, which bounds memory.
        """
        self.fn, self.units_in, self.units_out = fn, units_in, units_out
        self.left, self.right = context
        self.width = max(1, width)
        self.latency = self.right * hop
        self._seen: Tensor | None = None  # input that is still needed: up to `left` frames before the next output
        self._next = 0  # index in `_seen` of the next output frame

    def push(self, x: Tensor, *, last: bool = False) -> Tree:
        """Push full frames and return the frames whose context is complete, or all of them if `last`."""
        seen = x if self._seen is None else torch.cat([self._seen, x], dim=-1)
        frames, rest = divmod(seen.shape[-1], self.units_in)
        if rest:
            raise PartitaError(
                f"{seen.shape[-1]} steps were pushed; a multiple of {self.units_in} steps per frame is expected"
            )
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
            # An empty output needs the shape and dtype of `fn`, so run it on one frame of zeros.
            empty = self.fn(seen.new_zeros(*seen.shape[:-1], self.units_in))
            return self._cut(empty, 0, 0)
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)

    def _cut(self, y: Tree, begin: int, stop: int) -> Tree:
        return map_tree(lambda t: t[..., begin * self.units_out : stop * self.units_out], y)


class StatefulStream:
    """Run a `Streamable` part, carrying its state from push to push."""

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
        """Start `part` on its initial state; `width` is the maximum number of input steps per call."""
        self.part, self.width = part, width
        self.latency: int = getattr(part, "latency", 0)
        self._state = part.init_state(batch_size, layout=layout, device=device, dtype=dtype)

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """Push any number of steps, processed at most `width` at a time."""
        pieces = []
        blocks = x.split(self.width, dim=-1) if x.shape[-1] else (x,)
        for index, block in enumerate(blocks):
            y, self._state = self.part.step(block, self._state, last=last and index == len(blocks) - 1)
            pieces.append(y)
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)


class Chain:
    """Streams in series."""

    def __init__(self, *streams: Stream) -> None:
        """Feed the output of each stream to the next."""
        self.streams = streams
        self.latency = sum(stream.latency for stream in streams)

    def push(self, x: Tree, *, last: bool = False) -> Tree:
        """Push through all streams."""
        for stream in self.streams:
            x = stream.push(x, last=last)
        return x


class Parallel:
    """Streams with the same input, whose outputs are combined frame by frame."""

    def __init__(self, combine: Callable[..., Tensor], *streams: Stream) -> None:
        """Push to each of `streams`; `combine` gets one output of each, all of the same number of frames."""
        self.combine, self.streams = combine, streams
        self.latency = max(stream.latency for stream in streams)
        self._ahead: list[Tensor | None] = [None] * len(streams)

    def push(self, x: Tree, *, last: bool = False) -> Tensor:
        """Push to all streams, and combine what all of them have returned."""
        ready = []
        for stream, ahead in zip(self.streams, self._ahead):
            y = stream.push(x, last=last)
            ready.append(y if ahead is None else torch.cat([ahead, y], dim=-1))
        count = min(y.shape[-1] for y in ready)
        self._ahead = [y[..., count:] for y in ready]
        return self.combine(*(y[..., :count] for y in ready))


def map_tree(fn: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `fn` to each tensor in a tree of tensors, tuples and None."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return fn(tree)
    mapped = [map_tree(fn, branch) for branch in tree]
    return type(tree)(*mapped) if hasattr(tree, "_fields") else tuple(mapped)


def concatenate(trees: list[Tree]) -> Tree:
    """Concatenate trees of equal structure along the last axis."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(trees, dim=-1)
    joined = [concatenate([tree[i] for tree in trees]) for i in range(len(first))]
    return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
