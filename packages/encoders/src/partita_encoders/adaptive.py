"""Encoder of the adaptive transform codec: MDCT bins, and a few numbers from which their envelope is decoded."""

import torch
from partita_blocks import MDCT, FrameStack, log_magnitude, standardize_logs, sub_frame_hop, to_mid_side
from partita_core import AudioSpec, Encoder, PartitaError, config_of, register, upcast
from partita_core.ranges import Extras, Layers, Samples, Width
from torch import Tensor
from torch.nn import functional as F


@register("encoder/adaptive", example={"hop": 24, "width": 8, "inner": 12, "blocks": 1})
class AdaptiveEncoder(Encoder):
    """Side numbers by a network over frames, followed by all MDCT bins of the frame.

    For `bottleneck/adaptive`, which keeps the side numbers and the bins that it predicts to be largest. The network
    gets the logarithm of the pseudo-spectrum, a smooth estimate of magnitudes from real bins (Daudet and Sandler,
    2004). Mid and side are coded.

    Args:
        out_dim: width of the hidden frames: the side numbers, and `hop` bins per channel.
        audio_spec: format of the input audio.
        hop: samples per frame.
        sub_frames: MDCT frames per frame of the latents.
        width: channels of the network.
        inner: channels of the hidden layers of its blocks.
        blocks: number of its blocks.

    Raises:
        PartitaError: `out_dim` leaves no side numbers, or `hop` is not a multiple of `sub_frames`.
    """

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        hop: Samples = 320,
        sub_frames: Layers = 2,
        width: Width = 192,
        inner: Width = 384,
        blocks: Extras = 3,
    ) -> None:
        super().__init__()
        bins = hop * audio_spec.channels
        if out_dim <= bins:
            raise PartitaError(
                f"out_dim is {out_dim}, but {bins} bins per frame and side numbers are expected; use "
                f"bottleneck/adaptive with bins={bins}"
            )
        self.out_dim, self.hop, self.audio_spec, self.sub_frames = out_dim, hop, audio_spec, sub_frames
        self.mdct = MDCT(sub_frame_hop(hop, sub_frames))
        self.network = FrameStack(bins, out_dim - bins, width=width, inner=inner, blocks=blocks)
        # The outermost sub-frames of a frame reach into the next one.
        self.context = (blocks + 1, blocks + 1)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        bins = self.mdct(to_mid_side(audio, layout))
        slope = F.pad(bins, (0, 0, 1, 1))
        pseudo = bins.square() + (slope[:, :, 2:] - slope[:, :, :-2]).square()
        features = standardize_logs(log_magnitude(pseudo))
        side = self.network(self._by_frame(features).mT.to(audio.dtype)).mT
        return torch.cat([upcast(side), self._by_frame(bins)], dim=1).to(audio.dtype)

    def start_at_zero(self) -> None:
        """Raise a PartitaError: bins are not zero."""
        raise PartitaError("AdaptiveEncoder passes the bins of the audio and cannot start at zero")

    def _by_frame(self, bins: Tensor) -> Tensor:
        """Bins `(batch, channels, bins, sub-frames)` to `(batch, channels * sub_frames * bins, frames)`."""
        return bins.unflatten(3, (-1, self.sub_frames)).permute(0, 1, 4, 2, 3).flatten(1, 3)


AdaptiveEncoderConfig = config_of(AdaptiveEncoder)
