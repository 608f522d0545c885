"""Flow head: a small transformer that generates patches of continuous latents by rectified flow."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from partita_core import (
    Codec,
    Frozen,
    LatentNormalizer,
    LatentSpec,
    PartitaError,
    RepresentationEncoder,
    Streamable,
    keyed_noise,
    register,
)
from partita_core.ranges import Extras, Frames, Heads, Layers, Width
from partita_losses import euler_flow, guided
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone
from .heads import GenerationHead, GenerationHeadConfig, HeadOutput, Rollout, Sampling, Start
from .patch_flow import PatchFlow

# Default number of integration steps from noise to a patch.
_STEPS = 10


@register("generation_head/flow")
@dataclass(frozen=True)
class FlowHeadConfig(GenerationHeadConfig):
    """Patches of latents by rectified flow, one per step of the language model.

    As in F3-Tokenizer (arXiv 2606.06357), whose sizes and sampling are not published.

    Attributes:
        patch: frames per patch.
        history: number of past patches that the head takes as input.
        width: width of the transformer.
        layers: layers of the transformer.
        heads: attention heads.
        head_dim: width of an attention head.
        renormalize: project generated vectors to the codec's latent manifold; see `Bottleneck.project`.
    """

    patch: Frames = 2
    history: Extras = 1
    width: Width = 512
    layers: Layers = 6
    heads: Heads = 8
    head_dim: Width = 64
    renormalize: bool = True

    def own_ids(self, spec: LatentSpec) -> int:
        """Zero: the head needs no ids in the vocabulary."""
        return 0

    def build(
        self, *, codec: Codec, encoder: RepresentationEncoder | None, scale: LatentNormalizer, states: int
    ) -> "FlowHead":
        """Build the head; see `GenerationHeadConfig`. The encoder must be causal and have a state."""
        return FlowHead(self, codec=codec, encoder=encoder, scale=scale, states=states)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance."""
        return cls(width=16, layers=1, heads=2, head_dim=8)


class FlowHead(GenerationHead):
    """Noise to a patch of latents, conditioned on the language model's state and on past patches; see `PatchFlow`.

    The language model's input is one embedding per patch, a linear map of its latents or of their encoding by a
    representation encoder.

    Args:
        config: sizes and settings.
        codec: codec of the latents.
        encoder: encoder of the language model's inputs; None for the latents themselves.
        scale: normalizer of the latents.
        states: width of the language model's states.

    Raises:
        PartitaError: the encoder depends on future frames or has no state.
    """

    of_codes = False

    def __init__(
        self,
        config: FlowHeadConfig,
        *,
        codec: Codec,
        encoder: RepresentationEncoder | None,
        scale: LatentNormalizer,
        states: int,
    ) -> None:
        super().__init__()
        if encoder is not None and not (isinstance(encoder, Streamable) and encoder.context[1] == 0):
            name = type(encoder).__name__
            raise PartitaError(f"{name} depends on future frames or has no state; use a causal encoder with a state")
        spec = codec.latent_spec
        self.dim, self.scale, self.patch = spec.dim, scale, config.patch
        self.codec = Frozen(codec) if config.renormalize else None
        self.tokens_per_frame = spec.tokens_per_frame
        self.tokens = config.patch * self.tokens_per_frame
        self.history = config.history * self.tokens
        self.encoder = None if encoder is None else Frozen(encoder)
        frame_width = self.tokens_per_frame * self.dim if encoder is None else encoder.width
        self.patch_embed = nn.Linear(config.patch * frame_width, states)
        self.flow = PatchFlow(
            self.dim,
            states=states,
            tokens=self.tokens,
            history=self.history,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            head_dim=config.head_dim,
        )

    def steps(self, frames: Any) -> Any:
        """Number of patches, the last one padded."""
        return -(-frames // self.patch)

    def frames(self, steps: int) -> int:
        """Number of frames of complete patches."""
        return steps * self.patch

    def inputs(self, target: Tensor, backbone: Backbone) -> Tensor:
        """Embed latents `(batch, dim, frames * K)`, one embedding per patch; see `GenerationHead`."""
        values = self._normalize(target)
        if self.encoder is None:
            frames = values.mT.unflatten(1, (-1, self.tokens_per_frame)).flatten(2)
        else:
            with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
                frames = self.encoder(values.to(_dtype(self.encoder.module)))
        return self._embed_patch(F.pad(frames, (0, 0, 0, -frames.shape[1] % self.patch)))

    def _normalize(self, target: Tensor) -> Tensor:
        return self.scale.normalize(target.to(self.patch_embed.weight.dtype))

    def _embed_patch(self, frames: Tensor) -> Tensor:
        """Embed frames `(batch, patches * patch, frame width)` as `(batch, patches, width of the language model)`."""
        return self.patch_embed(frames.to(self.patch_embed.weight.dtype).unflatten(1, (-1, self.patch)).flatten(2))

    def forward(self, states: Tensor, target: Tensor, frames: Tensor, backbone: Backbone) -> HeadOutput:
        """Compute the velocity error at a random time per patch; see `GenerationHead`."""
        return HeadOutput(*self.flow(states, self._normalize(target), frames * self.tokens_per_frame))

    def rollout(
        self, frames: int, seeds: Tensor, sampling: Sampling, backbone: Backbone, start: Start | None = None
    ) -> "FlowRollout":
        """Start sampling; see `GenerationHead`. Given frames that do not fill a patch are sampled again."""
        if sampling.top_k is not None:
            raise PartitaError("top_k applies to codes, but these latents are continuous; leave it out")
        return FlowRollout(self, frames, seeds, sampling, start)

    def project(self, values: Tensor) -> Tensor:
        """Project generated vectors `(batch, dim, tokens)` to the codec's latent manifold, if it has one."""
        codec: Any = None if self.codec is None else self.codec.module
        if codec is None:
            return values
        plain = self.scale.denormalize(values)
        projected = codec.project(plain)
        return values if projected is plain else self.scale.normalize(projected)


class FlowRollout(Rollout):
    """Patches sampled so far."""

    def __init__(self, head: FlowHead, frames: int, seeds: Tensor, sampling: Sampling, start: Start | None) -> None:
        self.head, self.seeds, self.sampling = head, seeds, sampling
        self.count = frames * head.tokens_per_frame
        self.like = head.patch_embed.weight
        self.patches: list[Tensor] = []
        self.given, self.given_patches = self.like.new_zeros(len(seeds), head.dim, 0), seeds.new_zeros(len(seeds))
        if start is not None:
            self.given = head.scale.normalize(start.target.to(self.like))
            self.given_patches = (start.frames // head.patch).cpu()
        encoder = None if head.encoder is None else head.encoder.module
        self.encoder: Any = encoder
        if encoder is not None:
            self.dtype = _dtype(encoder)
            self.state = self.encoder.init_state(len(seeds), device=self.like.device, dtype=self.dtype)

    def push(self, states: Tensor, unconditional: Tensor | None) -> Tensor:
        """Sample the next patch, or take the given one; see `Rollout`."""
        head, step = self.head, len(self.patches)
        is_given = step < self.given_patches
        patch = self._sample(step, states, unconditional) if not is_given.all() else None
        if is_given.any():
            given = self.given[..., step * head.tokens : (step + 1) * head.tokens]
            given = F.pad(given, (0, head.tokens - given.shape[-1]))
            patch = given if patch is None else torch.where(is_given[:, None, None].to(given.device), given, patch)
        assert patch is not None
        self.patches.append(patch)
        if self.encoder is None:
            frames = patch.mT.unflatten(1, (head.patch, head.tokens_per_frame)).flatten(2)
        else:
            frames, self.state = self.encoder.step(patch.to(self.dtype), self.state)
        return head._embed_patch(frames)[:, 0]

    def _sample(self, step: int, states: Tensor, unconditional: Tensor | None) -> Tensor:
        """Sample the next patch `(batch, dim, tokens)` by integrating the flow."""
        head = self.head
        noise = keyed_noise(self.seeds, "patch", step, shape=(head.tokens, head.dim)).to(self.like)
        recent = self.patches[max(0, step - head.history // head.tokens) :]
        before = torch.cat([self.like.new_zeros(len(noise), head.dim, head.history), *recent], dim=-1)
        history = before[..., before.shape[-1] - head.history :].mT

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            if unconditional is None:
                return head.flow.velocity(x, time, states, history)
            both = torch.cat([states, unconditional])
            found = head.flow.velocity(torch.cat([x, x]), torch.cat([time, time]), both, torch.cat([history, history]))
            conditional, free = found.chunk(2)
            return guided(conditional, free, self.sampling.guidance)

        patch = euler_flow(velocity, noise * self.sampling.temperature, steps=self.sampling.steps or _STEPS)
        return head.project(patch.mT)

    def result(self) -> Tensor:
        """Codec values `(batch, dim, frames * K)`."""
        return self.head.scale.denormalize(torch.cat(self.patches, dim=-1)[..., : self.count])


def _dtype(module: nn.Module) -> torch.dtype:
    """Data type of a module's weights."""
    return next((tensor.dtype for tensor in module.parameters()), torch.float32)
