"""Linear decoder: audio from principal components of a lapped transform."""

from partita_blocks import LappedProjection, Level, LevelCode, from_mid_side
from partita_core import AudioSpec, FeedForwardDecoder, LatentSpec, config_of, register
from partita_core.ranges import Width
from torch import Tensor

from ._common import check_one_token


@register("decoder/linear")
class LinearDecoder(FeedForwardDecoder):
    """Inverse of `encoder/linear`: the MDCT frames that are nearest to those of the audio, fitted to data with it.

    Args:
        latent_spec: format of the latents, one token per frame.
        audio_spec: format of the output audio.
        numbers: numbers per frame, as in the encoder; None for as many as the latents hold.
        level: coding of the level of a frame, as in the encoder. Bounded latents are expanded by the inverse hyperbolic
            tangent first.

    Raises:
        PartitaError: the latents have several tokens per frame, or do not hold the numbers.
    """

    def __init__(
        self, latent_spec: LatentSpec, audio_spec: AudioSpec, *, numbers: Width | None = None, level: Level = "none"
    ) -> None:
        super().__init__()
        check_one_token("linear", latent_spec)
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.code = LevelCode(self.in_dim, numbers, level=level, bounded=latent_spec.bounded)
        self.projection = LappedProjection(audio_spec.channels, self.hop, self.code.numbers)
        self.context = (1, 1)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` of layouts `(batch,)` to `(batch, channels, hop * frames)`."""
        audio = self.projection.synthesize(self.code.decode(hidden))
        return from_mid_side(audio, layout).to(hidden.dtype)


LinearDecoderConfig = config_of(LinearDecoder)
