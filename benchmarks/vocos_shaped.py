"""Networks in the shape of Vocos (arXiv 2306.00814) for `learning.py`: ConvNeXt blocks over frames of an STFT.

The decoder predicts magnitudes and phases, as the published one does; the encoder, which Vocos does not have, is its
mirror image on logarithms of magnitudes.
"""

import torch
from partita_blocks import STFT
from partita_core import AudioSpec, Encoder, FeedForwardDecoder, LatentSpec, config_of, register, upcast
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTH, _INNER, _BLOCKS, _KERNEL = 160, 480, 5, 7
_MIN_MAGNITUDE, _MAX_MAGNITUDE = 1e-5, 1e2


class _Block(nn.Module):
    """ConvNeXt block over time (arXiv 2201.03545), as in Vocos."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(_WIDTH, _WIDTH, _KERNEL, padding="same", groups=_WIDTH)
        self.norm = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.up, self.down = nn.Linear(_WIDTH, _INNER), nn.Linear(_INNER, _WIDTH)
        self.scale = nn.Parameter(torch.full((_WIDTH,), 1 / _BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.depthwise(x).mT)
        return x + (self.scale * self.down(F.gelu(self.up(hidden)))).mT


class _Trunk(nn.Module):
    """Channels in, `_BLOCKS` blocks, channels out."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(in_dim, _WIDTH, _KERNEL, padding="same")
        self.first, self.last = (nn.LayerNorm(_WIDTH, eps=1e-6) for _ in range(2))
        self.blocks = nn.Sequential(*(_Block() for _ in range(_BLOCKS)))
        self.head = nn.Linear(_WIDTH, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.first(self.stem(x).mT).mT)
        return self.head(self.last(x.mT)).mT


# The blocks and the stem see this many frames on either side, and the window one more.
_CONTEXT = (_BLOCKS + 1) * (_KERNEL // 2) + 2


@register("encoder/vocos_shaped", example={"hop": 16})
class VocosShapedEncoder(Encoder):
    """ConvNeXt blocks on logarithms of magnitudes."""

    def __init__(self, out_dim: int, audio_spec: AudioSpec, *, hop: int = 320) -> None:
        super().__init__()
        self.out_dim, self.audio_spec, self.hop = out_dim, audio_spec, hop
        self.stft = STFT(n_fft=4 * hop, hop=hop, padding="same")
        self.trunk = _Trunk(self.stft.bins, out_dim)
        self.context = (_CONTEXT, _CONTEXT)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode; see `Encoder`."""
        magnitudes = self.stft(audio[:, 0]).abs()
        return self.trunk((magnitudes + _MIN_MAGNITUDE).log().to(audio.dtype))


@register("decoder/vocos_shaped")
class VocosShapedDecoder(FeedForwardDecoder):
    """ConvNeXt blocks, and an inverse STFT of predicted magnitudes and phases."""

    def __init__(self, latent_spec: LatentSpec, audio_spec: AudioSpec) -> None:
        super().__init__()
        self.in_dim, self.audio_spec, self.hop = latent_spec.dim, audio_spec, latent_spec.hop
        self.stft = STFT(n_fft=4 * self.hop, hop=self.hop, padding="same")
        self.trunk = _Trunk(self.in_dim, 2 * self.stft.bins)
        self.context = (_CONTEXT, _CONTEXT)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode; see `FeedForwardDecoder`."""
        logs, phases = upcast(self.trunk(hidden)).chunk(2, dim=1)
        magnitudes = logs.exp().clamp(max=_MAX_MAGNITUDE)
        audio = self.stft.inverse(torch.polar(magnitudes, phases), hidden.shape[2] * self.hop)
        return audio[:, None].to(hidden.dtype)


VocosShapedEncoderConfig, VocosShapedDecoderConfig = config_of(VocosShapedEncoder), config_of(VocosShapedDecoder)
