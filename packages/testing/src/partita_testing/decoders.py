"""Conformance suite of decoders, feed-forward and denoising."""

import torch
from partita_core.decoder_roles import Decoder, FeedForwardDecoder
from partita_core.denoising import DenoisingDecoder
from partita_core.errors import PartitaError
from torch import nn

from ._common import Suite, check, expect, expect_equal, expect_finite, noise, random_splits
from ._context import context_is_as_declared, receptive_field, steps_do_not_modify_in_place, tiled_equals_whole
from ._decoder_case import DecoderCase
from ._part_state import EVERY_PART
from ._zero_start import starts_at_zero


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
    generates_as_declared, fix="let `reconstruct` return the audio of forward, and a scalar per name in `loss_weights`"
)
def feed_forward_losses_have_weights(case: DecoderCase) -> None:
    """`reconstruct` gives the audio of `forward` and the values of `losses`, which have names in `loss_weights`.

    Samples after the end of an item change none of them.
    """
    part = case.build()
    if not isinstance(part, FeedForwardDecoder):
        return
    hidden, layout = case.latents(part, 2, 6 * part.tokens_per_frame, seed=1)
    audio = part(hidden, layout)
    target = noise(*audio.shape, seed=2)
    lengths = torch.tensor([6 * part.hop, 3 * part.hop])
    decoded, losses = part.reconstruct(hidden, layout, target, lengths)
    expect_equal(decoded, audio, "`reconstruct` decodes other audio than `forward`")
    expect_equal(
        losses, part.losses(hidden, layout, target, lengths), "`reconstruct` returns other losses than `losses`"
    )
    names, weights = sorted(losses), sorted(part.loss_weights)
    expect(names == weights, f"losses are {names}, loss_weights has {weights}")
    target[1, :, 3 * part.hop :] = 100
    changed = part.reconstruct(hidden, layout, target, lengths)[1]
    for name, value in losses.items():
        expect(value.ndim == 0, f"the loss {name!r} has shape {tuple(value.shape)}, a scalar is expected")
        expect_finite(value, f"the loss {name!r}")
        expect_equal(changed[name], value, f"the loss {name!r} depends on samples after the end of an item")


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
    full = part.generate(hidden, layout, seeds=seeds)
    for seed in (1, 2):
        stream = part.stream(layout, seeds=seeds, dtype=torch.float64)
        splits, audio, pushed = random_splits(frames, seed), full[..., :0], 0
        for i, piece in enumerate(hidden.split([k * size for size in splits], dim=-1)):
            audio = torch.cat([audio, stream.push(piece, last=i == len(splits) - 1)], dim=-1)
            pushed += splits[i] * part.hop
            delay = pushed - audio.shape[-1]
            expect(delay <= stream.latency, f"the delay is {delay} samples, the declared latency is {stream.latency}")
        expect_equal(audio, full, f"in pushes of {splits} frames")


@check(
    generates_as_declared, fix="return features as `(batch, n, ...)`, and set `condition_context` to the chunks used"
)
@torch.no_grad()
def condition_context_is_as_declared(case: DecoderCase) -> None:
    """`condition` returns features `(batch, n, ...)` of n chunks, each depending on `condition_context` chunks around.

    A context that is larger than needed would delay streams, so the outermost chunks of it must have an effect.
    """
    part = case.build()
    if not isinstance(part, DenoisingDecoder):
        return
    (left, right), unit = part.condition_context, case.units(part)[0]
    n = left + right + 3
    hidden, layout = case.latents(part, 2, n * unit, seed=1)
    features = part.condition(hidden, layout)
    expect(isinstance(features, tuple) and bool(features), f"condition returns a {type(features).__name__}")
    for f in features:
        expect(f.shape[:2] == (2, n), f"the features of {n} chunks of 2 items are {tuple(f.shape)}")
    for i in range(n):
        begin, end = max(0, i - left), min(n, i + right + 1)
        near = part.condition(hidden[..., begin * unit : end * unit], layout)
        found, expected = [f[:, i - begin] for f in near], [f[:, i] for f in features]
        expect_equal(found, expected, f"the features of chunk {i} of {n}, from chunks {begin} to {end - 1}")
    for side, distance, i in (("left", -left, n - 1), ("right", right, 0)):
        changed = hidden.clone()
        changed[..., (i + distance) * unit : (i + distance + 1) * unit] += 1
        same = all(torch.equal(a[:, i], b[:, i]) for a, b in zip(part.condition(changed, layout), features))
        expect(not same, f"condition_context is {(left, right)}, but the outermost chunk to the {side} has no effect")


@check(
    condition_context_is_as_declared,
    fix="give each of `losses` a weight in `loss_weights`, and return one value per chunk",
)
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
        starts_at_zero,
        feed_forward_rejects_samplers,
        feed_forward_losses_have_weights,
        feed_forward_context_is_as_declared,
        tiled_feed_forward_equals_whole,
        steps_do_not_modify_in_place,
        generation_depends_on_seeds_only,
        streamed_denoising_equals_whole,
        condition_context_is_as_declared,
        own_losses_have_weights,
        transform_inverts,
    ),
)

check_decoder = DECODER_CHECKS.check
"""Run the suite on the decoder of a Config, or on a `DecoderCase`; see `Suite.check`."""
