"""Linear path of a denoising decoder: the mean about which it denoises."""

import torch
from partita_core import Chain, DenoisingDecoder, Parallel, PartitaError, Precision, Stream, upcast
from partita_core.denoising import AudioTransform
from torch import Tensor

from .linear import LinearDecoder


class LinearMeanDecoder(DenoisingDecoder):
    """Denoising decoder about a mean, which a linear decoder computes from the same latents.

    The network denoises the difference from the mean, so that sampling starts from the mean and noise, and the network
    and its envelope learn what the linear decoder lacks. At `sigma_min` the input is returned bit for bit.

    The mean is lapped: it is computed across the borders of chunks, so that it is continuous there. For this the
    features of a chunk depend on the neighboring chunks, and a stream holds back one more chunk. A network with the
    attribute `refines` set gets the mean `(batch, n, C, F, T)` as a third input of `condition`.

    Args:
        network: denoising decoder.
        linear: linear decoder of the same latents.

    Raises:
        PartitaError: the features of the network depend on neighboring chunks.
    """

    def __init__(self, network: DenoisingDecoder, linear: LinearDecoder) -> None:
        super().__init__()
        if network.condition_context != (0, 0):
            raise PartitaError(
                f"{type(network).__name__} has a condition_context of {network.condition_context} chunks; the network "
                "of a linear path needs (0, 0)"
            )
        self.in_dim, self.hop, self.audio_spec = network.in_dim, network.hop, network.audio_spec
        self.tile_seconds, self.window = network.tile_seconds, network.window
        self.frames_per_chunk, self.schedule, self.sampler = network.frames_per_chunk, network.schedule, network.sampler
        self.loss_weights, self.refines = network.loss_weights, getattr(network, "refines", False)
        self.linear, self.network = linear, network
        transform, chunk = network.representation, self.hop * self.frames_per_chunk
        # The windows of a chunk's spectrogram overlap frames of audio that depend on their neighbors.
        left, right = (
            (frames or 0) * self.hop + own * transform.hop for frames, own in zip(linear.context, transform.context)
        )
        self.condition_context = (-(-left // chunk), -(-right // chunk))

    @property
    def representation(self) -> AudioTransform:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The network's; a property, since an attribute would save its weights twice."""
        return self.network.representation

    def mean(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Representation of the audio of the linear decoder, `(batch, n, C, F, T)` for n chunks of latents."""
        with torch.autocast(hidden.device.type, enabled=False):
            mean = self.representation(self.linear(upcast(hidden), layout))
        chunks = hidden.shape[-1] // self.frames_per_chunk
        return mean.unflatten(-1, (chunks, -1)).movedim(3, 1)

    def condition(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of the network, and the mean; see `DenoisingDecoder`."""
        return self._condition(hidden, layout, self.mean(hidden, layout))

    def condition_stream(self, layout: Tensor) -> Stream:
        """Stream of `condition`, whose network runs once per chunk; see `DenoisingDecoder`."""
        dim, unit = self.in_dim, self.frames_per_chunk
        dtype = next(self.network.parameters()).dtype
        shape = self.representation(torch.zeros(1, self.audio_spec.channels, unit * self.hop)).shape[1:]

        def joined(latents: Tensor, mean: Tensor) -> Tensor:
            return torch.cat([latents.flatten(1, 2).to(mean), mean.flatten(1, -2)], dim=1)

        def condition(chunks: Tensor) -> tuple[Tensor, ...]:
            latents, mean = chunks.mT.split([dim * unit, chunks.shape[1] - dim * unit], dim=2)
            hidden = latents.unflatten(2, (dim, unit)).transpose(1, 2).flatten(2).to(dtype)
            return self._condition(hidden, layout.to(hidden.device), mean.unflatten(2, shape))

        latents = self.chunk_stream(lambda hidden: hidden.unflatten(2, (-1, unit)).transpose(1, 2), context=(0, 0))
        mean = self.chunk_stream(lambda hidden: self.mean(hidden, layout.to(hidden.device)))
        return Chain(Parallel(joined, latents, mean), self.chunk_stream(condition, unit=1, context=(0, 0)))

    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """Denoise the difference from the mean; see `DenoisingDecoder`."""
        *own, mean = features
        wide, mean = upcast(x), _side_by_side(mean)
        denoised = mean + self.network((wide - mean).to(x.dtype), sigma, tuple(own))
        # The sum is rounded, and a denoiser returns its input at the smallest level.
        clean = (sigma <= self.schedule.sigma_min).repeat_interleave(x.shape[-1] // sigma.shape[1], dim=1)
        return torch.where(clean[:, None, None], wide, denoised)

    def deviation(self, features: tuple[Tensor, ...]) -> Tensor | None:
        """Deviation from the mean that the network predicts; see `DenoisingDecoder`."""
        return self.network.deviation(features[:-1])

    def losses(self, features: tuple[Tensor, ...], clean: Tensor) -> dict[str, Tensor]:
        """Losses of the network on the difference from the mean, which they do not train; see `DenoisingDecoder`."""
        difference = upcast(clean) - _side_by_side(features[-1].detach())
        return self.network.losses(features[:-1], difference)

    def start_at_zero(self) -> None:
        """Let the output of the network be zero: decoding then gives the mean, and noise of the envelope if it has one.

        See `Role.start_at_zero`.
        """
        self.network.start_at_zero()

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Optimize the network; see `Role.optimize`. The linear path keeps its precision."""
        self.network.optimize(precision=precision, compile=compile)

    def _condition(self, hidden: Tensor, layout: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        features = network.condition(hidden, layout, mean) if self.refines else network.condition(hidden, layout)  # pyright: ignore
        return *features, mean


def _side_by_side(mean: Tensor) -> Tensor:
    """Join the chunks of `(batch, w, C, F, T)` in time."""
    return mean.movedim(1, 3).flatten(3)
