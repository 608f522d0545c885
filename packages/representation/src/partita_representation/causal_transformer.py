"""Causal transformer from latents to features, as in F3-Tokenizer (arXiv 2606.06357)."""

import torch
from einops import rearrange
from partita_blocks import CausalTransformer, RMSNorm
from partita_blocks.causal_transformer import CausalState
from partita_core import LatentSpec, PartitaError, RepresentationEncoder, config_of, register
from partita_core.ranges import Frames, Heads, Layers, Width
from torch import Tensor, nn


@register(
    "representation/causal_transformer",
    example={"width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2, "window": 3},
)
class CausalRepresentation(RepresentationEncoder):
    """Features from latents: the tokens of each frame concatenated, a linear map, a causal transformer, RMSNorm.

    The architecture of F3-Tokenizer is not public. This is the kind that its authors use in an earlier public system
    (causal, without convolutions); the sizes are our choice.

    Args:
        latent_spec: latents that the encoder takes.
        width: width of the features and of the transformer, a multiple of `2 * heads`.
        layers: number of transformer layers.
        heads: number of attention heads per layer; each is `width / heads` wide.
        mlp_ratio: gated units per layer, in multiples of `width`.
        window: frames to the left that each layer attends to; None for all of them, with a streaming state that grows
            with the recording.

    Raises:
        PartitaError: `width` is not a multiple of `2 * heads`.

    Example:
        >>> encoder = CausalRepresentation(LatentSpec(dim=64, sample_rate=24_000, hop=960), width=128, heads=4)
        >>> encoder(torch.randn(1, 64, 50)).shape  # (batch, dim, frames) to (batch, frames, width)
        torch.Size([1, 50, 128])
    """

    def __init__(
        self,
        latent_spec: LatentSpec,
        *,
        width: Width = 512,
        layers: Layers = 8,
        heads: Heads = 8,
        mlp_ratio: Layers = 4,
        window: Frames | None = None,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise PartitaError(f"width {width} is not a multiple of {2 * heads}, twice the {heads} heads")
        self.dim, self.tokens_per_frame, self.width = latent_spec.dim, latent_spec.tokens_per_frame, width
        self.project = nn.Linear(self.dim * self.tokens_per_frame, width, bias=False)
        self.transformer = CausalTransformer(
            width, layers=layers, heads=heads, head_dim=width // heads, mlp_dim=mlp_ratio * width, window=window
        )
        self.norm = RMSNorm(width)
        self.context = (self.transformer.left_context, 0)

    def forward(self, values: Tensor) -> Tensor:
        """Map latents `(batch, dim, frames * K)` to features `(batch, frames, width)`."""
        return self.norm(self.transformer(self._project(values)))

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> CausalState:
        """State before the first frame; `layout` makes no difference."""
        return self.transformer.init_state(batch_size, device=device, dtype=dtype)

    def step(self, values: Tensor, state: CausalState, *, last: bool = False) -> tuple[Tensor, CausalState]:
        """Continue with complete frames of latents, possibly none; there is no latency."""
        features, state = self.transformer.step(self._project(values), state)
        return self.norm(features), state

    def _project(self, values: Tensor) -> Tensor:
        return self.project(stack_frames(values, self.tokens_per_frame))


def stack_frames(values: Tensor, tokens_per_frame: int) -> Tensor:
    """Concatenate the tokens of each frame: latents `(batch, dim, frames * K)` to `(batch, frames, K * dim)`."""
    return rearrange(values, "b d (n k) -> b n (k d)", k=tokens_per_frame)


CausalRepresentationConfig = config_of(CausalRepresentation)
