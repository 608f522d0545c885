"""Token head: codes as ids of the language model, each sampled from the codes of its level."""

from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from partita_core import (
    Codec,
    LatentNormalizer,
    LatentSpec,
    PartitaError,
    RepresentationEncoder,
    keyed_noise,
    length_mask,
    process_mean,
    register,
    upcast,
)
from partita_core.ranges import Layers
from partita_losses import guided
from partita_quantizers import TokenSpace, delay_codes, flatten_codes
from torch import Tensor
from torch.nn import functional as F

from .backbone import Backbone
from .heads import GenerationHead, GenerationHeadConfig, HeadOutput, Rollout, Sampling, Start


@register("generation_head/tokens")
@dataclass(frozen=True)
class TokenHeadConfig(GenerationHeadConfig):
    """Codes as ids of the language model's vocabulary, after those of the text.

    Attributes:
        num_quantizers: number of levels to generate; None for all.
        layout: "delay" generates one code per level in each step, each level one step later than the previous one
            (MusicGen, arXiv 2306.05284, section 2.2); "flat" generates one code per step: slower by the number of
            levels, with each code conditioned on all previous ones.
    """

    num_quantizers: Layers | None = None
    layout: Literal["flat", "delay"] = "delay"

    def own_ids(self, spec: LatentSpec) -> int:
        """Number of ids: those of the codes, and three special ones."""
        return self._space(spec).vocab_size

    def build(
        self, *, codec: Codec, encoder: RepresentationEncoder | None, scale: LatentNormalizer, states: int
    ) -> "TokenHead":
        """Build the head, which has no weights; see `GenerationHeadConfig`."""
        if encoder is not None:
            raise PartitaError("a token head embeds codes and takes no representation encoder; use the codec instead")
        return TokenHead(self._space(codec.latent_spec), tokens_per_frame=codec.latent_spec.tokens_per_frame)

    def _space(self, spec: LatentSpec) -> TokenSpace:
        if not spec.codebook_sizes:
            raise PartitaError("the codec has no codes; use model.head=flow, or quantize the codec first")
        return TokenSpace(spec.codebook_sizes, self.num_quantizers, self.layout)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class TokenHead(GenerationHead):
    """Prediction of the codes of a step from the state before it, by the language model's output layer.

    At every position only the ids of one level are possible, and the softmax is over these, in training and sampling.
    In the delay layout the levels of a step share a state, and the input embedding is the sum over levels.

    Args:
        space: ids of the codes.
        tokens_per_frame: tokens per frame.
    """

    of_codes = True

    def __init__(self, space: TokenSpace, *, tokens_per_frame: int) -> None:
        super().__init__()
        self.space, self.tokens_per_frame = space, tokens_per_frame
        self.levels = len(space.kept)

    def steps(self, frames: Any) -> Any:
        """Number of steps of the layout, without start and end ids."""
        return self.space.length(frames * self.tokens_per_frame) - 2

    def frames(self, steps: int) -> int | None:
        """Number of frames, if these steps end with the last code of a frame."""
        steps_per_token = self.levels if self.space.layout == "flat" else 1
        delay = 0 if self.space.layout == "flat" else self.levels - 1
        complete, rest = divmod(steps - delay, steps_per_token * self.tokens_per_frame)
        return None if rest or complete < 0 else complete

    def ids(self, level: int, backbone: Backbone) -> range:
        """Ids of a level's codes in the language model's vocabulary."""
        ids = self.space.level_ids(level)
        return range(backbone.first_id + ids.start, backbone.first_id + ids.stop)

    def positions(self, step: int, tokens: int) -> list[tuple[int, int]]:
        """Level and token of each code of a step, for sequences of `tokens` tokens."""
        if self.space.layout == "flat":
            return [(step % self.levels, step // self.levels)]
        return [(level, step - level) for level in range(self.levels) if 0 <= step - level < tokens]

    def inputs(self, target: Tensor, backbone: Backbone) -> Tensor:
        """Embed codes `(batch, levels or more, frames * K)`, one embedding per step; see `GenerationHead`."""
        firsts = target.new_tensor([self.ids(level, backbone).start for level in range(self.levels)])
        codes = target[:, : self.levels]
        pad = backbone.first_id + self.space.pad_id
        ids = torch.where(codes >= 0, codes + firsts[:, None], pad)
        if self.space.layout == "flat":
            return backbone.embed(flatten_codes(ids))
        return backbone.embed(delay_codes(ids, pad)).sum(1)

    def forward(self, states: Tensor, target: Tensor, frames: Tensor, backbone: Backbone) -> HeadOutput:
        """Compute the cross-entropy of the codes, averaged over all levels; see `GenerationHead`."""
        tokens = target.shape[-1]
        inside = length_mask(frames * self.tokens_per_frame, tokens).to(target.device)
        losses, correct, counts = [], [], []
        for level in range(self.levels):
            flat = self.space.layout == "flat"
            before = states[:, level :: self.levels] if flat else states[:, level : level + tokens]
            logits = upcast(backbone.logits(before, self.ids(level, backbone)))
            codes = target[:, level]
            counted = (inside & (codes >= 0)).to(logits.dtype)
            error = F.cross_entropy(logits.mT, codes.clamp(min=0), reduction="none")
            losses.append((error * counted).sum())
            correct.append(((logits.argmax(-1) == codes) * counted).sum())
            counts.append(counted.sum())
        total, right, count = (torch.stack(values) for values in (losses, correct, counts))
        shares = right / count.clamp(min=1)
        metrics = {"accuracy": right.sum() / count.sum().clamp(min=1)}
        metrics |= {f"accuracy_{level}": share for level, share in enumerate(shares)}
        return HeadOutput(process_mean(total.sum(), count.sum()), {name: x.detach() for name, x in metrics.items()})

    def rollout(
        self, frames: int, seeds: Tensor, sampling: Sampling, backbone: Backbone, start: Start | None = None
    ) -> "TokenRollout":
        """Start sampling; see `GenerationHead`."""
        if sampling.steps is not None:
            raise PartitaError("steps applies to flows, but this model generates codes; leave it out")
        return TokenRollout(self, frames, seeds, sampling, backbone, start)


class TokenRollout(Rollout):
    """Codes sampled so far."""

    def __init__(
        self,
        head: TokenHead,
        frames: int,
        seeds: Tensor,
        sampling: Sampling,
        backbone: Backbone,
        start: Start | None,
    ) -> None:

        self.head, self.seeds, self.sampling, self.backbone = head, seeds, sampling, backbone
        tokens = frames * head.tokens_per_frame
        self.codes = torch.full((len(seeds), len(head.space.codebook_sizes), tokens), -1)
        self.given = torch.full_like(self.codes, -1)
        if start is not None:
            count = min(start.target.shape[-1], tokens)
            inside = torch.arange(count) < (start.frames.cpu() * head.tokens_per_frame)[:, None, None]
            self.given[..., :count] = torch.where(inside, start.target[..., :count].cpu(), -1)
        self.step = 0

    def push(self, states: Tensor, unconditional: Tensor | None) -> Tensor:
        """Sample the codes of the next step, or take the given ones; see `Rollout`."""
        head, backbone = self.head, self.backbone
        ids = torch.full((len(states), head.levels), backbone.first_id + head.space.pad_id)
        positions = head.positions(self.step, self.codes.shape[-1])
        for level, token in positions:
            level_ids = head.ids(level, backbone)
            logits = backbone.logits(states, level_ids)
            if unconditional is not None:
                logits = guided(logits, backbone.logits(unconditional, level_ids), self.sampling.guidance)
            normal = keyed_noise(self.seeds, "code", token, level, shape=())
            code = sample(logits.cpu(), normal, temperature=self.sampling.temperature, top_k=self.sampling.top_k)
            given = self.given[:, level, token]
            code = torch.where(given >= 0, given, code)
            self.codes[:, level, token] = code
            ids[:, level] = level_ids.start + code
        self.step += 1
        if head.space.layout == "flat":
            ids = ids[:, positions[0][0], None]
        return backbone.embed(ids.to(states.device)).sum(1)

    def result(self) -> Tensor:
        """Codes of all levels of the quantizer, -1 for levels that are not generated."""
        return self.codes


def sample(logits: Tensor, normal: Tensor, *, temperature: float, top_k: int | None) -> Tensor:
    """Sample a class per row from given standard normal numbers, by inverting the distribution function.

    Args:
        logits: `(batch, classes)`.
        normal: standard normal numbers `(batch,)`, the only source of randomness.
        temperature: sampling temperature; 0 for the most likely class.
        top_k: number of most likely classes that are considered; None for all.

    Returns:
        `(batch,)` int64.
    """
    logits = logits.double()
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if temperature == 0:
        return logits.argmax(-1)
    ends = (logits / temperature).softmax(-1).cumsum(-1)
    quantile = torch.special.ndtr(normal.double())[:, None] * ends[:, -1:]
    return torch.searchsorted(ends, quantile, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
