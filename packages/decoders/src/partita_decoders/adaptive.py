"""Decoder of the adaptive transform codec: selected MDCT bins, corrections, and noise in place of the other bins."""

import math

import torch
from partita_blocks import MDCT, FrameStack, from_mid_side, hashed_signs, standardize_logs, sub_frame_hop
from partita_core import AudioSpec, FeedForwardDecoder, LatentSpec, PartitaError, config_of, register, upcast
from partita_core.ranges import Extras, Layers, Positive, Width
from torch import Tensor

from ._common import check_one_token

_MIN_LOG, _MAX_LOG = -6.0, 2.0
# The mean square of a bin of Laplace distribution is higher than the square of its scale.
_NOISE, _LOW_NOISE = 1.25, 0.75


@register("decoder/adaptive", example={"width": 8, "inner": 12, "blocks": 1, "sub_frames": 2})
class AdaptiveDecoder(FeedForwardDecoder):
    """Inverse MDCT of what `bottleneck/adaptive` expands, completed by a network over frames.

    Bins that were not transmitted become noise of random signs, with gains that the network corrects; below
    `corrected_hz`, where the ear follows single partials, it also corrects the values of all bins. Signs are hashes of
    the latents: without noise, the decoder would repeat one texture in each frame, which buzzes.

    Args:
        latent_spec: format of the latents, with the width that `bottleneck/adaptive` expands to.
        audio_spec: format of the output audio.
        sub_frames: MDCT frames per frame of the latents, as in the encoder.
        width: channels of the network.
        inner: channels of the hidden layers of its blocks.
        blocks: number of its blocks.
        corrected_hz: frequency below which values are corrected.

    Raises:
        PartitaError: the latents do not have two channels per bin, or the hop is not a multiple of `sub_frames`.
    """

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        sub_frames: Layers = 2,
        width: Width = 256,
        inner: Width = 512,
        blocks: Extras = 3,
        corrected_hz: Positive = 3500.0,
    ) -> None:
        super().__init__()
        check_one_token("adaptive", latent_spec)
        self.in_dim, self.hop, self.audio_spec, self.sub_frames = (
            latent_spec.dim,
            latent_spec.hop,
            audio_spec,
            sub_frames,
        )
        bins = self.hop * audio_spec.channels
        if self.in_dim != 2 * bins:
            raise PartitaError(
                f"the adaptive decoder takes 2 x {bins} channels, but gets {self.in_dim}; use bottleneck/adaptive with "
                f"bins={bins}"
            )
        self.mdct = MDCT(sub_frame_hop(self.hop, sub_frames))
        low = math.ceil(2 * corrected_hz / audio_spec.sample_rate * self.mdct.hop)
        self.low = min(low, self.mdct.hop)
        outputs = audio_spec.channels * sub_frames
        self.network = FrameStack(
            2 * bins, outputs * (self.low + self.mdct.hop), width=width, inner=inner, blocks=blocks
        )
        with torch.no_grad():
            self.network.head.weight.mul_(0.01)
            self.network.head.bias.zero_()
        self.context = (blocks + 1, blocks + 1)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` of layouts `(batch,)` to `(batch, channels, hop * frames)`."""
        scale, placed = upcast(hidden).chunk(2, dim=1)
        companded = placed / (placed.abs() + 0.1).sqrt()
        features = torch.cat([companded, standardize_logs(scale)], dim=1)
        output = upcast(self.network(features.mT.to(hidden.dtype)).mT)
        groups = self.audio_spec.channels * self.sub_frames
        output = output.unflatten(1, (groups, -1))
        values, gains = output.split((self.low, self.mdct.hop), dim=2)
        default = gains.new_full((self.mdct.hop,), _NOISE)
        default[: self.low] = _LOW_NOISE
        gains = (gains + default.log()[:, None]).clamp(_MIN_LOG, _MAX_LOG).exp()
        signs = hashed_signs(placed, groups * self.mdct.hop).unflatten(1, (groups, -1))
        placed = placed.unflatten(1, (groups, -1))
        predicted = torch.nn.functional.pad(values, (0, 0, 0, self.mdct.hop - self.low))
        bins = (placed + predicted + torch.where(placed == 0, gains * signs, 0)) * scale.exp().unflatten(
            1, (groups, -1)
        )
        bins = bins.unflatten(1, (-1, self.sub_frames)).permute(0, 1, 3, 4, 2).flatten(3)
        return from_mid_side(self.mdct.inverse(bins), layout).to(hidden.dtype)

    def start_at_zero(self) -> None:
        """Raise a PartitaError: selected bins are decoded as they are."""
        raise PartitaError("AdaptiveDecoder decodes bins as they are and cannot start at zero")


AdaptiveDecoderConfig = config_of(AdaptiveDecoder)
