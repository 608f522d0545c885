"""Features to embeddings of a language model."""

from dataclasses import dataclass

from partita_blocks import SwiGLU
from partita_core import Config, register
from partita_core.ranges import Frames, Width
from torch import Tensor, nn
from torch.nn import functional as F


@register("adapter/swiglu")
@dataclass(frozen=True)
class SwiGLUAdapterConfig(Config):
    """Neighboring frames side by side, then one gated layer, as the adapter of X-ARES' transcription task.

    Attributes:
        stack: frames that become one embedding: 25 a second become 12.5.
        hidden: gated units.
    """

    stack: Frames = 2
    hidden: Width = 2048

    def build(self, *, width: int, out_dim: int) -> "SwiGLUAdapter":
        """Builds the adapter from features of `width` to embeddings of `out_dim`."""
        return SwiGLUAdapter(width=width, out_dim=out_dim, stack=self.stack, hidden=self.hidden)

    @classmethod
    def example(cls) -> "SwiGLUAdapterConfig":
        """16 units."""
        return cls(hidden=16)


class SwiGLUAdapter(nn.Module):
    """SwiGLU of stacked frames.

    Attributes:
        stack: frames that become one embedding.
    """

    def __init__(self, *, width: int, out_dim: int, stack: int, hidden: int) -> None:
        """Builds the adapter; see `SwiGLUAdapterConfig`."""
        super().__init__()
        self.stack = stack
        self.mlp = SwiGLU(stack * width, hidden=hidden, out_dim=out_dim)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, frames, width)` to `(batch, ceil(frames / stack), out_dim)`; zeros fill up the last stack."""
        features = F.pad(features, (0, 0, 0, -features.shape[1] % self.stack))
        return self.mlp(features.unflatten(1, (-1, self.stack)).flatten(2))
