"""A representation encoder of latents, as F3-Tokenizer has one (arXiv 2606.06357)."""

from dataclasses import dataclass

import torch
from partita_blocks import CausalTransformer, RMSNorm
from partita_blocks.causal_transformer import CausalState
from partita_core import Config, LatentSpec, PartitaError, RepresentationEncoder, register
from partita_core.ranges import Frames, Heads, Layers, Width
from torch import Tensor, nn


@register("representation/causal_transformer")
@dataclass(frozen=True)
class CausalRepresentationConfig(Config):
    """A causal transformer on latents.

    F3-Tokenizer's architecture is not public. This is the kind that its authors use in an earlier public system
    (causal, without convolutions), and its size is ours.

    Attributes:
        width: of the features, and of the transformer.
        layers: how many.
        heads: of attention, `width` shared out among them.
        mlp_ratio: gated units of a layer, in multiples of `width`.
        window: frames to the left that a layer sees; None for all of them, where the state grows with the recording.
    """

    width: Width = 512
    layers: Layers = 8
    heads: Heads = 8
    mlp_ratio: Layers = 4
    window: Frames | None = None

    def __post_init__(self) -> None:
        """Refuse heads that do not divide the width into even parts."""
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise PartitaError(f"width is {self.width}; it must be a multiple of twice the {self.heads} heads")

    def build(self, *, latent_spec: LatentSpec) -> "CausalRepresentation":
        """Builds the encoder for latents of `latent_spec`."""
        return CausalRepresentation(
            dim=latent_spec.dim,
            tokens_per_frame=latent_spec.tokens_per_frame,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            mlp_dim=self.mlp_ratio * self.width,
            window=self.window,
        )

    @classmethod
    def example(cls) -> "CausalRepresentationConfig":
        """Two layers of width 16 that see three frames each."""
        return cls(width=16, layers=2, heads=2, mlp_ratio=2, window=3)


class CausalRepresentation(RepresentationEncoder):
    """The tokens of a frame side by side, a linear map, a causal transformer, RMSNorm."""

    def __init__(
        self,
        *,
        dim: int,
        tokens_per_frame: int,
        width: int,
        layers: int,
        heads: int,
        mlp_dim: int,
        window: int | None,
    ) -> None:
        """Builds the encoder; see `CausalRepresentationConfig`."""
        super().__init__()
        self.dim, self.tokens_per_frame, self.width = dim, tokens_per_frame, width
        self.project = nn.Linear(dim * tokens_per_frame, width, bias=False)
        self.transformer = CausalTransformer(
            width, layers=layers, heads=heads, head_dim=width // heads, mlp_dim=mlp_dim, window=window
        )
        self.norm = RMSNorm(width)
        self.context = (self.transformer.reach, 0)

    def forward(self, values: Tensor) -> Tensor:
        """`(batch, dim, frames * K)` to `(batch, frames, width)`."""
        return self.norm(self.transformer(self._project(values)))

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> CausalState:
        """The state before the first frame; layouts make no difference."""
        return self.transformer.init_state(batch_size, device=device, dtype=dtype)

    def step(self, values: Tensor, state: CausalState, *, last: bool = False) -> tuple[Tensor, CausalState]:
        """Continues by whole frames of latents, possibly none; nothing is held back."""
        features, state = self.transformer.step(self._project(values), state)
        return self.norm(features), state

    def _project(self, values: Tensor) -> Tensor:
        return self.project(stack_frames(values, self.tokens_per_frame))


def stack_frames(values: Tensor, tokens_per_frame: int) -> Tensor:
    """Latents `(batch, dim, frames * K)` as `(batch, frames, K * dim)`: one token of a frame after the other."""
    return values.mT.unflatten(1, (-1, tokens_per_frame)).flatten(2)
