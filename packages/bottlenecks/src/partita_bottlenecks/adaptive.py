"""Bottleneck of the adaptive transform codec: the bins that a decoded envelope predicts to be largest."""

from collections.abc import Iterable

import torch
from partita_blocks import LOG_CENTER, FrameStack
from partita_core import (
    Bottleneck,
    BottleneckOutput,
    PartitaError,
    config_of,
    mean_within,
    register,
    tokens_within,
    upcast,
)
from partita_core.ranges import Extras, NonNegative, Width
from torch import Tensor

from ._common import receive, rms

# Range of the logarithm of the scale of a bin, and the magnitude below which a bin counts as silent.
_MIN_LOG, _MAX_LOG, _SILENCE = -9.2, 2.0, 1e-4


@register("bottleneck/adaptive", example={"bins": 48, "side": 2, "width": 8, "inner": 12, "blocks": 1})
class Adaptive(Bottleneck):
    """Adaptive selection of transform coefficients, by an envelope that the decoder knows as well.

    A network over frames decodes the side numbers, the first channels of the latents, to the logarithm of the scale of
    each bin of a frame. The bins with the largest scales are the other channels, divided by their scales; their
    positions need not be transmitted. This is classical adaptive transform coding (Zelinski and Noll, 1977) with a
    learned envelope; the construction is ours.

    Each bin has a preferred channel, its index modulo the number of channels, and the next free one if that is taken by
    a larger bin, so that most bins keep their channel while the envelope changes.

    Decoders get the logarithms of all scales, and the selected bins over their scales with zeros elsewhere, `2 * bins`
    channels in all.

    Args:
        dim: width of the latents.
        bins: bins per frame, over all channels and sub-frames.
        side: number of side numbers.
        width: channels of the envelope network.
        inner: channels of the hidden layers of its blocks.
        blocks: number of its blocks.
        tilt: exponent of the standard deviation of a bin over the data, by which its scale is multiplied for the
            selection; prefers bins that are loud on average.
        likelihood_weight: weight of the loss `likelihood`, by which the envelope is learned.

    Raises:
        PartitaError: `dim` leaves no channel for bins, or more than there are.
    """

    mean_log: Tensor
    deviation: Tensor

    def __init__(
        self,
        dim: int,
        *,
        bins: Width = 320,
        side: Width = 8,
        width: Width = 192,
        inner: Width = 384,
        blocks: Extras = 3,
        tilt: NonNegative = 0.5,
        likelihood_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        if not side < dim <= side + bins:
            raise PartitaError(
                f"dim is {dim}; with {side} side numbers and {bins} bins use {side + 1} to {side + bins}"
            )
        self.dim, self.in_dim, self.bins, self.side, self.tilt = dim, side + bins, bins, side, tilt
        self.loss_weights = {"likelihood": likelihood_weight}
        self.network = FrameStack(side, bins, width=width, inner=inner, blocks=blocks)
        with torch.no_grad():
            self.network.head.weight.mul_(0.3)
        self.register_buffer("mean_log", torch.full((bins,), LOG_CENTER))
        self.register_buffer("deviation", torch.ones(bins))
        self.context = self.expand_context = (blocks, blocks)

    @property
    def expanded_dim(self) -> int:
        """Two channels per bin; see the class."""
        return 2 * self.bins

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Select and scale the bins of hidden frames; `stochastic` has no effect.

        Args:
            hidden: side numbers and bins `(batch, side + bins, tokens)`.
            stochastic: not used.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; the loss `likelihood`, the negative logarithm of the likelihood of all bins
            under Laplace distributions of the decoded scales, per bin, up to a constant; the metrics `selected_energy`
            (fraction of the energy of the bins) and `latent_rms`.
        """
        hidden = receive(self, hidden)
        side, bins = hidden.split((self.side, self.bins), dim=1)
        scale = self._log_scale(side)
        positions = self._positions(scale)
        chosen = bins.gather(1, positions)
        values = torch.cat([side, chosen / scale.gather(1, positions).exp()], dim=1)
        loss = mean_within((scale + (bins.abs() + _SILENCE) / scale.exp()).mean(1), lengths)
        kept, all_bins = (tokens_within(x.detach(), lengths).square().sum() for x in (chosen, bins))
        metrics = {"selected_energy": kept / all_bins.clamp_min(1e-20), "latent_rms": rms(values, lengths)}
        return BottleneckOutput(values, None, {"likelihood": loss}, metrics)

    def expand(self, values: Tensor) -> Tensor:
        """Decode the envelope, and put the selected bins in their positions: `(batch, 2 * bins, tokens)`."""
        values = upcast(values)
        side, chosen = values.split((self.side, self.dim - self.side), dim=1)
        scale = self._log_scale(side)
        return torch.cat([scale, torch.zeros_like(scale).scatter(1, self._positions(scale), chosen)], dim=1)

    @torch.no_grad()
    def fit(self, hidden: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Measure the mean logarithm and the standard deviation of each bin over data.

        Args:
            hidden: hidden frames `(batch, in_dim, tokens)`, and the tokens of each item before its padding, `(batch,)`;
                None if all are full.
        """
        count = 0
        logarithms, squares = torch.zeros(2, self.bins, dtype=torch.float64, device=self.mean_log.device)
        for batch, lengths in hidden:
            bins = tokens_within(batch[:, self.side :].double(), lengths)
            logarithms += (bins.abs() + _SILENCE).log().sum(0)
            squares += bins.square().sum(0)
            count += len(bins)
        if not count:
            raise PartitaError("there is no audio to measure the bins of the adaptive bottleneck on")
        self.mean_log.copy_(logarithms / count)
        self.deviation.copy_((squares / count).sqrt())

    def _log_scale(self, side: Tensor) -> Tensor:
        """Logarithms of the scales of all bins `(batch, bins, tokens)`."""
        decoded = self.network(side.mT).mT * 1.5 + upcast(self.mean_log)[:, None]
        return decoded.clamp(_MIN_LOG, _MAX_LOG)

    @torch.no_grad()
    def _positions(self, scale: Tensor) -> Tensor:
        """Bin of each channel of selected bins, `(batch, dim - side, tokens)`."""
        count = self.dim - self.side
        deviation = upcast(self.deviation)
        preference = self.tilt * (deviation / deviation.max().clamp_min(1e-20)).clamp_min(1e-6).log()
        ranked = (scale + preference[:, None]).mT.topk(count, dim=-1).indices
        # For each bin, how much it prefers each channel: most its own, then the next ones.
        slots = torch.arange(count, device=scale.device)
        wish = -((slots - torch.arange(self.bins, device=scale.device)[:, None]) % count).to(scale.dtype)
        taken, result = torch.zeros(ranked.shape, dtype=scale.dtype, device=scale.device), torch.zeros_like(ranked)
        for bins in ranked.split(1, dim=-1):
            slot = (wish[bins[..., 0]] - taken).argmax(-1, keepdim=True)
            result.scatter_(-1, slot, bins)
            taken.scatter_(-1, slot, float(count))
        return result.mT


AdaptiveConfig = config_of(Adaptive)
