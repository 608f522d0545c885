"""Noise-regularized bottleneck of F3-Tokenizer: fixed scale, random perturbation, no loss."""

import torch
from partita_core import Bottleneck, BottleneckOutput, PartitaError, config_of, register, tokens_within
from partita_core.ranges import NonNegative
from torch import Tensor

from ._common import channel_std, receive, rms

EPS = 1e-5  # added to the standard deviation of a frame: digital silence stays zero


@register("bottleneck/noise_regularized")
class NoiseRegularized(Bottleneck):
    """Normalization of each frame over its channels, then noise (F3-Tokenizer, arXiv 2606.06357).

    The abstract of the paper has channel normalization and random perturbation; the formula is from a secondary source:
    `z = (h - mean) / (std + 1e-5)` with the mean and the population standard deviation over the channels of a frame.
    There is no affine map and no running statistic, so training and evaluation normalize in the same way, and frames
    are independent. If stochastic, the decoder gets `z + alpha * e` with `e ~ N(0, 1)` and `alpha ~ U(0, gamma)`. The
    power of `z` is fixed, so the encoder cannot outgrow the noise: every frame of `z` has mean 0 and norm `sqrt(dim)`.

    Args:
        dim: width of the latents, at least 2.
        gamma: largest amplitude of the noise, relative to the RMS of the latents; 1 is an SNR of 0 dB.
        per_frame: draw one amplitude per latent vector instead of one per example.

    Raises:
        PartitaError: `dim` is less than 2.
    """

    def __init__(self, dim: int, *, gamma: NonNegative = 1.0, per_frame: bool = False) -> None:
        super().__init__()
        if dim < 2:
            raise PartitaError(f"dim is {dim}; frames are normalized over their channels, which takes at least 2")
        self.dim = self.in_dim = dim
        self.gamma, self.per_frame = gamma, per_frame

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Normalize, and add noise if stochastic.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: True to add noise; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; the metrics `hidden_std` and `hidden_std_min` of frames before normalization
            (near 1e-5 the scale of the latents is no longer fixed), `channel_std_min` and `channel_std_max` of the
            latents without noise, and `latent_rms`.
        """
        hidden = receive(self, hidden)
        clean, std = self._normalize(hidden)
        values = clean
        if self.is_stochastic(stochastic):
            values = clean + self._amplitude(clean) * torch.randn_like(clean)
        spread, scale = channel_std(clean, lengths), tokens_within(std.detach(), lengths)
        metrics = {
            "hidden_std": scale.mean(),
            "hidden_std_min": scale.amin(),
            "channel_std_min": spread.amin(),
            "channel_std_max": spread.amax(),
            "latent_rms": rms(values, lengths),
        }
        return BottleneckOutput(values, None, {}, metrics)

    def project(self, values: Tensor) -> Tensor:
        """Normalize vectors `(batch, dim, tokens)` to mean 0 and variance 1 over their channels."""
        return self._normalize(values)[0]

    def _normalize(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        # torch.std has gradient 0 at 0, where the square root of a mean square has NaN.
        std = hidden.std(dim=1, correction=0, keepdim=True)
        return (hidden - hidden.mean(dim=1, keepdim=True)) / (std + EPS), std

    def _amplitude(self, clean: Tensor) -> Tensor:
        tokens = clean.shape[2] if self.per_frame else 1
        return clean.new_empty(clean.shape[0], 1, tokens).uniform_(0, self.gamma)


NoiseRegularizedConfig = config_of(NoiseRegularized)
