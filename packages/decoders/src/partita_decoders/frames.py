"""Decoder by networks over frames and one inverse lapped transform, without layers at the sample rate."""

import torch
from partita_blocks import (
    MDCT,
    Bands,
    FrameBlock,
    FrameStack,
    from_mid_side,
    hashed_signs,
    log_magnitude,
    standardize_logs,
    sub_frame_hop,
    to_mid_side,
)
from partita_core import (
    AudioSpec,
    FeedForwardDecoder,
    LatentSpec,
    PartitaError,
    config_of,
    register,
    set_to_zero,
    upcast,
)
from partita_core.ranges import Extras, Layers, Width
from torch import Tensor, nn
from torch.nn import functional as F

from ._common import check_one_token

_MAX_LOG_GAIN = 4.0


@register(
    "decoder/frames",
    example={
        "sub_frames": 2,
        "noise_bands": 4,
        "width": 8,
        "inner": 12,
        "blocks": 1,
        "sub_width": 8,
        "sub_inner": 12,
        "sub_blocks": 1,
    },
)
class FrameDecoder(FeedForwardDecoder):
    """Matrix products over frames, then over sub-frames, to MDCT bins and to gains of noise in bands.

    All layers run at the rate of frames or sub-frames, as in Vocos (Siuzdak, 2023, arXiv 2306.00814), which makes them
    fast on a CPU; the construction is ours. Bins that are a function of few latents repeat one texture per frame in the
    upper spectrum, which buzzes; noise of random signs does not. The signs are hashes of the latents.

    Args:
        latent_spec: format of the latents, one token per frame.
        audio_spec: format of the output audio; two channels are computed as mid and side.
        sub_frames: MDCT frames per frame of the latents.
        bins: number of bins that are predicted, from the lowest on; None for all, 0 for none.
        noise_bands: number of bands with a gain for noise; 0 for no noise.
        width: channels of the network at the rate of frames.
        inner: channels of the hidden layers of its blocks.
        blocks: number of its blocks.
        sub_width: channels of the network at the rate of sub-frames.
        sub_inner: channels of the hidden layers of its blocks.
        sub_blocks: number of its blocks.
        refines: whether `forward` takes the audio of a linear path as a third input; see `LinearPathDecoder`.

    Raises:
        PartitaError: the hop is not a multiple of `sub_frames`, there are fewer than `bins` bins, or neither bins nor
            noise are predicted.

    Attributes:
        noise_scale: magnitude of the noise `(channels, noise_bands)` at a gain of 1; see `fit_noise`.
    """

    noise_scale: Tensor

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        sub_frames: Layers = 4,
        bins: Extras | None = None,
        noise_bands: Extras = 40,
        width: Width = 256,
        inner: Width = 512,
        blocks: Extras = 2,
        sub_width: Width = 192,
        sub_inner: Width = 384,
        sub_blocks: Extras = 3,
        refines: bool = False,
    ) -> None:
        super().__init__()
        check_one_token("frames", latent_spec)
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.sub_frames, self.refines, channels = sub_frames, refines, audio_spec.channels
        self.mdct = MDCT(sub_frame_hop(self.hop, sub_frames))
        self.bins, self.noise_bands = self.mdct.hop if bins is None else bins, noise_bands
        if self.bins > self.mdct.hop or not self.bins + noise_bands:
            raise PartitaError(
                f"bins is {bins} and noise_bands is {noise_bands}; use 1 to {self.mdct.hop} bins, or noise bands"
            )
        self.bands = Bands(max(noise_bands, 1), self.mdct.hop, audio_spec.sample_rate)
        self.network = FrameStack(self.in_dim, sub_frames * sub_width, width=width, inner=inner, blocks=blocks)
        self.levels = nn.Linear(channels * self.bands.count, sub_width) if refines else None
        self.sub_blocks = nn.Sequential(*(FrameBlock(sub_width, sub_inner) for _ in range(sub_blocks)))
        self.head = nn.Linear(sub_width, channels * (self.bins + noise_bands))
        self.register_buffer("noise_scale", torch.full((channels, self.bands.count), 1e-2))
        # The outermost sub-frames see the blocks, the lapped transform, and with `refines` that of the linear path.
        reach = -(-(sub_blocks + 1 + refines) // sub_frames)
        self.context = (blocks + reach, blocks + reach)

    def forward(self, hidden: Tensor, layout: Tensor, linear: Tensor | None = None) -> Tensor:
        """Decode latents to audio.

        Args:
            hidden: latents `(batch, in_dim, frames)`.
            layout: channel layout of each item, `(batch,)` int64.
            linear: audio `(batch, channels, hop * frames)` of the linear path, if the decoder refines it.

        Returns:
            Audio `(batch, channels, hop * frames)`.
        """
        x = self.network(hidden.mT).unflatten(2, (self.sub_frames, -1)).flatten(1, 2)
        if self.levels is not None:
            if linear is None:
                raise PartitaError("this decoder refines a linear path; build it as the network of decoder/linear_path")
            levels = standardize_logs(self._band_logs(to_mid_side(linear, layout)))
            x = x + self.levels(levels.transpose(1, 2).flatten(2).to(x.dtype))
        output = upcast(self.head(F.silu(self.sub_blocks(x)))).unflatten(2, (self.audio_spec.channels, -1))
        values, gains = output.transpose(1, 2).split((self.bins, self.noise_bands), dim=3)
        spectrum = F.pad(values, (0, self.mdct.hop - self.bins))
        if self.noise_bands:
            spectrum = spectrum + self._noise(gains, hidden)
        return from_mid_side(self.mdct.inverse(spectrum.transpose(2, 3)), layout).to(hidden.dtype)

    def start_at_zero(self) -> None:
        """Set the last layer and the scale of the noise to zero; see `Role.start_at_zero`."""
        set_to_zero(self.head)
        self.noise_scale.zero_()

    @torch.no_grad()
    def fit_noise(self, residual: Tensor) -> None:
        """Set the scale of the noise to the geometric mean of a residual's magnitudes.

        Args:
            residual: audio `(batch, channels, samples)` that the linear path lacks, mid and side.
        """
        self.noise_scale.copy_(self._band_logs(residual).mean((0, 2)).exp())

    def _noise(self, gains: Tensor, hidden: Tensor) -> Tensor:
        """Noise `(batch, channels, sub-frames, bins)` of logarithmic gains `(batch, channels, sub-frames, bands)`."""
        scale = gains.clamp(max=_MAX_LOG_GAIN).exp() * upcast(self.noise_scale)[:, None]
        groups = (self.audio_spec.channels, self.mdct.hop, self.sub_frames)
        signs = hashed_signs(upcast(hidden), groups[0] * groups[1] * groups[2]).unflatten(1, groups)
        return self.bands.spread(scale) * signs.permute(0, 1, 4, 3, 2).flatten(2, 3)

    def _band_logs(self, audio: Tensor) -> Tensor:
        """Logarithms of the magnitudes in bands `(batch, channels, sub-frames, bands)` of mid and side."""
        return log_magnitude(self.bands.mean(self.mdct(audio).square().transpose(2, 3)))


FrameDecoderConfig = config_of(FrameDecoder)
