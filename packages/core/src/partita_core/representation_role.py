"""Abstract base class of representation encoders: latents to features for understanding tasks."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from .roles import Role
from .streams import StatefulStream, Stream, Streamable, TiledStream, UnboundedError


class RepresentationEncoder(Role, ABC):
    """Map from latents to features for understanding tasks.

    An encoder with unbounded left context carries a state; see `Streamable`, whose `step` returns
    `(batch, frames, width)`.

    Attributes:
        dim: width of the latents.
        tokens_per_frame: latent vectors per frame (K).
        width: width of the features.
    """

    dim: int
    tokens_per_frame: int = 1
    width: int

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Encode latents `(batch, dim, frames * K)` to features `(batch, frames, width)`."""

    def stream(self, batch_size: int, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """Return a stream from frames of latents to features `(batch, width, frames)`, with time last.

        Its latency is in frames.

        Args:
            batch_size: number of items.
            dtype: dtype of the latents.
            width: maximum number of frames per call of `forward`, context aside.

        Raises:
            UnboundedError: the context is unbounded and there is no state to carry.
        """
        k = self.tokens_per_frame
        if isinstance(self, Streamable):
            device = next((tensor.device for tensor in self.parameters()), torch.device("cpu"))
            part = _TimeLast(self)
            return StatefulStream(part, batch_size, layout=None, device=device, dtype=dtype, width=width * k)
        left, right = self.context
        if left is None or right is None:
            raise UnboundedError(f"{type(self).__name__} sees unbounded context and carries no state")
        context = (left, right)
        return TiledStream(lambda x: self(x).mT, units_in=k, units_out=1, context=context, hop=1, width=width)


class _TimeLast:
    """Adapter of a representation encoder with a state to streams, which have time last."""

    def __init__(self, part: Any) -> None:
        self.init_state, self._step = part.init_state, part.step

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        features, state = self._step(x, state, last=last)
        return features.mT, state
