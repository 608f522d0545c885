"""Parallel decoding (CoDiCodec): many chunks per step, in pairs whose partners alternate."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from partita_core import DenoisingDecoder, register
from partita_core.ranges import Count
from torch import Tensor

from .chunks import ChunkStream, Features, SamplerSettings, levels


@register("sampler/parallel")
@dataclass(frozen=True)
class Parallel(SamplerSettings):
    """Sampler that denoises many chunks together, from one noise level to the next, in pairs whose partners alternate.

    From CoDiCodec (Pasini, Lattner, Fazekas, ISMIR 2025): the pairs are (0, 1), (2, 3), ... in even steps and (1, 2),
    (3, 4), ... in odd steps, so that every seam lies inside a pair in every other step. A chunk without a partner is
    denoised alone; the released code adds an empty chunk to its right instead, on which it does not depend.

    The released code takes all chunks through one step before the next. Since a chunk depends only on chunks at most
    `steps` away, a stream gives the same result: for every `batch` pairs of new chunks, each step continues up to one
    chunk before the end of the previous step, and chunks that have been through the last step are final. n chunks take
    about n * steps / 2 pairs, `batch` per call, and at most `steps + 2 * batch - 2` chunks are held back.

    Attributes:
        steps: denoising steps, at times 1, 1 - 1/steps, ...
        batch: number of pairs per call of the decoder over all items, at least one per item; affects speed, memory and
            latency, but not results.
    """

    steps: Count = 4
    batch: Count = 8

    @property
    def latency(self) -> int:
        """Number of chunks held back: `steps - 1` between the steps, and one less than `batch` pairs before them.

        This is for a batch of one; several items share the pairs of a call, so that fewer chunks of each are held back.
        """
        return (self.steps - 1) + (2 * self.batch - 1)

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder's window is one chunk.
        """
        return _ParallelStream(decoder, seeds, self)


class _ParallelStream(ChunkStream):
    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, settings: Parallel) -> None:
        super().__init__(decoder, seeds, window=2)
        self.levels = levels(self.schedule, settings.steps)
        self.width = max(1, settings.batch // len(seeds))
        self._done = [0] * settings.steps  # number of chunks that completed each step
        # Features and denoised versions of the chunks that are not final, by number.
        self._features: dict[int, Features] = {}
        self._clean: dict[int, Tensor] = {}

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        self._features[chunk] = features
        return self._advance(chunk + 1) if (chunk + 1) % (2 * self.width) == 0 else []

    def finish(self) -> list[Tensor]:
        return self._advance(self._count, last=True)

    def _advance(self, ready: int, *, last: bool = False) -> list[Tensor]:
        """Take the first `ready` chunks through all steps, as far as their partners are available."""
        final = self._done[-1]
        for step, sigma in enumerate(self.levels):
            seams = _seams(self._done[step], ready, step, last=last)
            for window in (2, 1):
                starts = [start for start, end in pairwise(seams) if end - start == window]
                for i in range(0, len(starts), self.width):
                    self._step(starts[i : i + self.width], window, step, sigma)
            ready = self._done[step] = seams[-1]
        for t in range(final, ready):
            del self._features[t]
        return [self._clean.pop(t) for t in range(final, ready)]

    def _step(self, starts: list[int], window: int, step: int, sigma: float) -> None:
        """Denoise the windows that begin at `starts` in one call."""
        positions = [[start + offset for start in starts] for offset in range(window)]
        name = f"step {step}"
        noisy = [torch.cat([self.noisy(self._clean.get(t), sigma, t, name) for t in chunks]) for chunks in positions]
        features = [tuple(map(torch.cat, zip(*(self._features[t] for t in chunks)))) for chunks in positions]
        denoised = self.denoise(noisy, [sigma] * window, features)
        for chunks, rows in zip(positions, denoised):
            self._clean.update(zip(chunks, rows.split(len(self.seeds))))


def _seams(first: int, end: int, step: int, *, last: bool) -> list[int]:
    """Boundaries of the pairs and single chunks of a step, from chunk `first` up to at most chunk `end`.

    A chunk is single if its partner is before the first chunk or, if `last`, after the end.
    """
    return [t for t in range(first, end + 1) if t == first or t % 2 == step % 2 or (last and t == end)]
