"""Parallel decoding (CoDiCodec): many chunks step by step, in pairs whose partners alternate."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from partita_core import Config, DenoisingDecoder, register
from partita_core.ranges import Count
from torch import Tensor

from ._chunks import ChunkStream, Features, levels


@register("sampler/parallel")
@dataclass(frozen=True)
class Parallel(Config):
    """Many chunks together, from one noise level to the next, in pairs whose partners alternate.

    From CoDiCodec (Pasini, Lattner, Fazekas, ISMIR 2025): the pairs are (0, 1), (2, 3), ... in even steps and (1, 2),
    (3, 4), ... in odd ones, so that every boundary lies within a pair in every other step. Where its released code
    completes a pair with an empty chunk to the right, which the left one does not see, a chunk goes alone.

    There, all chunks go through a step before the next. But a chunk depends on those within `steps` of it only,
    and the same comes out of a wave: whenever `batch` pairs of new chunks are there, each step goes on as far as the
    one before it allows, which is one chunk less, and what has been through the last step is final. So n chunks cost
    about n * steps / 2 pairs, `batch` a call, and at most `steps + 2 * batch - 2` chunks are held back.

    Attributes:
        steps: denoising steps, at times 1, 1 - 1/steps, ...
        batch: pairs that go through the decoder at a time, over all items, though at least one of each item; a
            matter of speed, memory and latency, not of results.
    """

    steps: Count = 4
    batch: Count = 8

    def build(self) -> "Parallel":
        """The sampler is its settings."""
        return self

    @classmethod
    def example(cls) -> "Parallel":
        """The defaults."""
        return cls()

    @property
    def latency(self) -> int:
        """Chunks held back: `steps - 1` in the wave, and before it one less than `batch` pairs have.

        So it is for one item; several share a batch, so that fewer chunks of each are held back.
        """
        return (self.steps - 1) + (2 * self.batch - 1)

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """A stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder sees one chunk at a time.
        """
        return _ParallelStream(decoder, seeds, self)


class _ParallelStream(ChunkStream):
    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, settings: Parallel) -> None:
        super().__init__(decoder, seeds, window=2)
        self.levels = levels(self.schedule, settings.steps)
        self.width = max(1, settings.batch // len(seeds))
        self._done = [0] * settings.steps  # chunks that went through each step
        # Of the chunks that are not final, by number.
        self._features: dict[int, Features] = {}
        self._clean: dict[int, Tensor] = {}

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        self._features[chunk] = features
        return self._advance(chunk + 1) if (chunk + 1) % (2 * self.width) == 0 else []

    def finish(self) -> list[Tensor]:
        return self._advance(self._count, last=True)

    def _advance(self, ready: int, *, last: bool = False) -> list[Tensor]:
        """Takes the first `ready` chunks through all steps, as far as their partners are there."""
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
        """Denoises the windows that begin at `starts`, in one call."""
        places = [[start + offset for start in starts] for offset in range(window)]
        name = f"step {step}"
        noisy = [torch.cat([self.noisy(self._clean.get(t), sigma, t, name) for t in place]) for place in places]
        features = [tuple(map(torch.cat, zip(*(self._features[t] for t in place)))) for place in places]
        denoised = self.denoise(noisy, [sigma] * window, features)
        for place, rows in zip(places, denoised):
            self._clean.update(zip(place, rows.split(len(self.seeds))))


def _seams(first: int, end: int, step: int, *, last: bool) -> list[int]:
    """Where the pairs and single chunks of a step begin and end, from `first` on, as far as `end` chunks allow.

    A chunk is alone where its partner is before the first chunk, or after the `last`.
    """
    return [t for t in range(first, end + 1) if t == first or t % 2 == step % 2 or (last and t == end)]
