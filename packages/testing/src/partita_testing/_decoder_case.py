"""Cases of decoders."""

from dataclasses import dataclass
from typing import Any

import torch
from partita_core.decoder_roles import Decoder
from partita_core.denoising import DenoisingDecoder
from partita_core.specs import AudioSpec, LatentSpec
from partita_core.streams import Stream
from torch import Tensor, nn

from ._common import expect, first_accepted, noise
from ._parts import AUTO, PartCase
from .encoders import AUDIO, layouts_of

# Hops to try if a case names none, common ones first; decoders raise an error for unsupported ones.
_HOPS = (*range(16, 2049), *range(1, 16))
_found: dict[str, tuple[int, int]] = {}


@dataclass(frozen=True)
class DecoderCase(PartCase):
    """A decoder under test.

    For a denoising decoder a "frame" is a chunk, and checks run what is trained: one denoising step on `window` chunks
    at a time.

    Attributes:
        audio_spec: audio that it is built for.
        dim: number of channels of the latents.
        hop: samples per frame; None for the first that the decoder accepts.
        tokens_per_frame: tokens per frame; None for the first that the decoder accepts.
    """

    audio_spec: AudioSpec = AUDIO
    dim: int = 4
    hop: int | None = None
    tokens_per_frame: int | None = None

    @property
    def latent_spec(self) -> LatentSpec:
        """Spec of the latents that the decoder is built for."""
        key = repr(self)
        if key not in _found:
            hops = _HOPS if self.hop is None else (self.hop,)
            tokens = (1, 2, 3, 4) if self.tokens_per_frame is None else (self.tokens_per_frame,)
            pairs = ((hop, k) for hop in hops for k in tokens)
            _found[key] = first_accepted(lambda pair: self._build(*pair), pairs, "hop and tokens_per_frame")
        return self._spec(*_found[key])

    def make(self) -> Decoder:
        """Build the decoder from its Config."""
        spec = self.latent_spec
        return self._build(spec.hop, spec.tokens_per_frame)

    def _spec(self, hop: int, tokens_per_frame: int) -> LatentSpec:
        return LatentSpec(self.dim, self.audio_spec.sample_rate, hop, tokens_per_frame, ordered=tokens_per_frame == 1)

    def _build(self, hop: int, tokens_per_frame: int) -> Decoder:
        return self.config.build(latent_spec=self._spec(hop, tokens_per_frame), audio_spec=self.audio_spec)

    def units(self, part: Decoder) -> tuple[int, int]:
        """Tokens per frame and hop; for a denoising decoder those of a chunk, in its representation."""
        if isinstance(part, DenoisingDecoder):
            return part.tokens_per_frame * part.frames_per_chunk, _chunk_shape(part)[-1]
        return part.tokens_per_frame, part.hop

    def inputs(self, part: Decoder, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Latents and layouts; for a denoising decoder also a noisy representation and its noise levels."""
        hidden, layout = self.latents(part, batch, self.units(part)[0] * frames, seed)
        if not isinstance(part, DenoisingDecoder):
            return hidden, layout
        channels, bins, width = _chunk_shape(part)
        sigma = 0.1 + noise(batch, frames, seed=seed + 1).abs()
        x = noise(batch, channels, bins, frames * width, seed=seed + 2)
        return hidden, layout, x, sigma

    def latents(self, part: Decoder, batch: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
        """Latents and layouts, the inputs of `generate`."""
        return noise(batch, part.in_dim, tokens, seed=seed), layouts_of(self.audio_spec, batch)

    def run(self, part: Decoder, *inputs: Tensor) -> Tensor:
        """Run `forward`, for a denoising decoder on the features of the latents, up to `window` chunks at a time."""
        if not isinstance(part, DenoisingDecoder):
            return part(*inputs)
        hidden, layout, x, sigma = inputs
        features = part.condition(hidden, layout)
        width = x.shape[-1] // sigma.shape[1]
        steps = []
        for i in range(0, sigma.shape[1], part.window):
            piece = slice(i, i + part.window)
            noisy = x[..., i * width : (i + part.window) * width]
            steps.append(part(noisy, sigma[:, piece], tuple(f[:, piece] for f in features)))
        return torch.cat(steps, dim=-1)

    def auxiliary_losses(self, part: Decoder, *inputs: Tensor) -> list[Tensor]:
        """Losses of a denoising decoder."""
        if not isinstance(part, DenoisingDecoder):
            return []
        hidden, layout, x, _ = inputs
        return list(part.losses(part.condition(hidden, layout), x).values())

    def stream(self, part: Decoder, rest: tuple[Tensor, ...], width: int) -> Stream:
        """Stream from full frames of latents to audio."""
        return part.stream(rest[0], dtype=torch.float64, width=width)

    def exported(
        self, part: Any, inputs: tuple[Tensor, ...]
    ) -> list[tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]]:
        """`forward`; for a denoising decoder `condition`, and `forward` with a fixed number of chunks."""
        if not isinstance(part, DenoisingDecoder):
            return super().exported(part, inputs)
        hidden, layout, x, sigma = inputs
        window = part.window
        features = tuple(f[:, :window].contiguous() for f in part.condition(hidden, layout))
        noisy = x[..., : window * (x.shape[-1] // sigma.shape[1])].contiguous()
        step = (noisy, sigma[:, :window].contiguous(), features)
        batch = {0: AUTO}
        return [
            (_Condition(part), (hidden, layout), ({0: AUTO, 2: AUTO}, batch)),
            (part, step, (batch, batch, tuple(batch for _ in features))),
        ]


class _Condition(nn.Module):
    def __init__(self, decoder: DenoisingDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        return self.decoder.condition(hidden, layout)


def _chunk_shape(part: DenoisingDecoder) -> tuple[int, ...]:
    """Features, bins and frames per chunk of the decoder's representation."""
    samples = part.hop * part.frames_per_chunk
    frames = samples // part.representation.hop
    dtype = next((p.dtype for p in part.parameters()), torch.float32)
    shape = part.representation(torch.zeros(1, part.audio_spec.channels, samples, dtype=dtype)).shape
    expect(shape[-1] == frames, f"the representation of a chunk has {shape[-1]} frames, its hop implies {frames}")
    return tuple(shape[1:])
