"""Conformance suite of samplers."""

import json
from dataclasses import dataclass, field, replace

import torch
from partita_core.configs import from_dict, to_dict
from partita_core.denoising import DenoisingDecoder, Sampler
from partita_core.registry import Config
from partita_core.specs import AudioSpec, LatentSpec
from torch import Tensor

from ._common import Case, Suite, check, expect, expect_equal, expect_finite, noise, random_splits
from .dummies import DenoisingConfig


@dataclass(frozen=True)
class SamplerCase(Case):
    """A sampler under test.

    Attributes:
        decoder: Config of the denoising decoder that it runs.
        chunks: number of chunks that are decoded.
    """

    decoder: Config = field(default_factory=DenoisingConfig)
    chunks: int = 7

    def make(self) -> DenoisingDecoder:
        """Build the decoder."""
        return self.decoder.build(latent_spec=LatentSpec(4, 8000, 16), audio_spec=AudioSpec(8000))

    @property
    def sampler(self) -> Sampler:
        """The sampler."""
        return self.config.build()

    def features(self, decoder: DenoisingDecoder, batch: int = 3) -> tuple[Tensor, ...]:
        """Features of random latents, each `(batch, chunks, ...)`."""
        tokens = self.chunks * decoder.frames_per_chunk * decoder.tokens_per_frame
        hidden = noise(batch, decoder.in_dim, tokens, seed=1).to(next(decoder.parameters()).dtype)
        return decoder.condition(hidden, torch.zeros(batch, dtype=torch.int64))

    def run(
        self,
        decoder: DenoisingDecoder,
        features: tuple[Tensor, ...],
        *,
        splits: list[int] | None = None,
        seeds: Tensor | None = None,
    ) -> list[Tensor]:
        """Results of pushing features, in pieces of `splits` chunks, with a different noise seed per item."""
        splits = [features[0].shape[1]] if splits is None else splits
        seeds = torch.arange(len(features[0])) if seeds is None else seeds
        stream = self.sampler.start(decoder, seeds)
        pieces = list(zip(*(f.split(splits, dim=1) for f in features)))
        return [stream.push(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]


@check(fix="return chunks as soon as they are final and the rest after the last push, or correct `latency`")
@torch.no_grad()
def latency_is_as_declared(case: SamplerCase) -> None:
    """At most `latency` chunks are held back after any push, none after the last; all until then if it is None."""
    latency = case.sampler.latency
    case = replace(case, chunks=case.chunks + (latency or 0))
    decoder = case.build()
    results = case.run(decoder, case.features(decoder, batch=1), splits=[1] * case.chunks)
    expect_finite(results, "the chunks")
    per_chunk = decoder.hop * decoder.frames_per_chunk // decoder.representation.hop
    returned = torch.tensor([result.shape[-1] for result in results]).cumsum(0) / per_chunk
    held = (torch.arange(1, case.chunks + 1) - returned).tolist()
    expect(held[-1] == 0, f"{held[-1]:g} of {case.chunks} chunks are missing at the end")
    if latency is None:
        expect(held[:-1] == list(range(1, case.chunks)), f"`latency` is None, but {min(held[:-1]):g} chunks are held")
    else:
        expect(max(held) <= latency, f"`latency` is {latency}, but up to {max(held):g} chunks are held back")


@check(latency_is_as_declared, fix="let nothing depend on how chunks are divided into pushes")
@torch.no_grad()
def pushes_do_not_matter(case: SamplerCase) -> None:
    """The result is the same for any division of the chunks into pushes, some of them empty."""
    decoder = case.build()
    features = case.features(decoder)
    whole = torch.cat(case.run(decoder, features), dim=-1)
    for seed in (1, 2):
        splits = random_splits(case.chunks, seed)
        pieces = case.run(decoder, features, splits=splits)
        expect_equal(torch.cat(pieces, dim=-1), whole, f"in pushes of {splits} chunks")


@check(fix="draw noise with `keyed_noise` from the seed of the item, the chunk and the step")
@torch.no_grad()
def noise_depends_on_the_seeds_only(case: SamplerCase) -> None:
    """Equal seeds give equal results bit for bit, other seeds others; the global random state is not used."""
    decoder = case.build()
    features, before = case.features(decoder), torch.get_rng_state()
    first = case.run(decoder, features)
    expect(torch.equal(before, torch.get_rng_state()), "global random numbers are drawn")
    expect_equal(case.run(decoder, features), first, "the second run", exact=True)
    other = case.run(decoder, features, seeds=torch.arange(len(features[0])) + 100)
    expect(not torch.equal(torch.cat(other, -1), torch.cat(first, -1)), "other seeds give the same result")


@check(noise_depends_on_the_seeds_only, fix="compute nothing over the batch axis, and use the seed of each item")
@torch.no_grad()
def batch_composition_does_not_matter(case: SamplerCase) -> None:
    """Each item of a batch gives the same result as alone."""
    decoder = case.build()
    features = case.features(decoder)
    together = torch.cat(case.run(decoder, features), dim=-1)
    for i in range(len(together)):
        alone = case.run(decoder, tuple(f[i : i + 1] for f in features), seeds=torch.tensor([i]))
        expect_equal(torch.cat(alone, dim=-1), together[i : i + 1], f"item {i} in a batch of {len(together)}")


@check(fix="clone what is kept, and write to nothing in place")
@torch.no_grad()
def features_are_left_unchanged(case: SamplerCase) -> None:
    """The features that are pushed are not modified."""
    decoder = case.build()
    features = case.features(decoder)
    kept = [f.clone() for f in features]
    case.run(decoder, features)
    expect_equal(features, kept, "the features after the run", exact=True)


@check(fix="follow the dtype of the features, and keep at least float32")
@torch.no_grad()
def runs_in_half_and_double_precision(case: SamplerCase) -> None:
    """A decoder in float64, float32 or bfloat16 gives chunks in its dtype, or float32 if that is more."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        decoder = case.build(dtype)
        result = torch.cat(case.run(decoder, case.features(decoder)), dim=-1)
        wanted = torch.float32 if dtype is torch.bfloat16 else dtype
        expect(result.dtype == wanted, f"a decoder in {dtype} gives chunks in {result.dtype}, not {wanted}")
        expect_finite(result, f"chunks of a decoder in {dtype}")


@check(fix="register the frozen dataclass with @register, and return self from build")
def config_round_trip(case: SamplerCase) -> None:
    """The settings equal themselves after a round trip through JSON."""
    back = from_dict(Config, json.loads(json.dumps(to_dict(case.config))))
    expect(back == case.config, f"{case.config} became {back}")


SAMPLER_CHECKS = Suite(
    "sampler",
    SamplerCase,
    (
        latency_is_as_declared,
        pushes_do_not_matter,
        noise_depends_on_the_seeds_only,
        batch_composition_does_not_matter,
        features_are_left_unchanged,
        runs_in_half_and_double_precision,
        config_round_trip,
    ),
)

check_sampler = SAMPLER_CHECKS.check
"""Run the suite on a sampler, or on a `SamplerCase`; see `Suite.check`."""
