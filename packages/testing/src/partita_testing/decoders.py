"""Conformance suite of decoders, feed-forward and denoising."""

from dataclasses import dataclass
from typing import Any

import torch
from partita_core.denoising import DenoisingDecoder
from partita_core.errors import PartitaError
from partita_core.registry import Config
from partita_core.roles import Decoder, FeedForwardDecoder
from partita_core.specs import AudioSpec, LatentSpec
from partita_core.streams import Stream
from torch import Tensor, nn

from ._common import Suite, check, expect, expect_equal, expect_finite, first_accepted, noise, random_splits
from ._context import context_is_as_declared, receptive_field, steps_do_not_modify_in_place, tiled_equals_whole
from ._parts import AUTO, EVERY_PART, PartCase
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


@check(fix="return exactly hop * frames samples from generate, or correct the attributes")
@torch.no_grad()
def generates_as_declared(case: DecoderCase) -> None:
    """`generate` returns exactly hop * frames samples for 1, 2, 3 and 5 frames; widths are as declared."""
    part, spec = case.build(), case.latent_spec
    expect(isinstance(part, Decoder), f"{type(part).__name__} is not a Decoder")
    for what, declared, given in (
        ("in_dim", part.in_dim, spec.dim),
        ("hop", part.hop, spec.hop),
        ("tokens_per_frame", part.tokens_per_frame, spec.tokens_per_frame),
        ("audio_spec", part.audio_spec, case.audio_spec),
    ):
        expect(declared == given, f"{what} is {declared}, the Config was built with {given}")
    for frames in (1, 2, 3, 5):
        hidden, layout = case.latents(part, 3, frames * part.tokens_per_frame, seed=1)
        audio = part.generate(hidden, layout)
        declared = (3, case.audio_spec.channels, frames * part.hop)
        expect(tuple(audio.shape) == declared, f"{frames} frames become {tuple(audio.shape)}, declared is {declared}")
        expect(audio.dtype == torch.float64, f"a float64 decoder generates {audio.dtype}")


@check(fix="inherit generate and stream from FeedForwardDecoder")
def feed_forward_rejects_samplers(case: DecoderCase) -> None:
    """A feed-forward decoder raises a PartitaError of one line if a sampler is given."""
    part = case.build()
    if isinstance(part, FeedForwardDecoder):
        hidden, layout = case.latents(part, 1, part.tokens_per_frame, seed=1)
        for call in (lambda: part.generate(hidden, layout, sampler="x"), lambda: part.stream(layout, sampler="x")):
            try:
                call()
            except PartitaError as error:
                expect("\n" not in str(error), "the message for a sampler is not one line")
            else:
                raise AssertionError("a sampler raises no PartitaError")


@check(fix="set `context` to the measured frames")
def feed_forward_context_is_as_declared(case: DecoderCase) -> None:
    """The declared context of a feed-forward decoder equals the measured one; see `context_is_as_declared`."""
    if isinstance(case.build(), FeedForwardDecoder):
        context_is_as_declared(case)


@check(
    feed_forward_context_is_as_declared,
    fix="pad by zeros at the ends of the input only, and let outputs depend on no absolute position",
)
def tiled_feed_forward_equals_whole(case: DecoderCase) -> None:
    """A feed-forward decoder gives the same result in tiles; see `tiled_equals_whole`."""
    if isinstance(case.build(), FeedForwardDecoder):
        tiled_equals_whole(case)


# ------------------------------------------------------------------ denoising


@check(generates_as_declared, fix="draw noise with partita_core.keyed_noise(seeds, ...), not from the global generator")
@torch.no_grad()
def generation_depends_on_seeds_only(case: DecoderCase) -> None:
    """Generation depends on latents, layout and seed of the item, not on the global seed or the rest of the batch."""
    part = case.build()
    hidden, layout = case.latents(part, 3, 5 * part.tokens_per_frame, seed=1)
    seeds = torch.tensor([3, 1, 3])
    together = part.generate(hidden, layout, seeds=seeds)
    torch.manual_seed(99)
    expect_equal(part.generate(hidden, layout, seeds=seeds), together, "a second generation", exact=True)
    for i in range(3):
        alone = part.generate(hidden[i : i + 1], layout[i : i + 1], seeds=seeds[i : i + 1])
        expect_equal(together[i : i + 1], alone, f"item {i} generated in a batch")


@check(
    generation_depends_on_seeds_only, fix="key noise by the index of the chunk, and declare the latency of the sampler"
)
@torch.no_grad()
def streamed_denoising_equals_whole(case: DecoderCase) -> None:
    """A denoising decoder, streamed in any split, generates the same as in one push, within its declared latency."""
    part = case.build()
    if not isinstance(part, DenoisingDecoder) or part.sampler.latency is None:
        return
    k, frames = part.tokens_per_frame, 3 * part.frames_per_chunk + 1
    hidden, layout = case.latents(part, 2, k * frames, seed=1)
    seeds = torch.tensor([3, 1])
    whole = part.generate(hidden, layout, seeds=seeds)
    for seed in (1, 2):
        stream = part.stream(layout, seeds=seeds, dtype=torch.float64)
        splits, audio, pushed = random_splits(frames, seed), whole[..., :0], 0
        for i, piece in enumerate(hidden.split([k * size for size in splits], dim=-1)):
            audio = torch.cat([audio, stream.push(piece, last=i == len(splits) - 1)], dim=-1)
            pushed += splits[i] * part.hop
            delay = pushed - audio.shape[-1]
            expect(delay <= stream.latency, f"the delay is {delay} samples, the declared latency is {stream.latency}")
        expect_equal(audio, whole, f"in pushes of {splits} frames")


@check(generates_as_declared, fix="compute the features of a chunk from its own latents, as `(batch, n, ...)`")
@torch.no_grad()
def chunks_are_independent(case: DecoderCase) -> None:
    """`condition` returns features `(batch, n, ...)` for n chunks, each depending on its own latents only."""
    part = case.build()
    if not isinstance(part, DenoisingDecoder):
        return
    unit = case.units(part)[0]
    hidden, layout = case.latents(part, 2, 4 * unit, seed=1)
    features = part.condition(hidden, layout)
    expect(isinstance(features, tuple) and bool(features), f"condition returns a {type(features).__name__}")
    for f in features:
        expect(f.shape[:2] == (2, 4), f"the features of 4 chunks of 2 items are {tuple(f.shape)}")
    for i in range(4):
        alone = part.condition(hidden[..., i * unit : (i + 1) * unit], layout)
        expect_equal([f[:, i : i + 1] for f in features], list(alone), f"the features of chunk {i} of 4")


@check(chunks_are_independent, fix="give each of `losses` a weight in `loss_weights`, and return one value per chunk")
def own_losses_have_weights(case: DecoderCase) -> None:
    """Losses of a denoising decoder have the names in `loss_weights`, and one value per chunk, of that chunk only."""
    part = case.build().train()
    if not isinstance(part, DenoisingDecoder):
        return
    hidden, layout, x, sigma = case.inputs(part)
    features, width = part.condition(hidden, layout), x.shape[-1] // sigma.shape[1]
    losses = part.losses(features, x)
    names, weights = sorted(losses), sorted(part.loss_weights)
    expect(names == weights, f"losses are {names}, loss_weights has {weights}")
    for name, loss in losses.items():
        expect(loss.shape == sigma.shape, f"loss {name} of {tuple(sigma.shape)} chunks is {tuple(loss.shape)}")
        expect_finite(loss, name)
        for i in range(sigma.shape[1]):
            alone = part.losses(tuple(f[:, i : i + 1] for f in features), x[..., i * width : (i + 1) * width])[name]
            expect_equal(loss[:, i : i + 1], alone, f"{name} of chunk {i} alone")


@check(generates_as_declared, fix="correct `inverse`, or the hop and context of the representation")
@torch.no_grad()
def transform_inverts(case: DecoderCase) -> None:
    """`inverse` of the representation recovers audio, with the declared hop and context."""
    part = case.build()
    if not isinstance(part, DenoisingDecoder):
        return
    transform = part.representation
    frames = sum(transform.context) + 8
    x = noise(1, part.audio_spec.channels, frames * transform.hop, seed=1)
    # Smoothed, so that the Nyquist bin, which transforms may omit, is empty.
    audio = nn.functional.avg_pool1d(nn.functional.pad(x, (1, 0), mode="replicate"), 2, stride=1)
    features = transform(audio)
    expect(features.dtype == torch.float64, f"a float64 transform returns {features.dtype}")
    expect(features.shape[-1] == frames, f"{frames} hops become {features.shape[-1]} frames")
    other = transform(audio.flip(-1))
    measured = receptive_field(lambda rows: [transform.inverse(rows)], features, other, 1, transform.hop)
    for side, declared, seen in zip(("left", "right"), transform.context, measured):
        expect(seen <= declared, f"context of the inverse is {declared} frames to the {side}, measured are {seen}")
    inner = slice(transform.context[0] * transform.hop, -transform.context[1] * transform.hop or None)
    expect_equal(transform.inverse(features)[..., inner], audio[..., inner], "the inverse of the transform")


DECODER_CHECKS = Suite(
    "decoder",
    DecoderCase,
    (
        generates_as_declared,
        *EVERY_PART,
        feed_forward_rejects_samplers,
        feed_forward_context_is_as_declared,
        tiled_feed_forward_equals_whole,
        steps_do_not_modify_in_place,
        generation_depends_on_seeds_only,
        streamed_denoising_equals_whole,
        chunks_are_independent,
        own_losses_have_weights,
        transform_inverts,
    ),
)


def check_decoder(config: Config | Any) -> None:
    """Run the suite on the decoder of a Config, or on a `DecoderCase`.

    Raises:
        AssertionError: checks fail; check, component, measured values and the fix are given.
    """
    DECODER_CHECKS.check(config)
