"""RQ-MTP, random-quantized multi-token prediction, the training objective of F3-Tokenizer (arXiv 2606.06357).

Its abstract has only the name; the details here follow the work before it: labels from a random projection of the
latents as in BEST-RQ (arXiv 2202.01855), and prediction of several future labels without masking as in NEST-RQ (arXiv
2409.08680).
"""

from typing import Annotated

import torch
from einops import rearrange
from partita_core import (
    LatentSpec,
    PartitaError,
    RepresentationEncoder,
    config_of,
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
from .random_projection import RandomProjectionQuantizer
from .supervision import Supervision, SupervisionInput, SupervisionOutput
from .whitening import Whitening


@register("supervision/rq_mtp", example={"codes": 32, "code_dim": 4, "codebooks": 2, "offsets": 2})
class RQMTP(Supervision):
    """Cross-entropy of the codes of the next frames, predicted from the features up to the current frame.

    There is one linear classifier per offset and codebook; the loss is the mean over them. The metrics are, for each
    offset k, `accuracy_k` and the baseline `repeat_k`, the accuracy of repeating the last known code; the baseline
    `unigram`, the accuracy of always predicting the most frequent code; `code_use`, the fraction of codes that have
    occurred, and `perplexity`, of their frequencies. Frequencies are over all training batches of all processes.

    Args:
        latent_spec: latents that the encoder takes.
        representation: causal encoder in training.
        codes: entries per codebook; 8192 for large encoders.
        code_dim: width of the random projection.
        codebooks: number of codebooks on the one projection, each with classifiers of its own.
        offsets: number of future frames that are predicted, 1 to this many frames ahead.
        stack: frames per code; the first of them is the one at the offset.
        whitening_steps: number of batches whose covariance whitens the latents before quantization, an addition of
            ours; 0 for latents as they are.
        seed: seed of projection and codebooks.

    Raises:
        PartitaError: the encoder depends on future frames, which it would have to predict.

    Example:
        >>> spec = LatentSpec(dim=64, sample_rate=24_000, hop=960)
        >>> encoder = CausalRepresentation(spec)
        >>> supervision = RQMTP(spec, encoder, codes=256)
        >>> latents, frames = torch.randn(4, 64, 50), torch.tensor([50, 50, 50, 31])
        >>> loss, metrics = supervision(SupervisionInput(encoder(latents), latents, frames))
    """

    counts: Tensor

    def __init__(
        self,
        latent_spec: LatentSpec,
        representation: RepresentationEncoder,
        *,
        codes: Annotated[int, Range(1, 1 << 20)] = 1024,
        code_dim: Width = 16,
        codebooks: Layers = 1,
        offsets: Layers = 4,
        stack: Frames = 1,
        whitening_steps: Steps = 100,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        if representation.context[1] != 0:
            name, right = type(representation).__name__, representation.context[1]
            ahead = "all" if right is None else right
            raise PartitaError(
                f"{name} depends on {ahead} future frames, which rq_mtp would predict; take a causal encoder"
            )
        self.tokens_per_frame, self.offsets, self.stack = latent_spec.tokens_per_frame, offsets, stack
        dim = latent_spec.dim * latent_spec.tokens_per_frame * stack
        self.whitening = Whitening(dim, steps=whitening_steps)
        self.quantizer = RandomProjectionQuantizer(dim, codes=codes, code_dim=code_dim, codebooks=codebooks, seed=seed)
        self.shape = (offsets, codebooks, codes)
        self.heads = nn.Linear(representation.width, offsets * codebooks * codes)
        self.register_buffer("counts", torch.zeros(codebooks, codes, dtype=torch.int64))

    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """Compute loss and metrics of a batch; frames whose code would include padding are not predicted."""
        vectors, valid = self._vectors(inputs.values, inputs.frames.to(inputs.values.device))
        if self.training:
            self.whitening.update(vectors, valid)
        labels = self.quantizer(self.whitening(vectors))
        self._count(labels, valid)
        logits = upcast(self.heads(inputs.features)).unflatten(-1, self.shape)
        totals, counts, metrics = [], [], {"unigram": _accuracy(labels == self.counts.argmax(-1), valid)}
        for k in range(1, self.offsets + 1):
            targets, counted = labels[:, k:], valid[:, k:]
            predicted = logits[:, : targets.shape[1], k - 1]
            entropy = F.cross_entropy(predicted.flatten(0, 2), targets.flatten(), reduction="none")
            entropy = torch.where(counted.unsqueeze(-1), entropy.view_as(targets), 0)
            totals.append(entropy.sum())
            counts.append(counted.sum() * self.shape[1])
            metrics[f"accuracy_{k}"] = _accuracy(predicted.detach().argmax(-1) == targets, counted)
            known = k + self.stack - 1
            repeated = labels[:, known:] == labels[:, : max(0, labels.shape[1] - known)]
            metrics[f"repeat_{k}"] = _accuracy(repeated, valid[:, known:])
        loss = process_mean(torch.stack(totals), torch.stack(counts)).mean()
        return SupervisionOutput(loss, metrics | self._usage())

    def labels(self, values: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `(batch, frames, codebooks)` of latents, and the mask `(batch, frames)` of those without padding."""
        vectors, valid = self._vectors(values, frames)
        return self.quantizer(self.whitening(vectors)), valid

    def _vectors(self, values: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors to quantize, `(batch, frames, stack * K * dim)`, and the mask of those without padding."""
        stacked = stack_frames(values, self.tokens_per_frame)
        padded = F.pad(stacked, (0, 0, 0, self.stack - 1))
        vectors = rearrange(padded.unfold(1, self.stack, 1), "b n d stack -> b n (stack d)")
        return vectors, length_mask(frames - (self.stack - 1), stacked.shape[1])

    @torch.no_grad()
    def _count(self, labels: Tensor, valid: Tensor) -> None:
        """Add the codes of a training batch to the counts."""
        if not self.training:
            return
        rows = rearrange(labels, "b n codebooks -> codebooks (b n)")
        counted = torch.zeros_like(self.counts).scatter_add_(1, rows, valid.flatten().long().expand_as(rows))
        if is_distributed():
            distributed.all_reduce(counted)
        self.counts = self.counts + counted

    def _usage(self) -> dict[str, Tensor]:
        share = self.counts / self.counts.sum(-1, keepdim=True).clamp(min=1)
        entropy = -torch.xlogy(share, share).sum(-1)
        return {"code_use": (self.counts > 0).float().mean(), "perplexity": entropy.exp().mean()}


def _accuracy(hits: Tensor, valid: Tensor) -> Tensor:
    """Fraction of hits `(batch, frames, codebooks)` within the valid frames."""
    hits = (hits & valid.unsqueeze(-1)).float().mean(-1).sum()
    return hits / valid.sum().clamp(min=1)


RQMTPConfig = config_of(RQMTP)
