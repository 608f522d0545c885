"""Ablations of a denoising decoder: without its network, without noise, and with a wrong chunk before each chunk."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from partita_core import Autoencoder, Codec, DenoisingDecoder, PartitaError, Sampler
from partita_decoders import LinearMeanDecoder
from torch import Tensor, nn

# The wrong chunk is the one before this many chunks.
DISTANCE = 5


def ablations(codec: Codec) -> dict[str, Autoencoder]:
    """Copies of a codec without parts of its decoder, which share its other weights.

    * "output zeroed": the output of the denoising network is zero, so that only the envelope and the mean are left, of
      a decoder that has them.
    * "wrong chunk before": each chunk is denoised with another chunk before it; see `WrongContext`.
    * "mean alone": the linear decoder, for a decoder that denoises about a mean.

    Raises:
        PartitaError: the decoder does not denoise.
    """
    zeroed, wrong = with_sampler(codec), with_sampler(codec)
    zeroed.decoder = copy.deepcopy(zeroed.decoder)
    zeroed.decoder.start_at_zero()
    wrong.decoder.sampler = WrongContext(wrong.decoder.sampler)  # pyright: ignore
    found = {"output zeroed": zeroed, "wrong chunk before": wrong}
    if isinstance(wrong.decoder, LinearMeanDecoder):
        found["mean alone"] = Autoencoder(wrong.encoder, wrong.bottleneck, wrong.decoder.linear)
    return found


def with_sampler(codec: Codec, sampler: Sampler | None = None) -> Autoencoder:
    """A copy of the codec with shared weights and another default sampler, to evaluate several samplers as systems.

    Args:
        codec: autoencoder with a denoising decoder.
        sampler: the new default sampler; None to keep its own.

    Raises:
        PartitaError: the decoder does not denoise.
    """
    if not isinstance(codec, Autoencoder) or not isinstance(codec.decoder, DenoisingDecoder):
        raise PartitaError(f"{type(codec).__name__} has no denoising decoder, which a sampler needs")
    twin = copy.deepcopy(codec, {id(weight): weight for weight in (*codec.parameters(), *codec.buffers())})
    assert isinstance(twin.decoder, DenoisingDecoder)
    twin.decoder.sampler = twin.decoder.sampler if sampler is None else sampler
    return twin


@dataclass(frozen=True)
class WrongContext:
    """Sampler that denoises each chunk with the noisy version and the features of an earlier chunk as its context.

    The chunk before still gets the result of the correct pair, so that samplers that refine it are not affected.

    Attributes:
        sampler: sampler whose calls of the decoder are changed.
        distance: number of pairs between the correct and the wrong chunk.
    """

    sampler: Sampler
    distance: int = DISTANCE

    @property
    def latency(self) -> int | None:
        """Number of chunks held back by the sampler."""
        return self.sampler.latency

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> Any:
        """Start a stream of the sampler; see `partita_core.Sampler`."""
        return self.sampler.start(_WrongContextDecoder(decoder, self.distance), seeds)


class _WrongContextDecoder(nn.Module):
    """Decoder in which the second chunk of a pair is denoised after an earlier first chunk."""

    def __init__(self, decoder: DenoisingDecoder, distance: int) -> None:
        super().__init__()
        self.decoder, self.distance = decoder, distance
        self.before: list[tuple[Tensor, Tensor, tuple[Tensor, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("decoder"), name)

    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """Denoise chunks; see `DenoisingDecoder`."""
        denoised = self.decoder(x, sigma, features)
        if sigma.shape[1] < 2:
            return denoised
        width = x.shape[-1] // 2
        own = x[..., :width], sigma[:, :1], tuple(f[:, :1] for f in features)
        self.before = [*self.before[-self.distance :], own]
        wrong, level, others = next((one for one in self.before if one[0].shape == own[0].shape), own)
        pair = tuple(torch.cat([other, f[:, 1:]], dim=1) for other, f in zip(others, features))
        second = self.decoder(torch.cat([wrong, x[..., width:]], -1), torch.cat([level, sigma[:, 1:]], 1), pair)
        return torch.cat([denoised[..., :width], second[..., width:]], dim=-1)
