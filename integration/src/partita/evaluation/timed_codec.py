"""Reconstruction by a codec, with the times of encoding and decoding and the statistics of its latents."""

import time
from dataclasses import replace

import torch
from partita_core import ChannelLayout, Codec, Latents, Sampler
from torch import Tensor

from partita.data.audio.resampling import resample, resample_some

from .latent_statistics import LatentStatistics, latent_statistics, latent_vectors
from .references import fit
from .results import Speed, System


class TimedCodec:
    """A codec whose encoding and decoding times are added up; resampling time is excluded.

    Args:
        codec: the codec.
        rate: sample rate of the clips in Hz.
        levels: number of code levels that are decoded; see `evaluate`.
        sampler: sampler of a denoising decoder; None for its default.
    """

    def __init__(self, codec: Codec, rate: int, levels: int | None, sampler: Sampler | None) -> None:
        self.codec, self.rate, self.sampler = codec, rate, sampler
        self.sizes = codec.latent_spec.codebook_sizes[:levels]  # of the codes that are decoded, if any
        self.levels = levels if self.sizes else None
        self._encode = self._decode = self._audio = 0.0
        self._warm = False
        self._vectors: list[Tensor] = []

    def reconstruct(self, audio: Tensor, layout: ChannelLayout, seed: int) -> Tensor:
        """Encode and decode a clip `(channels, samples)`; returns audio in its shape."""
        own = self.codec.audio_spec.sample_rate
        resampled = resample_some(audio.detach().cpu(), self.rate, own)[None]
        if not self._warm:  # the first run includes allocations and kernel selection
            first = self._encode_audio(resampled[..., :own], layout)
            self.codec.decode(first, sampler=self.sampler, seed=seed)
            self._warm = True
        start = self._now()
        latents = self._encode_audio(resampled, layout)
        middle = self._now()
        decoded = self.codec.decode(latents, sampler=self.sampler, seed=seed)[0]
        end = self._now()
        self._encode += middle - start
        self._decode += end - middle
        self._audio += resampled.shape[-1] / own
        if latents.values is None:
            assert latents.codes is not None
            latents = replace(latents, values=self.codec.codes_to_values(latents.codes))
        self._vectors.append(latent_vectors(latents).float())
        return fit(resample(decoded.cpu(), own, self.rate), audio.shape[-1]).to(audio)

    def _encode_audio(self, audio: Tensor, layout: ChannelLayout) -> Latents:
        latents = self.codec.encode(audio, layout=layout, num_quantizers=self.levels)
        return latents.only_codes() if self.sizes else latents

    def system(self, name: str) -> System:
        """Row of the table, with the rates and the speeds so far."""
        spec = replace(self.codec.latent_spec, codebook_sizes=self.sizes)
        speed = Speed(self._audio / max(self._encode, 1e-9), self._audio / max(self._decode, 1e-9))
        return System(name, False, spec.floats_per_second, spec.bit_rate, speed)

    def latents(self) -> LatentStatistics | None:
        """Statistics over all clips; None if all latent vectors are equal, as for silence."""
        vectors = torch.cat(self._vectors)
        return latent_statistics(vectors) if (vectors != vectors[:1]).any() else None

    def _now(self) -> float:
        parameter = next(self.codec.parameters(), None)
        if parameter is not None and parameter.is_cuda:
            torch.cuda.synchronize(parameter.device)
        return time.perf_counter()
