"""SwiGLU adapter from features to the embeddings of a language model."""

from einops import rearrange
from partita_blocks import SwiGLU
from partita_core import TypedModule, config_of, register
from partita_core.ranges import Frames, Width
from torch import Tensor
from torch.nn import functional as F


@register("adapter/swiglu", example={"hidden": 16})
class SwiGLUAdapter(TypedModule):
    """Neighboring frames concatenated, then one gated layer, as in the transcription task of X-ARES (arXiv 2505.16369).

    Args:
        width: width of the features.
        out_dim: width of the embeddings.
        stack: frames per embedding; 2 turns 25 frames per second into 12.5 embeddings per second.
        hidden: number of gated units.

    Attributes:
        stack: frames per embedding.

    Example:
        >>> SwiGLUAdapter(512, 896)(torch.randn(1, 50, 512)).shape
        torch.Size([1, 25, 896])
    """

    def __init__(self, width: int, out_dim: int, *, stack: Frames = 2, hidden: Width = 2048) -> None:
        super().__init__()
        self.stack = stack
        self.mlp = SwiGLU(stack * width, hidden=hidden, out_dim=out_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(batch, frames, width)` to `(batch, ceil(frames / stack), out_dim)`; zeros pad the last stack."""
        features = F.pad(features, (0, 0, 0, -features.shape[1] % self.stack))
        return self.mlp(rearrange(features, "b (n stack) d -> b n (stack d)", stack=self.stack))


SwiGLUAdapterConfig = config_of(SwiGLUAdapter)
