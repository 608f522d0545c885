"""A decoder that denoises a lapped transform, and its sampler."""

import math
from dataclasses import dataclass

import torch
from partita_core.constants import Constant
from partita_core.denoising import AudioTransform, DenoisingDecoder, NoiseSchedule
from partita_core.errors import PartitaError
from partita_core.layouts import ChannelLayout
from partita_core.noise import keyed_noise
from partita_core.settings import register
from partita_core.specs import AudioSpec, LatentSpec
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Tiny


@register("decoder/denoising")
@dataclass(frozen=True)
class DenoisingConfig(Tiny):
    """A denoiser of a lapped transform with two frames per chunk and two chunks per step."""

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "TinyDenoiser":
        """Build the decoder."""
        return TinyDenoiser(latent_spec=latent_spec, audio_spec=audio_spec)


class Lapped(AudioTransform):
    """The modified discrete cosine transform with a sine window: frames of `2 * hop` samples, `hop` bins."""

    context = (1, 0)

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop
        n, k = (torch.arange(size, dtype=torch.float64, device="cpu") for size in (2 * hop, hop))
        n = n[:, None]
        basis = torch.cos(math.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5)) * torch.sin(math.pi / (2 * hop) * (n + 0.5))
        self.basis = Constant(basis * math.sqrt(2 / hop))

    def forward(self, audio: Tensor) -> Tensor:
        """See `AudioTransform`."""
        return (F.pad(audio, (0, self.hop)).unfold(-1, 2 * self.hop, self.hop) @ self.basis.like(audio)).transpose(2, 3)

    def inverse(self, x: Tensor) -> Tensor:
        """See `AudioTransform`."""
        first, second = (x.transpose(2, 3) @ self.basis.like(x).T).chunk(2, dim=-1)
        return (first + F.pad(second, (0, 0, 1, 0))[..., :-1, :]).flatten(2)


@dataclass(frozen=True)
class OneStep:
    """Sampler with one denoising step per chunk, given the previous chunk."""

    sigma: float = 1.0
    latency: int | None = 0

    def start(self, decoder: "TinyDenoiser", seeds: Tensor) -> "_OneStepStream":
        """Stream from features to chunks."""
        return _OneStepStream(self, decoder, seeds)


class _OneStepStream:
    def __init__(self, sampler: OneStep, decoder: "TinyDenoiser", seeds: Tensor) -> None:
        self.sampler, self.decoder, self.seeds = sampler, decoder, seeds
        self.count = 0
        self.held: Tensor | None = None  # features so far, for a sampler without bounded latency
        self.before: tuple[Tensor, Tensor] | None = None  # the previous chunk and its features

    def push(self, features: tuple[Tensor, ...], *, last: bool = False) -> Tensor:
        (f,) = features
        if self.sampler.latency is None:
            f = self.held = f if self.held is None else torch.cat([self.held, f], dim=1)
            f = f if last else f[:, :0]
        decoder = self.decoder
        shape = (decoder.audio_spec.channels, decoder.representation.hop, decoder.chunk_frames)
        chunks = [f.new_zeros(len(self.seeds), *shape[:2], 0)]
        for i in range(f.shape[1]):
            x = self.sampler.sigma * keyed_noise(self.seeds, self.count, shape=shape).to(f)
            own = f[:, i : i + 1].contiguous()  # rounding depends on strides, and strides on the size of the push
            self.count += 1
            pair, both = (x, own) if self.before is None else map(_join, self.before, (x, own), (-1, 1))
            clean = decoder(pair, f.new_full(both.shape[:2], self.sampler.sigma), (both,))[..., -shape[2] :]
            self.before = (clean, own)
            chunks.append(clean)
        return torch.cat(chunks, dim=-1)


def _join(first: Tensor, second: Tensor, dim: int) -> Tensor:
    return torch.cat([first, second], dim=dim)


class TinyDenoiser(DenoisingDecoder):
    """Scale each chunk by its noise level, add a tenth of the previous chunk, and shift it by its features."""

    window, frames_per_chunk = 2, 2
    schedule, sampler = NoiseSchedule(), OneStep()

    def __init__(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> None:
        super().__init__()
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.tokens_per_frame = latent_spec.tokens_per_frame
        self.representation = Lapped(8)
        chunk = self.hop * self.frames_per_chunk
        if chunk % 8:
            raise PartitaError(f"a chunk has {chunk} samples; a multiple of the transform's hop, 8, is needed")
        self.chunk_frames = chunk // 8
        width = self.in_dim * self.tokens_per_frame * self.frames_per_chunk
        self.features = nn.Linear(width, 6)
        self.layout = nn.Embedding(len(ChannelLayout), 6)
        self.move = nn.Linear(6, audio_spec.channels * chunk)
        self.mix = nn.Parameter(torch.ones(audio_spec.channels, 1, 1, 1))

    def condition(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        """See `DenoisingDecoder`."""
        chunks = hidden.unflatten(2, (-1, self.tokens_per_frame * self.frames_per_chunk)).transpose(1, 2).flatten(2)
        return (torch.tanh(self.features(chunks) + self.layout(layout)[:, None]),)

    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """See `DenoisingDecoder`."""
        (f,) = features
        noisy = x.unflatten(-1, (-1, self.chunk_frames)) / (1 + sigma.square())[:, None, None, :, None]
        noisy = noisy + 0.1 * F.pad(noisy, (0, 0, 1, 0))[..., :-1, :]
        move = self.move(f).unflatten(-1, (self.audio_spec.channels, -1, self.chunk_frames)).permute(0, 2, 3, 1, 4)
        return torch.tanh(self.mix * noisy + move).flatten(3)
