"""RQ-MTP, random-quantised multi-token prediction, which F3-Tokenizer trains with (arXiv 2606.06357).

Its abstract has the name; the details here are put together from the work before it: labels as in BEST-RQ (arXiv
2202.01855), of the latents themselves, and a prediction of several that come next without masking, as in NEST-RQ (arXiv
2409.08680).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from partita_core import (
    Config,
    LatentSpec,
    PartitaError,
    RepresentationEncoder,
    is_distributed,
    length_mask,
    process_mean,
    register,
    upcast,
)
from partita_core.ranges import Frames, Layers, Range, Seed, Steps, Width
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from .causal_transformer import stack_frames
from .language_model import FrozenLanguageModel
from .random_projection import RandomProjectionQuantizer
from .supervision import Supervision, SupervisionInput, SupervisionOutput
from .whitening import Whitening


@register("supervision/rq_mtp")
@dataclass(frozen=True)
class RQMTPConfig(Config):
    """Codes of the frames to come, predicted from the features of those gone by.

    Attributes:
        codes: in a codebook; 8192 for large encoders.
        code_dim: width of the projection.
        codebooks: with one head each, on one projection.
        offsets: how many frames ahead is predicted, 1 to this many.
        stack: frames that make one code, the first of which is that at the offset.
        whitening_steps: batches whose covariance whitens what is quantized, before it is layer-normed, which is ours;
            0 for latents as they are.
        seed: of projection and codebooks.
    """

    codes: Annotated[int, Range(1, 1 << 20)] = 1024
    code_dim: Width = 16
    codebooks: Layers = 1
    offsets: Layers = 4
    stack: Frames = 1
    whitening_steps: Steps = 100
    seed: Seed = 0

    def build(
        self,
        *,
        latent_spec: LatentSpec,
        representation: RepresentationEncoder,
        adapter: nn.Module | None = None,
        language_model: FrozenLanguageModel | None = None,
    ) -> "RQMTP":
        """Builds it for the features of `representation`, on latents of `latent_spec`.

        Raises:
            PartitaError: the encoder sees frames that it would have to predict.
        """
        if representation.context[1] != 0:
            name, seen = type(representation).__name__, representation.context[1]
            ahead = "all" if seen is None else seen
            raise PartitaError(
                f"{name} sees {ahead} frames to the right, which rq_mtp would predict; take a causal one"
            )
        dim = latent_spec.dim * latent_spec.tokens_per_frame * self.stack
        quantizer = RandomProjectionQuantizer(
            dim,
            codes=self.codes,
            code_dim=self.code_dim,
            codebooks=self.codebooks,
            seed=self.seed,
        )
        return RQMTP(
            whitening=Whitening(dim, steps=self.whitening_steps),
            quantizer=quantizer,
            tokens_per_frame=latent_spec.tokens_per_frame,
            width=representation.width,
            offsets=self.offsets,
            stack=self.stack,
        )

    @classmethod
    def example(cls) -> "RQMTPConfig":
        """Two codebooks of 32 codes, two offsets."""
        return cls(codes=32, code_dim=4, codebooks=2, offsets=2)


class RQMTP(Supervision):
    """A linear classifier for each offset and codebook, and the cross-entropy, the mean over them.

    The metrics are, for each offset, `accuracy_k` and `repeat_k`, the accuracy of saying the last code that is known
    again; `unigram`, that of always saying the most frequent code; `code_use`, the fraction of codes that have come up,
    and `perplexity`, of their frequencies. Frequencies are over all that was trained on, in all processes.
    """

    counts: Tensor

    def __init__(
        self,
        *,
        whitening: Whitening,
        quantizer: RandomProjectionQuantizer,
        tokens_per_frame: int,
        width: int,
        offsets: int,
        stack: int,
    ) -> None:
        """Builds the heads; see `RQMTPConfig`."""
        super().__init__()
        self.whitening, self.quantizer, self.tokens_per_frame = whitening, quantizer, tokens_per_frame
        self.offsets, self.stack = offsets, stack
        codebooks, codes, _ = quantizer.codebooks.shape
        self.shape = (offsets, codebooks, codes)
        self.heads = nn.Linear(width, offsets * codebooks * codes)
        self.register_buffer("counts", torch.zeros(codebooks, codes, dtype=torch.int64))

    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """See `Supervision`. A frame whose code would reach into the padding is not predicted."""
        vectors, valid = self._vectors(inputs.values, inputs.frames.to(inputs.values.device))
        if self.training:
            self.whitening.update(vectors, valid)
        labels = self.quantizer(self.whitening(vectors))
        self._count(labels, valid)
        logits = upcast(self.heads(inputs.features)).unflatten(-1, self.shape)
        totals, counts, metrics = [], [], {"unigram": _share(labels == self.counts.argmax(-1), valid)}
        for k in range(1, self.offsets + 1):
            wanted, counted = labels[:, k:], valid[:, k:]
            predicted = logits[:, : wanted.shape[1], k - 1]
            entropy = F.cross_entropy(predicted.flatten(0, 2), wanted.flatten(), reduction="none")
            entropy = torch.where(counted.unsqueeze(-1), entropy.view_as(wanted), 0)
            totals.append(entropy.sum())
            counts.append(counted.sum() * self.shape[1])
            metrics[f"accuracy_{k}"] = _share(predicted.detach().argmax(-1) == wanted, counted)
            known = k + self.stack - 1
            repeated = labels[:, known:] == labels[:, : max(0, labels.shape[1] - known)]
            metrics[f"repeat_{k}"] = _share(repeated, valid[:, known:])
        loss = process_mean(torch.stack(totals), torch.stack(counts)).mean()
        return SupervisionOutput(loss, metrics | self._usage())

    def labels(self, values: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `(batch, frames, codebooks)` of latents, and where they are of frames alone, `(batch, frames)`."""
        vectors, valid = self._vectors(values, frames)
        return self.quantizer(self.whitening(vectors)), valid

    def _vectors(self, values: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes a code, `(batch, frames, stack * K * dim)`, and where it is of frames alone."""
        stacked = stack_frames(values, self.tokens_per_frame)
        padded = F.pad(stacked, (0, 0, 0, self.stack - 1))
        vectors = padded.unfold(1, self.stack, 1).mT.flatten(2)
        return vectors, length_mask(frames - (self.stack - 1), stacked.shape[1])

    @torch.no_grad()
    def _count(self, labels: Tensor, valid: Tensor) -> None:
        if not self.training:
            return
        rows = labels.flatten(0, 1).T
        counted = torch.zeros_like(self.counts).scatter_add_(1, rows, valid.flatten().long().expand_as(rows))
        if is_distributed():
            distributed.all_reduce(counted)
        self.counts = self.counts + counted

    def _usage(self) -> dict[str, Tensor]:
        share = self.counts / self.counts.sum(-1, keepdim=True).clamp(min=1)
        entropy = -torch.xlogy(share, share).sum(-1)
        return {"code_use": (self.counts > 0).float().mean(), "perplexity": entropy.exp().mean()}


def _share(hits: Tensor, valid: Tensor) -> Tensor:
    """The fraction of hits `(batch, frames, codebooks)` among the valid frames."""
    hits = (hits & valid.unsqueeze(-1)).float().mean(-1).sum()
    return hits / valid.sum().clamp(min=1)
