"""Residual vector quantization with factorised codebooks."""

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

_NORM_EPS = 1e-6  # the library's; a silent frame stays zero


@register("quantizer/residual", example={"num_quantizers": 3, "codebook_size": 16, "codebook_dim": 4})
class ResidualVQ(Quantizer):
    """Each level quantizes what those before it left over (SoundStream, Zeghidour et al., arXiv 2107.03312).

    Every level looks up in a space of its own, behind a linear map and before one back (factorised codes, as in DAC,
    Kumar et al., arXiv 2306.06546): a single map for all levels would hold the result to `codebook_dim` dimensions.
    Codes are running averages of the vectors assigned to them, the training update of vector-quantize-pytorch, equal
    in all processes; everything else is a look-up: the nearest code of each level, in float32 whatever the autocast.
    The gradient passes each level straight through.

    With quantizer dropout the levels left away are -1 in an example's codes and contribute nothing to its values; they
    learn from it nevertheless.

    Args:
        dim: width of the latents.
        num_quantizers: levels.
        codebook_size: codes of each level.
        codebook_dim: width of the space in which codes are looked up; None: that of the latents, without
            projections.
        normalize: look up by direction: vectors and codes have unit length.
        quantizer_dropout: probability that an example is given a random number of levels in training.
        commitment_weight: weight of the pull of vectors towards their codes, a sum over levels.
        decay: of the running averages that codes are, per training step.
        dead_after: patience with unused codes, in tokens that even use would have given a code: one that got none of
            so many is replaced by a vector of the batch, and its patience doubles; 0: never.

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
                "normalize without codebook_dim: codes of unit length need a projection to give them back their "
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
        self.levels = cast("list[_Level]", levels)  # a ModuleList, which does not say what it holds

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Quantize; drop levels while stochastic, and then update the codebooks in training.

        Args:
            hidden: `(batch, dim, tokens)`.
            stochastic: True to drop levels; None means `self.training`.
            lengths: `(batch,)` tokens of each item that count; None for all.

        Returns:
            values `(batch, dim, tokens)`, codes `(batch, num_quantizers, tokens)`; the loss `commitment`: the mean
            square distance of vectors to their codes, over batch, tokens and the dimensions of the code space, summed
            over levels; metrics `relative_error` and for each level i `usage_i` (fraction of its codes in the batch)
            and `perplexity_i` (of their distribution in the batch).
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
        if not stochastic:  # the codebooks are what they were, and values those of codes to the last bit
            values = straight_through(self._look_up(stacked).detach(), values)
        metrics = {**self._metrics(stacked, hidden.dtype), "relative_error": relative_error(values, hidden, lengths)}
        return BottleneckOutput(values, stacked, {"commitment": commitment}, metrics)

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """The codes `(batch, num_quantizers, tokens)` of `forward` in eval; levels beyond `num_quantizers` are -1."""
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
        """The values `(batch, dim, tokens)` of codes; a level that is -1 contributes zero."""
        return self._look_up(self.check_codes(codes))

    def _look_up(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            parts = [
                F.embedding(code.clamp(min=0), level.table()).masked_fill((code < 0)[..., None], 0)
                for code, level in zip(codes.unbind(dim=1), self.levels)
            ]
            ways = [level.project_out for level in self.levels if level.project_out is not None]
            if not ways:
                return torch.stack(parts).sum(dim=0).transpose(1, 2)
            # One product for all levels: that of each is too thin to be fast. Biases are of levels that are there.
            present = (codes >= 0).transpose(1, 2).to(parts[0].dtype)
            weight = torch.cat([*(way.weight for way in ways), torch.stack([way.bias for way in ways], dim=1)], dim=1)
            return F.linear(torch.cat([*parts, present], dim=-1), upcast(weight)).transpose(1, 2)

    @torch.no_grad()
    def initialize(self, values: Tensor) -> None:
        """Sets the codebooks by k-means on given latents, level by level; repeatable by torch's seed.

        Args:
            values: `(batch, dim, tokens)`, at least `codebook_size` tokens in all.

        Raises:
            PartitaError: there are fewer.
        """
        residual = receive(self, values).transpose(1, 2)
        tokens, size = residual.shape[0] * residual.shape[1], max(self.codebook_sizes)
        if tokens < size:
            raise PartitaError(f"{tokens} tokens cannot start codebooks of {size}; give at least as many")
        with torch.autocast(values.device.type, enabled=False):
            for level in self.levels:
                level.initialize(residual)
                residual = residual - level(residual, learned=None)[1]

    def _draw_counts(self, hidden: Tensor) -> Tensor:
        """Levels that each example keeps, `(batch,)`: all, or with the probability of dropout 1 to all."""
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

    The projections start as a random orthogonal one and its transpose, so that before any training a level takes its
    share out of the residual and adds nothing to it.
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
        """Codes `(batch, tokens)`, their part of the values, and the distance, as much, of vectors to codes.

        Args:
            residual: `(batch, tokens, dim)`.
            learned: mask `(batch, tokens)` of the vectors that the codebook learns from; None leaves it as it is. The
                codes of all other vectors are 0.
        """
        encoded = self.encode(residual)
        table = self.table()
        with torch.no_grad():
            if learned is not None:
                table = table.clone()  # what these codes mean; the update moves the codebook in place
                synchronize(self.codebook)
                learned = learned & encoded.isfinite().all(dim=-1)  # one that is not finite would stay for ever
                code = torch.zeros_like(learned, dtype=torch.int64)
                code[learned] = learn(self.codebook, encoded.detach()[learned], self.dead)
            else:
                code = (table.square().sum(dim=1) - 2 * encoded @ table.T).argmin(dim=-1)
        vectors = table[code]
        distance = (encoded - vectors).square().mean(dim=2)
        return code, self.decode(straight_through(vectors, encoded)), distance

    def table(self) -> Tensor:
        """The codes `(codebook_size, codebook_dim)`."""
        return upcast(self.codebook.embed[0])

    def encode(self, residual: Tensor) -> Tensor:
        """Residual to the space of the codes."""
        encoded = _linear(self.project_in, residual)
        return F.normalize(encoded, dim=-1, eps=_NORM_EPS) if self.normalize else encoded

    def decode(self, vectors: Tensor) -> Tensor:
        """The way back."""
        return _linear(self.project_out, vectors)

    def initialize(self, residual: Tensor) -> None:
        """Sets the codebook by k-means."""
        start_by_kmeans(self.codebook, self.encode(residual).flatten(0, 1))
        self.dead.start()


def _linear(layer: nn.Linear | None, x: Tensor) -> Tensor:
    """`layer` in at least float32 whatever its weights are; None is the identity."""
    return x if layer is None else F.linear(x, upcast(layer.weight), upcast(layer.bias))
