"""A bottleneck with noise, a loss and a running statistic, and a quantizer."""

from dataclasses import dataclass

import torch
from partita_core.lengths import codes_within, mean_within, update_average
from partita_core.precision import upcast
from partita_core.role_outputs import BottleneckOutput
from partita_core.roles import Bottleneck, Quantizer
from partita_core.settings import register
from torch import Tensor, nn

from ._base import Tiny


@register("bottleneck/noisy")
@dataclass(frozen=True)
class NoisyConfig(Tiny):
    """A learned gain per channel, noise in training, a running statistic and a loss.

    Attributes:
        noise: standard deviation of the noise in training.
        gain: initial gain of every channel.
    """

    noise: float = 0.1
    gain: float = 1.0

    def build(self, *, dim: int) -> "NoisyBottleneck":
        """Build the bottleneck."""
        return NoisyBottleneck(dim, noise=self.noise, gain=self.gain)


class NoisyBottleneck(Bottleneck):
    """Latents within (-1, 1)."""

    bounded = True
    power: Tensor

    def __init__(self, dim: int, *, noise: float, gain: float) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.noise = noise
        self.loss_weights = {"power": 1e-3}
        self.gain = nn.Parameter(torch.full((dim, 1), gain))
        self.register_buffer("power", torch.ones(1))

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """See `Bottleneck`."""
        values = torch.tanh(upcast(hidden) * self.gain / self.power.clone())
        loss = mean_within(values.square().mean(dim=1), lengths)
        if self.is_stochastic(stochastic):
            values = values + self.noise * torch.randn_like(values)
            if self.training:
                self._update(loss.detach())
        return BottleneckOutput(values, None, {"power": loss}, {"power": loss.detach()})

    @torch.no_grad()
    def _update(self, power: Tensor) -> None:
        distributed = torch.distributed
        mean = power.reshape(1).clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean = mean / distributed.get_world_size()
        update_average(self.power, mean, 0.1)


@register("quantizer/rounding")
@dataclass(frozen=True)
class RoundingConfig(Tiny):
    """One code per channel.

    Attributes:
        levels: number of values of a channel; odd.
    """

    levels: int = 5

    def build(self, *, dim: int) -> "RoundingQuantizer":
        """Build the quantizer."""
        return RoundingQuantizer(dim, levels=self.levels)


class RoundingQuantizer(Quantizer):
    """Tanh, rounded to levels, with a straight-through gradient."""

    reference: Tensor

    def __init__(self, dim: int, *, levels: int) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.reach = levels // 2
        self.codebook_sizes = (levels,) * dim
        # Holds only the dtype of the module, for the values of codes.
        self.register_buffer("reference", torch.empty(0), persistent=False)

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """See `Bottleneck`."""
        bounded = torch.tanh(upcast(hidden))
        codes = self.encode_codes(hidden)
        values = self.codes_to_values(codes) + (bounded - bounded.detach())
        return BottleneckOutput(values, codes_within(codes, lengths), {}, {})

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """See `Quantizer`."""
        codes = (torch.tanh(upcast(hidden)) * self.reach).round().long() + self.reach
        dropped = torch.arange(self.dim, device=codes.device) >= (num_quantizers or self.dim)
        return codes.masked_fill(dropped[:, None], -1)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """See `Quantizer`."""
        codes = self.check_codes(codes)
        return torch.where(codes < 0, 0, codes - self.reach).to(upcast(self.reference)) / self.reach
