"""The head for codes: an ordinary language model on ids, each drawn from the codes of its level alone."""

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
    """Codes as ids of the language model's vocabulary, behind those of the text.

    Attributes:
        num_quantizers: levels that are generated, the first ones; None for all.
        layout: "delay", where a step makes one code of every level, each level a step behind the one before
            (MusicGen, arXiv 2306.05284, section 2.2), or "flat", where it makes one code: slower by the number of
            levels, and nothing is drawn without what goes before.
    """

    num_quantizers: Layers | None = None
    layout: Literal["flat", "delay"] = "delay"

    def own_ids(self, spec: LatentSpec) -> int:
        """Those of the codes, and three special ones."""
        return self._space(spec).vocab_size

    def build(
        self, *, codec: Codec, encoder: RepresentationEncoder | None, scale: LatentNormalizer, states: int
    ) -> "TokenHead":
        """Builds it; see `GenerationHeadConfig`. It has no weights of its own, and hears codes as ids."""
        if encoder is not None:
            raise PartitaError("codes are heard as ids, not through a representation; name the codec itself")
        return TokenHead(self._space(codec.latent_spec), tokens_per_frame=codec.latent_spec.tokens_per_frame)

    def _space(self, spec: LatentSpec) -> TokenSpace:
        if not spec.codebook_sizes:
            raise PartitaError("the codec makes no codes; take model.head=flow, or quantize it first")
        return TokenSpace(spec.codebook_sizes, self.num_quantizers, self.layout)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class TokenHead(GenerationHead):
    """Predicts the codes of a step from the state before it, through the language model's own output layer.

    At every place only the ids of one level can be right, and the softmax is over these, in training as in sampling.
    In the delay layout the levels of a step share a state, and what is heard of a step is the sum of their embeddings.
    """

    of_codes = True

    def __init__(self, space: TokenSpace, *, tokens_per_frame: int) -> None:
        """Takes the ids, and tokens a frame."""
        super().__init__()
        self.space, self.tokens_per_frame = space, tokens_per_frame
        self.levels = len(space.kept)

    def steps(self, frames: Any) -> Any:
        """Steps of the layout without its start and end."""
        return self.space.length(frames * self.tokens_per_frame) - 2

    def frames(self, steps: int) -> int | None:
        """Frames, where these steps end with the last code of one."""
        of_token = self.levels if self.space.layout == "flat" else 1
        before = 0 if self.space.layout == "flat" else self.levels - 1
        whole, rest = divmod(steps - before, of_token * self.tokens_per_frame)
        return None if rest or whole < 0 else whole

    def ids(self, level: int, backbone: Backbone) -> range:
        """The ids of a level's codes in the language model's vocabulary."""
        ids = self.space.level_ids(level)
        return range(backbone.first_id + ids.start, backbone.first_id + ids.stop)

    def places(self, step: int, tokens: int) -> list[tuple[int, int]]:
        """The level and token of each code that a step makes, of sequences of `tokens` tokens."""
        if self.space.layout == "flat":
            return [(step % self.levels, step // self.levels)]
        return [(level, step - level) for level in range(self.levels) if 0 <= step - level < tokens]

    def inputs(self, target: Tensor, backbone: Backbone) -> Tensor:
        """Codes `(batch, levels or more, frames * K)` to an embedding each step; see `GenerationHead`."""
        firsts = target.new_tensor([self.ids(level, backbone).start for level in range(self.levels)])
        codes = target[:, : self.levels]
        pad = backbone.first_id + self.space.pad_id
        ids = torch.where(codes >= 0, codes + firsts[:, None], pad)
        if self.space.layout == "flat":
            return backbone.embed(flatten_codes(ids))
        return backbone.embed(delay_codes(ids, pad)).sum(1)

    def forward(self, states: Tensor, target: Tensor, frames: Tensor, backbone: Backbone) -> HeadOutput:
        """The cross-entropy of the codes, a mean over all levels; see `GenerationHead`."""
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
        total, right, count = (torch.stack(figures) for figures in (losses, correct, counts))
        shares = right / count.clamp(min=1)
        metrics = {"accuracy": right.sum() / count.sum().clamp(min=1)}
        metrics |= {f"accuracy_{level}": share for level, share in enumerate(shares)}
        return HeadOutput(process_mean(total.sum(), count.sum()), {name: x.detach() for name, x in metrics.items()})

    def rollout(
        self, frames: int, seeds: Tensor, sampling: Sampling, backbone: Backbone, start: Start | None = None
    ) -> "TokenRollout":
        """See `GenerationHead`."""
        if sampling.steps is not None:
            raise PartitaError("steps are those of a flow; codes are drawn in one")
        return TokenRollout(self, frames, seeds, sampling, backbone, start)


class TokenRollout(Rollout):
    """Codes as they are generated."""

    def __init__(
        self,
        head: TokenHead,
        frames: int,
        seeds: Tensor,
        sampling: Sampling,
        backbone: Backbone,
        start: Start | None,
    ) -> None:
        """Begins with nothing generated."""
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
        """See `Rollout`."""
        head, backbone = self.head, self.backbone
        ids = torch.full((len(states), head.levels), backbone.first_id + head.space.pad_id)
        places = head.places(self.step, self.codes.shape[-1])
        for level, token in places:
            of_level = head.ids(level, backbone)
            logits = backbone.logits(states, of_level)
            if unconditional is not None:
                logits = guided(logits, backbone.logits(unconditional, of_level), self.sampling.guidance)
            normal = keyed_noise(self.seeds, "code", token, level, shape=())
            code = draw(logits.cpu(), normal, temperature=self.sampling.temperature, top_k=self.sampling.top_k)
            given = self.given[:, level, token]
            code = torch.where(given >= 0, given, code)
            self.codes[:, level, token] = code
            ids[:, level] = of_level.start + code
        self.step += 1
        if head.space.layout == "flat":
            ids = ids[:, places[0][0], None]
        return backbone.embed(ids.to(states.device)).sum(1)

    def result(self) -> Tensor:
        """Codes of all levels of the quantizer, -1 where they are not generated."""
        return self.codes


def draw(logits: Tensor, normal: Tensor, *, temperature: float, top_k: int | None) -> Tensor:
    """One of the classes of each row, by a standard normal draw that decides alone.

    Args:
        logits: `(batch, classes)`.
        normal: `(batch,)`; the class where the distribution function reaches that of `normal` is drawn.
        temperature: 0 for the likeliest class.
        top_k: the likeliest classes that are considered; None for all.

    Returns:
        `(batch,)` int64.
    """
    logits = logits.double()
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if temperature == 0:
        return logits.argmax(-1)
    ends = (logits / temperature).softmax(-1).cumsum(-1)
    place = torch.special.ndtr(normal.double())[:, None] * ends[:, -1:]
    return torch.searchsorted(ends, place, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
