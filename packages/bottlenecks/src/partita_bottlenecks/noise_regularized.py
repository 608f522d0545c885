"""The noise-regularised bottleneck of F3-Tokenizer: fixed scale, random perturbation, no loss."""

import torch
from partita_core import Bottleneck, BottleneckOutput, PartitaError, config_of, register, tokens_within
from partita_core.ranges import NonNegative, Positive, Proportion
from torch import Tensor

from ._common import channel_std, receive, rms


@register("bottleneck/noise_regularized")
class NoiseRegularized(Bottleneck):
    """Each frame normalized over its channels, then perturbed (F3-Tokenizer, arXiv 2606.06357).

    The paper's abstract has channel normalization and random perturbation; the formula is from a secondary source.
    `z = (h - mean) / (std + eps)` with the mean and the population standard deviation over the channels of a frame;
    no affine, no running statistics, so training and evaluation normalize alike and no frame sees another. While
    stochastic the decoder gets `z + alpha * e`, `e ~ N(0, 1)`, `alpha ~ U(0, gamma)`. Since the power of `z` is
    fixed, the encoder cannot outgrow the noise. Every frame of `z` has mean 0 and norm `sqrt(dim)`.

    Args:
        dim: width of the latents.
        gamma: largest amplitude of the noise, relative to the RMS of the latents (1: down to 0 dB SNR).
        per_frame: an amplitude for every latent vector instead of one for every example.
        clean_fraction: probability that an amplitude is zero, on top of what the uniform draw gives.
        eps: added to the standard deviation; a frame far below it is not brought up to scale.
    """

    def __init__(
        self,
        dim: int,
        *,
        gamma: NonNegative = 1.0,
        per_frame: bool = False,
        clean_fraction: Proportion = 0.0,
        eps: Positive = 1e-5,
    ) -> None:
        super().__init__()
        if dim < 2:
            raise PartitaError(f"dim is {dim}; frames are normalized over their channels, of which there must be 2")
        self.dim = self.in_dim = dim
        self.gamma, self.per_frame = gamma, per_frame
        self.clean_fraction, self.eps = clean_fraction, eps

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Normalizes, and perturbs while stochastic.

        Args:
            hidden: `(batch, dim, tokens)`.
            stochastic: True to add noise; None means `self.training`.
            lengths: `(batch,)` tokens of each item that count; None for all.

        Returns:
            values `(batch, dim, tokens)`; metrics `hidden_std` and `hidden_std_min` (of frames before they are
            normalized; near `eps` the scale is no longer fixed), `channel_std_min` and `channel_std_max` (of the
            clean latents; only frames are balanced, channels need not be) and `latent_rms`.
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
        """Vectors `(batch, dim, tokens)` brought back to mean 0 and variance 1 over their channels."""
        return self._normalize(values)[0]

    def _normalize(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        # torch.std has gradient 0 where it is 0; the root of a mean square would give NaN on digital silence.
        std = hidden.std(dim=1, correction=0, keepdim=True)
        return (hidden - hidden.mean(dim=1, keepdim=True)) / (std + self.eps), std

    def _amplitude(self, clean: Tensor) -> Tensor:
        tokens = clean.shape[2] if self.per_frame else 1
        alpha = clean.new_empty(clean.shape[0], 1, tokens).uniform_(0, self.gamma)
        if self.clean_fraction > 0:
            alpha = alpha * (torch.rand_like(alpha) >= self.clean_fraction)
        return alpha


NoiseRegularizedConfig = config_of(NoiseRegularized)
