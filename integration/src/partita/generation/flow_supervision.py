"""Supervision by flow matching: a representation from which the next patch of latents can be generated."""

from dataclasses import dataclass
from typing import Any, Self

from partita_core import Config, LatentSpec, PartitaError, RepresentationEncoder, register
from partita_core.ranges import Extras, Frames, Heads, Layers, Width
from partita_representation import Supervision, SupervisionInput, SupervisionOutput
from torch import nn
from torch.nn import functional as F

from .patch_flow import PatchFlow


@register("supervision/flow")
@dataclass(frozen=True)
class FlowSupervisionConfig(Config):
    """Flow matching of the next patch of latents from the feature before it (as in F3-Tokenizer, arXiv 2606.06357).

    That a flow head is trained beside the representation encoder is from a secondary source; that the features
    condition it directly, and its sizes, are ours.

    Attributes:
        patch: frames per patch.
        history: patches before it that the head sees as they are; 0 leaves it to the features alone.
        width: of the transformer.
        layers: of attention and MLP.
        heads: of the attention.
        head_dim: width of a head.
    """

    patch: Frames = 2
    history: Extras = 1
    width: Width = 512
    layers: Layers = 6
    heads: Heads = 8
    head_dim: Width = 64

    def build(self, *, latent_spec: LatentSpec, representation: RepresentationEncoder, **_: Any) -> "FlowSupervision":
        """Builds it for the features of an encoder of latents of `latent_spec`.

        Raises:
            PartitaError: the encoder sees frames to come, and so those to be generated.
        """
        if representation.context[1] != 0:
            name, seen = type(representation).__name__, representation.context[1]
            raise PartitaError(f"{name} sees {seen} frames to come, which are to be generated; take a causal encoder")
        tokens = self.patch * latent_spec.tokens_per_frame
        flow = PatchFlow(
            latent_spec.dim,
            states=representation.width,
            tokens=tokens,
            history=self.history * tokens,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            head_dim=self.head_dim,
        )
        return FlowSupervision(flow=flow, patch=self.patch, tokens_per_frame=latent_spec.tokens_per_frame)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance."""
        return cls(width=16, layers=1, heads=2, head_dim=8)


class FlowSupervision(Supervision):
    """The velocity error of each patch, given the feature of the frame before it; the first patch is given zeros.

    Gradients reach the features. The metric is `velocity_error`, relative to the variance of the velocity: 1 where
    nothing is predicted.
    """

    def __init__(self, *, flow: nn.Module, patch: int, tokens_per_frame: int) -> None:
        """Assembles it; see `FlowSupervisionConfig`."""
        super().__init__()
        self.flow, self.patch, self.tokens_per_frame = flow, patch, tokens_per_frame

    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """See `Supervision`."""
        patches = -(-inputs.features.shape[1] // self.patch)
        states = F.pad(inputs.features, (0, 0, 1, 0))[:, :: self.patch][:, :patches]
        values = inputs.values.to(inputs.features.dtype)
        return SupervisionOutput(*self.flow(states, values, inputs.frames * self.tokens_per_frame))
