"""Linear encoder: principal components of a lapped transform."""

from partita_blocks import LappedProjection, Level, LevelCode, to_mid_side
from partita_core import AudioSpec, Encoder, Stream, TiledStream, config_of, register
from partita_core.ranges import Proportion, Samples, Width
from torch import Tensor


@register("encoder/linear", example={"hop": 24})
class LinearEncoder(Encoder):
    """Projection of MDCT frames on their principal components, fitted to data before training.

    With `decoder/linear` it is the linear codec of the smallest squared error among those that project the frames of
    this MDCT: the reference that a network with as many numbers per second has to beat. Components are computed over
    mid and side jointly. It has no parameters to train.

    Args:
        out_dim: width of the hidden frames; channels without numbers are zero.
        audio_spec: format of the input audio.
        hop: samples per frame.
        numbers: numbers per frame; None for as many as `out_dim` holds. The decoder needs the same value.
        level: coding of the level of a frame; see `partita_blocks.LevelCode`. Bottlenecks that normalize or bound
            frames need "channel".
        weighting: exponent of the standard deviation by which bins are divided before the components are computed: 0
            for the smallest squared error, 0.5 for more of the quiet upper bins.

    Raises:
        PartitaError: a frame has fewer than `numbers` samples, or `out_dim` does not hold the numbers.
    """

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        hop: Samples = 320,
        numbers: Width | None = None,
        level: Level = "none",
        weighting: Proportion = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim, self.hop, self.audio_spec, self.weighting = out_dim, hop, audio_spec, weighting
        self.code = LevelCode(out_dim, numbers, level=level)
        self.projection = LappedProjection(audio_spec.channels, hop, self.code.numbers)
        self.context = (1, 1)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        return self.code.encode(self.numbers(audio, layout)).to(audio.dtype)

    def numbers(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Numbers `(batch, numbers, frames)` of audio `(batch, channels, hop * frames)`, before the level is coded."""
        return self.projection.analyze(to_mid_side(audio, layout))

    def numbers_stream(self, layout: Tensor, *, width: int) -> Stream:
        """Stream of `numbers`; see `Encoder.stream`."""
        return TiledStream(
            lambda audio: self.numbers(audio, layout.to(audio.device)),
            units_in=self.hop,
            units_out=1,
            context=(1, 1),
            hop=self.hop,
            width=width,
        )


LinearEncoderConfig = config_of(LinearEncoder)
