"""The head for continuous latents: a small transformer that follows a flow from noise to the next patch of frames."""

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

# Steps from noise to a patch, unless said otherwise.
_STEPS = 10


@register("generation_head/flow")
@dataclass(frozen=True)
class FlowHeadConfig(GenerationHeadConfig):
    """Patches of latents by rectified flow, one for every step of the language model.

    As in F3-Tokenizer (arXiv 2606.06357), whose sizes and sampling are not known.

    Attributes:
        patch: frames of a patch.
        history: patches before it that the head sees as they are.
        width: of the transformer.
        layers: of attention and MLP.
        heads: of the attention.
        head_dim: width of a head.
        renormalize: bring every generated vector back to where the codec's latents lie; see `Bottleneck.project`.
    """

    patch: Frames = 2
    history: Extras = 1
    width: Width = 512
    layers: Layers = 6
    heads: Heads = 8
    head_dim: Width = 64
    renormalize: bool = True

    def own_ids(self, spec: LatentSpec) -> int:
        """None."""
        return 0

    def build(
        self, *, codec: Codec, encoder: RepresentationEncoder | None, scale: LatentNormalizer, states: int
    ) -> "FlowHead":
        """Build it; see `GenerationHeadConfig`. The encoder must go step by step."""
        return FlowHead(
            codec.latent_spec.dim,
            tokens_per_frame=codec.latent_spec.tokens_per_frame,
            scale=scale,
            encoder=encoder,
            states=states,
            patch=self.patch,
            history=self.history,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            head_dim=self.head_dim,
            codec=codec if self.renormalize else None,
        )

    @classmethod
    def example(cls) -> Self:
        """A tiny instance."""
        return cls(width=16, layers=1, heads=2, head_dim=8)


class FlowHead(GenerationHead):
    """Noise to a patch of latents, conditioned on the state of the language model and on the patches before.

    See `PatchFlow`. A patch enters the language model as one embedding, a linear map of its latents or of what a
    representation encoder makes of them.
    """

    of_codes = False

    def __init__(
        self,
        dim: int,
        *,
        tokens_per_frame: int,
        scale: LatentNormalizer,
        encoder: RepresentationEncoder | None,
        states: int,
        patch: int,
        history: int,
        width: int,
        layers: int,
        heads: int,
        head_dim: int,
        codec: Codec | None,
    ) -> None:
        """Build the head for latents of width `dim`; see `FlowHeadConfig`.

        Generated vectors are brought back to where the latents of `codec` lie; None leaves them as they are.
        """
        super().__init__()
        if encoder is not None and not (isinstance(encoder, Streamable) and encoder.context[1] == 0):
            name = type(encoder).__name__
            raise PartitaError(f"{name} does not go step by step: it sees what comes after a frame, or has no state")
        self.dim, self.scale, self.patch = dim, scale, patch
        self.codec = None if codec is None else Frozen(codec)
        self.tokens_per_frame = tokens_per_frame
        self.tokens, self.history = patch * tokens_per_frame, history * patch * tokens_per_frame
        self.encoder = None if encoder is None else Frozen(encoder)
        heard = tokens_per_frame * dim if encoder is None else encoder.width
        self.hearing = nn.Linear(patch * heard, states)
        self.flow = PatchFlow(
            dim,
            states=states,
            tokens=self.tokens,
            history=self.history,
            width=width,
            layers=layers,
            heads=heads,
            head_dim=head_dim,
        )

    def steps(self, frames: Any) -> Any:
        """Patches, the last one padded."""
        return -(-frames // self.patch)

    def frames(self, steps: int) -> int:
        """All of a patch's."""
        return steps * self.patch

    def inputs(self, target: Tensor, backbone: Backbone) -> Tensor:
        """Latents `(batch, dim, frames * K)` to an embedding each patch; see `GenerationHead`."""
        values = self._normalize(target)
        if self.encoder is None:
            heard = values.mT.unflatten(1, (-1, self.tokens_per_frame)).flatten(2)
        else:
            with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
                heard = self.encoder(values.to(_dtype(self.encoder.module)))
        return self._hear(F.pad(heard, (0, 0, 0, -heard.shape[1] % self.patch)))

    def _normalize(self, target: Tensor) -> Tensor:
        return self.scale.normalize(target.to(self.hearing.weight.dtype))

    def _hear(self, frames: Tensor) -> Tensor:
        """`(batch, patches * patch, width of a frame)` to `(batch, patches, width of the language model)`."""
        return self.hearing(frames.to(self.hearing.weight.dtype).unflatten(1, (-1, self.patch)).flatten(2))

    def forward(self, states: Tensor, target: Tensor, frames: Tensor, backbone: Backbone) -> HeadOutput:
        """The error of the velocity at a time drawn for each patch; see `GenerationHead`."""
        return HeadOutput(*self.flow(states, self._normalize(target), frames * self.tokens_per_frame))

    def rollout(
        self, frames: int, seeds: Tensor, sampling: Sampling, backbone: Backbone, start: Start | None = None
    ) -> "FlowRollout":
        """See `GenerationHead`. Given frames that do not fill a patch are drawn, with the rest of it."""
        if sampling.top_k is not None:
            raise PartitaError("top_k is for codes; these latents are continuous")
        return FlowRollout(self, frames, seeds, sampling, start)

    def regular(self, values: Tensor) -> Tensor:
        """Generated vectors `(batch, dim, tokens)`, back to where the codec's latents lie."""
        codec: Any = None if self.codec is None else self.codec.module
        if codec is None:
            return values
        plain = self.scale.denormalize(values)
        projected = codec.project(plain)
        return values if projected is plain else self.scale.normalize(projected)


class FlowRollout(Rollout):
    """Patches as they are generated."""

    def __init__(self, head: FlowHead, frames: int, seeds: Tensor, sampling: Sampling, start: Start | None) -> None:
        """Begins with nothing generated."""
        self.head, self.seeds, self.sampling = head, seeds, sampling
        self.count = frames * head.tokens_per_frame
        self.like = head.hearing.weight
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
        """See `Rollout`."""
        head, step = self.head, len(self.patches)
        is_given = step < self.given_patches
        patch = self._drawn(step, states, unconditional) if not is_given.all() else None
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
        return head._hear(frames)[:, 0]

    def _drawn(self, step: int, states: Tensor, unconditional: Tensor | None) -> Tensor:
        """The next patch `(batch, dim, tokens)`, by the flow."""
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
        return head.regular(patch.mT)

    def result(self) -> Tensor:
        """Values as the codec makes them."""
        return self.head.scale.denormalize(torch.cat(self.patches, dim=-1)[..., : self.count])


def _dtype(module: nn.Module) -> torch.dtype:
    """Of a module's weights."""
    return next((tensor.dtype for tensor in module.parameters()), torch.float32)
