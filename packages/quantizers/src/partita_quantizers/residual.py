"""Residual vector quantization with factorized codebooks."""

from typing import Annotated, cast

import torch
from partita_core import (
    BottleneckOutput,
    PartitaError,
    Quantizer,
    config_of,
    length_mask,
    mean_within,
    register,
    resolve_num_quantizers,
    upcast,
)
from partita_core.ranges import Layers, NonNegative, Proportion, Range, Width
from torch import Tensor, nn
from torch.nn import functional as F

from ._codebook import DeadCodes, ema_codebook, learn, start_by_kmeans, synchronize
from ._common import receive, relative_error, straight_through

NORM_EPS = 1e-6  # as in the library; a silent frame stays zero


@register("quantizer/residual", example={"num_quantizers": 3, "codebook_size": 16, "codebook_dim": 4})
class ResidualVQ(Quantizer):
    """Residual VQ: each level quantizes the residual of the previous ones (SoundStream, arXiv 2107.03312).

    Every level has its own code space, between a linear map into it and one back (factorized codes, as in DAC, Kumar et
    al., arXiv 2306.06546). With a single map for all levels the values would span `codebook_dim` dimensions only. Codes
    are running averages of the vectors assigned to them, the training update of vector-quantize-pytorch, and equal in
    all processes. The lookup takes the nearest code of each level, in float32 also under autocast. The gradient of each
    level is straight-through.

    With quantizer dropout, dropped levels are -1 in the codes of an example and contribute zero to its values; their
    codebooks are updated by the example nevertheless.

    Args:
        dim: width of the latents.
        num_quantizers: number of levels.
        codebook_size: number of codes per level.
        codebook_dim: width of the code space; None for that of the latents, without projections.
        normalize: look up codes by direction: vectors and codes have unit length.
        quantizer_dropout: probability that an example has a random number of levels in training.
        commitment_weight: weight of the distance of vectors to their codes, a sum over levels.
        decay: decay of the running averages, per training step.
        dead_after: patience with unused codes, in tokens per code under uniform use. A code without tokens for that
            long is replaced by a vector of the batch, and its patience doubles. 0 disables replacement.

    Raises:
        PartitaError: `normalize` without `codebook_dim`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_quantizers: Layers = 16,
        codebook_size: Annotated[int, Range(1, 1 << 20)] = 2048,
        codebook_dim: Width | None = 8,
        normalize: bool = False,
        quantizer_dropout: Proportion = 0.5,
        commitment_weight: NonNegative = 0.25,
        decay: Annotated[float, Range(0, 1, open_high=True)] = 0.99,
        dead_after: NonNegative = 50.0,
    ) -> None:
        super().__init__()
        if normalize and codebook_dim is None:
            raise PartitaError(
                "normalize is True and codebook_dim None, but codes of unit length need a projection to restore their "
                "scale; set codebook_dim"
            )
        self.dim = self.in_dim = dim
        self.codebook_sizes = (codebook_size,) * num_quantizers
        self.quantizer_dropout = quantizer_dropout
        self.loss_weights = {"commitment": commitment_weight}
        levels = nn.ModuleList(
            _Level(
                dim,
                codebook_size=codebook_size,
                codebook_dim=codebook_dim,
                normalize=normalize,
                decay=decay,
                dead_after=dead_after,
            )
            for _ in range(num_quantizers)
        )
        self.levels = cast("list[_Level]", levels)  # a ModuleList, which has no type of its items

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Quantize, with quantizer dropout if stochastic; stochastic training also updates the codebooks.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: True for quantizer dropout; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; codes `(batch, num_quantizers, tokens)`; the loss `commitment`, the mean
            square distance of vectors to their codes over batch, tokens and code dimensions, summed over levels; the
            metrics `relative_error`, and for each level i `usage_i`, the fraction of its codes that occur in the batch,
            and `perplexity_i`, the perplexity of their distribution.
        """
        hidden = receive(self, hidden)
        stochastic = self.is_stochastic(stochastic)
        kept = self._draw_counts(hidden) if stochastic and self.quantizer_dropout > 0 else None
        residual = hidden.transpose(1, 2)
        shape = residual.shape[:2]
        inside = hidden.new_ones(shape, dtype=torch.bool)
        if lengths is not None:
            inside = length_mask(lengths, shape[1]).to(hidden.device)
        values, commitment = torch.zeros_like(residual), hidden.new_zeros(())
        codes = []
        with torch.autocast(hidden.device.type, enabled=False):
            for i, level in enumerate(self.levels):
                code, part, distance = level(residual, learned=inside if stochastic and self.training else None)
                residual = residual - part
                dropped = ~inside if kept is None else ~inside | (kept <= i)[:, None]
                codes.append(code.masked_fill(dropped, -1))
                values = values + part.masked_fill(dropped[..., None], 0)
                commitment = commitment + mean_within(distance.masked_fill(dropped, 0), lengths)
        stacked, values = torch.stack(codes, dim=1), values.transpose(1, 2)
        if not stochastic:  # the codebooks are unchanged, so the values can equal those of the codes bit for bit
            values = straight_through(self._look_up(stacked).detach(), values)
        metrics = {**self._metrics(stacked, hidden.dtype), "relative_error": relative_error(values, hidden, lengths)}
        return BottleneckOutput(values, stacked, {"commitment": commitment}, metrics)

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes `(batch, num_quantizers, tokens)`, as in `forward` in eval; levels from `num_quantizers` on are -1."""
        count = resolve_num_quantizers(num_quantizers, self.num_quantizers, "this ResidualVQ")
        residual = receive(self, hidden).transpose(1, 2)
        codes = []
        with torch.autocast(hidden.device.type, enabled=False):
            for i, level in enumerate(self.levels):
                if i < count:
                    code, part, _ = level(residual, learned=None)
                    residual = residual - part
                else:
                    code = torch.full_like(codes[0], -1)
                codes.append(code)
        return torch.stack(codes, dim=1)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes; a level that is -1 contributes zero."""
        return self._look_up(self.check_codes(codes))

    def _look_up(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            parts = [
                F.embedding(code.clamp(min=0), level.table()).masked_fill((code < 0)[..., None], 0)
                for code, level in zip(codes.unbind(dim=1), self.levels)
            ]
            outs = [level.project_out for level in self.levels if level.project_out is not None]
            if not outs:
                return torch.stack(parts).sum(dim=0).transpose(1, 2)
            # One fused matmul: per-level output projections are too narrow to be efficient. The bias of a level counts
            # only if the level is present.
            present = (codes >= 0).transpose(1, 2).to(parts[0].dtype)
            weight = torch.cat([*(out.weight for out in outs), torch.stack([out.bias for out in outs], dim=1)], dim=1)
            return F.linear(torch.cat([*parts, present], dim=-1), upcast(weight)).transpose(1, 2)

    @torch.no_grad()
    def initialize(self, values: Tensor) -> None:
        """Initialize the codebooks by k-means on latents, level by level; reproducible with torch's seed.

        Args:
            values: latents `(batch, dim, tokens)`, at least `codebook_size` tokens in total.

        Raises:
            PartitaError: there are fewer tokens.
        """
        residual = receive(self, values).transpose(1, 2)
        tokens, size = residual.shape[0] * residual.shape[1], max(self.codebook_sizes)
        if tokens < size:
            raise PartitaError(
                f"{tokens} tokens cannot initialize codebooks of {size} codes; give at least {size} tokens"
            )
        with torch.autocast(values.device.type, enabled=False):
            for level in self.levels:
                level.initialize(residual)
                residual = residual - level(residual, learned=None)[1]

    def _draw_counts(self, hidden: Tensor) -> Tensor:
        """Levels per example, `(batch,)`: all of them, or uniformly random from 1 with the probability of dropout."""
        batch, device = len(hidden), hidden.device
        count = torch.randint(1, self.num_quantizers + 1, (batch,), device=device)
        drop = torch.rand(batch, device=device) < self.quantizer_dropout
        return torch.where(drop, count, self.num_quantizers)

    def _metrics(self, codes: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        metrics = {}
        for i, (code, size) in enumerate(zip(codes.unbind(dim=1), self.codebook_sizes)):
            code = code.flatten()
            counts = torch.zeros(size, dtype=dtype, device=code.device)
            counts = counts.scatter_add(0, code.clamp(min=0), (code >= 0).to(dtype))
            share = counts / counts.sum().clamp(min=1)
            metrics[f"usage_{i}"] = (counts > 0).to(dtype).mean()
            metrics[f"perplexity_{i}"] = torch.special.entr(share).sum().exp()
        return metrics


ResidualVQConfig = config_of(ResidualVQ)


class _Level(nn.Module):
    """One codebook between its projections, `(batch, tokens, dim)` in and out.

    The projections start as a random orthogonal matrix and its transpose, so that before training each level reduces
    the residual.
    """

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int,
        codebook_dim: int | None,
        normalize: bool,
        decay: float,
        dead_after: float,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.project_in = self.project_out = None
        if codebook_dim is not None:
            self.project_in, self.project_out = nn.Linear(dim, codebook_dim), nn.Linear(codebook_dim, dim)
            with torch.no_grad():
                nn.init.orthogonal_(self.project_in.weight)
                self.project_out.weight.copy_(self.project_in.weight.T)
                self.project_in.bias.zero_()
                self.project_out.bias.zero_()
        self.codebook = ema_codebook(
            size=codebook_size,
            dim=codebook_dim or dim,
            normalize=normalize,
            decay=decay,
        )
        self.dead = DeadCodes(codebook_size, after=dead_after)

    def forward(self, residual: Tensor, *, learned: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize the residual of the previous levels.

        Args:
            residual: `(batch, tokens, dim)`.
            learned: mask `(batch, tokens)` of the vectors that update the codebook, where the codes of all others are
                0; None for no update.

        Returns:
            Codes `(batch, tokens)`; their part of the values `(batch, tokens, dim)`; the distance of vectors to codes
            `(batch, tokens)`.
        """
        encoded = self.encode(residual)
        table = self.table()
        with torch.no_grad():
            if learned is not None:
                table = table.clone()  # the values of these codes, because the update changes the codebook in place
                synchronize(self.codebook)
                learned = learned & encoded.isfinite().all(dim=-1)  # others would make their code NaN for good
                code = torch.zeros_like(learned, dtype=torch.int64)
                code[learned] = learn(self.codebook, encoded.detach()[learned], self.dead)
            else:
                code = (table.square().sum(dim=1) - 2 * encoded @ table.T).argmin(dim=-1)
        vectors = table[code]
        distance = (encoded - vectors).square().mean(dim=2)
        return code, self.decode(straight_through(vectors, encoded)), distance

    def table(self) -> Tensor:
        """Code vectors `(codebook_size, codebook_dim)`."""
        return upcast(self.codebook.embed[0])

    def encode(self, residual: Tensor) -> Tensor:
        """Map the residual to the code space."""
        encoded = _linear(self.project_in, residual)
        return F.normalize(encoded, dim=-1, eps=NORM_EPS) if self.normalize else encoded

    def decode(self, vectors: Tensor) -> Tensor:
        """Map from the code space to that of the latents."""
        return _linear(self.project_out, vectors)

    def initialize(self, residual: Tensor) -> None:
        """Initialize the codebook by k-means."""
        start_by_kmeans(self.codebook, self.encode(residual).flatten(0, 1))
        self.dead.start()


def _linear(layer: nn.Linear | None, x: Tensor) -> Tensor:
    """Apply `layer` in at least float32, whatever the type of its weights; None is the identity."""
    return x if layer is None else F.linear(x, upcast(layer.weight), upcast(layer.bias))
