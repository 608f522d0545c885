"""Flow-matching supervision of representations: prediction of the next patch of latents from the feature before it."""

from partita_core import LatentSpec, PartitaError, RepresentationEncoder, config_of, register
from partita_core.ranges import Extras, Frames, Heads, Layers, Width
from partita_representation import Supervision, SupervisionInput, SupervisionOutput
from torch.nn import functional as F

from .patch_flow import PatchFlow


@register("supervision/flow", example={"width": 16, "layers": 1, "heads": 2, "head_dim": 8})
class FlowSupervision(Supervision):
    """Velocity error of each patch, given the feature of the frame before it (as in F3-Tokenizer, arXiv 2606.06357).

    That a flow head is trained together with the representation encoder is known from a secondary source; that the
    features condition it directly, and its sizes, are ours. The first patch is given zeros. Gradients reach the
    features. The metric is `velocity_error`, relative to the variance of the velocity: 1 for predicting the mean.

    Args:
        latent_spec: latents that the encoder takes.
        representation: causal encoder in training.
        patch: frames per patch.
        history: number of past patches that the transformer takes as input; 0 relies on the features alone.
        width: width of the transformer.
        layers: layers of the transformer.
        heads: attention heads.
        head_dim: width of an attention head.

    Raises:
        PartitaError: the encoder depends on future frames, which it would have to predict.
    """

    def __init__(
        self,
        latent_spec: LatentSpec,
        representation: RepresentationEncoder,
        *,
        patch: Frames = 2,
        history: Extras = 1,
        width: Width = 512,
        layers: Layers = 6,
        heads: Heads = 8,
        head_dim: Width = 64,
    ) -> None:
        super().__init__()
        if representation.context[1] != 0:
            name, seen = type(representation).__name__, representation.context[1]
            raise PartitaError(f"{name} depends on {seen} future frames, which are predicted; use a causal encoder")
        self.patch, self.tokens_per_frame = patch, latent_spec.tokens_per_frame
        tokens = patch * latent_spec.tokens_per_frame
        self.flow = PatchFlow(
            latent_spec.dim,
            states=representation.width,
            tokens=tokens,
            history=history * tokens,
            width=width,
            layers=layers,
            heads=heads,
            head_dim=head_dim,
        )

    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """Compute the velocity error; see `Supervision`."""
        patches = -(-inputs.features.shape[1] // self.patch)
        states = F.pad(inputs.features, (0, 0, 1, 0))[:, :: self.patch][:, :patches]
        values = inputs.values.to(inputs.features.dtype)
        return SupervisionOutput(*self.flow(states, values, inputs.frames * self.tokens_per_frame))


FlowSupervisionConfig = config_of(FlowSupervision)
