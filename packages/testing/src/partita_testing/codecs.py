"""Conformance suite of codecs."""

import copy

import torch
from partita_core.latents import Latents
from partita_core.layouts import ChannelLayout
from partita_core.stream_codec import StreamDecoder, StreamEncoder
from partita_core.streams import UnboundedError

from ._codec_case import CodecCase, content_of, layouts_taken
from ._codec_records import (
    arrays_equal_tensors,
    codes_are_consistent,
    foreign_latents_raise,
    invalid_audio_raises,
    saved_latents_round_trip,
    saved_model_round_trips,
    space_id_identifies_the_weights,
)
from ._common import Suite, check, expect, expect_equal, expect_state, random_splits, state_of


@check(fix="leave padding and trimming to Codec.encode and Codec.decode, and return full frames from the primitives")
def every_length_round_trips(case: CodecCase) -> None:
    """Each length from 1 sample to 3 hops is encoded to its frames and decoded to itself, zero after its end."""
    codec = case.build()
    hop, k = codec.latent_spec.hop, codec.latent_spec.tokens_per_frame
    near = {n for edge in (0, hop, 2 * hop, 3 * hop) for n in (edge - 1, edge, edge + 1)}
    lengths = sorted({n for n in near | set(range(1, 3 * hop, max(1, hop // 12))) if 1 <= n <= 3 * hop})
    layout = layouts_taken(codec)[-1]
    latents = codec.encode(case.audio(codec, len(lengths), 3 * hop, layout), lengths=lengths, layout=layout)
    expect(
        latents.audio_lengths.tolist() == lengths,
        f"audio_lengths are {latents.audio_lengths.tolist()}, encoded were {lengths}",
    )
    audio = codec.decode(latents)
    shape = (len(lengths), layout.width, 3 * hop)
    expect(tuple(audio.shape) == shape, f"decoded audio is {tuple(audio.shape)}, expected is {shape}")
    expect(not audio.requires_grad, "decoded audio has a gradient")
    for i, length in enumerate(lengths):
        frames, tokens = -(-length // hop), -(-length // hop) * k
        expect(
            int(latents.frames[i]) == frames,
            f"{length} samples give {int(latents.frames[i])} frames, expected are {frames}",
        )
        expect(not audio[i, :, length:].any(), f"{length} samples: not zero after the end")
        expect(bool(audio[i, :, :length].any()), f"{length} samples: silence before the end")
        if latents.values is not None:
            expect(not latents.values[i, :, tokens:].any(), f"{length} samples: values are not zero after the end")
        if latents.codes is not None:
            past = latents.codes[i, :, tokens:]
            expect(bool((past == -1).all()), f"{length} samples: codes are not -1 after the end")
        alone = codec.decode(latents[i])
        expect(alone.shape[-1] == length, f"{length} samples are decoded to {alone.shape[-1]}")


@check(every_length_round_trips, fix="compute nothing over the batch axis in encode_frames and decode_frames")
def batch_composition_does_not_matter(case: CodecCase) -> None:
    """In a batch of mixed lengths and layouts each item is encoded and decoded as alone."""
    codec = case.build()
    hop, taken = codec.latent_spec.hop, layouts_taken(codec)
    lengths = [3 * hop, hop + 1, 3 * hop - 1, 2 * hop, 1]
    layouts = [taken[i % len(taken)] for i in range(5)]
    width = max(layout.width for layout in layouts)
    audio = case.audio(codec, 5, 3 * hop, ChannelLayout.MONO if width == 1 else ChannelLayout.STEREO)
    latents = codec.encode(audio, lengths=lengths, layout=layouts)
    seeds = [5, 4, 3, 2, 1]
    decoded = codec.decode(latents, seed=seeds)
    for i, (length, layout) in enumerate(zip(lengths, layouts)):
        # Two channels labeled mono are averaged, so the item alone is averaged too.
        mono = layout is ChannelLayout.MONO
        own = audio[i : i + 1, :, :length]
        own = own.mean(1, keepdim=True) if mono else own
        alone = codec.encode(own, layout=layout)
        what = f"{layout.name.lower()} item of {length} samples"
        expect_equal(content_of(latents[i]), content_of(alone), f"{what}, encoded in a batch")
        back = codec.decode(alone, seed=seeds[i])
        expect(back.shape[1] == layout.width, f"{what} alone is decoded to {back.shape[1]} channels")
        expect_equal(decoded[i : i + 1, :, :length], back.expand(1, width, length), f"{what}, decoded in a batch")
        expect_equal(codec.decode(latents[i], seed=seeds[i]), back, f"{what}, indexed from the batch and decoded")


@check(every_length_round_trips, fix="compute nothing over the batch axis in encode_frames and decode_frames")
def batch_size_limit_does_not_matter(case: CodecCase) -> None:
    """`max_batch_size` does not affect results."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    audio = case.audio(codec, 3, 2 * codec.latent_spec.hop, layout)
    latents = codec.encode(audio, layout=layout)
    decoded = codec.decode(latents)
    codec.max_batch_size = 1
    expect_equal(content_of(codec.encode(audio, layout=layout)), content_of(latents), "encoded one by one")
    expect_equal(codec.decode(latents), decoded, "decoded one by one")


@check(every_length_round_trips, fix="correct encode_context and decode_context, or the context of the parts")
def tiles_equal_whole(case: CodecCase) -> None:
    """`tile_seconds` does not affect results: tiles of two frames give the same."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    audio = case.audio(codec, 2, 12 * codec.latent_spec.hop - 1, layout)
    codec.tile_seconds = 1e9
    latents = codec.encode(audio, layout=layout)
    decoded = codec.decode(latents)
    of_codes = None if latents.codes is None else codec.decode(latents.only_codes())
    codec.tile_seconds = 2.5 / float(codec.latent_spec.frame_rate)
    expect_equal(content_of(codec.encode(audio, layout=layout)), content_of(latents), "encoded in tiles of 2 frames")
    expect_equal(codec.decode(latents), decoded, "decoded in tiles of 2 frames")
    if of_codes is not None:
        expect_equal(codec.decode(latents.only_codes()), of_codes, "decoded from codes in tiles of 2 frames")


@check(tiles_equal_whole, fix="correct encode_stream and decode_stream, or the latency that they declare")
def streams_equal_batch(case: CodecCase) -> None:
    """Streamed in any split, with empty pushes, results equal `encode` and `decode`, within the declared latency."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    hop = codec.latent_spec.hop
    samples = 8 * hop + hop // 2 + 1
    audio = case.audio(codec, 1, samples, layout)
    full = codec.encode(audio, layout=layout)
    decoded = codec.decode(full, seed=3)
    for seed, largest in ((1, 2 * hop), (2, hop // 2 + 1)):
        try:
            encoder = StreamEncoder(codec, layout=layout)
            decoder = StreamDecoder(codec, layout=layout, seed=3)
        except UnboundedError:
            return
        splits = random_splits(samples, seed, max_piece=largest)
        pieces, decoded_pieces, pushed, framed = [], [], 0, 0
        for i, piece in enumerate(audio.split(splits, dim=-1)):
            last = i == len(splits) - 1
            pieces.append(encoder.push(piece, last=last))
            decoded_pieces.append(decoder.push(pieces[-1], last=last))
            pushed, framed = pushed + splits[i], framed + int(pieces[-1].audio_lengths)
            output = sum(piece.shape[-1] for piece in decoded_pieces)
            delay = pushed - framed
            expect(
                delay <= encoder.latency, f"the delay of encoding is {delay} samples, declared are {encoder.latency}"
            )
            delay = framed - output
            expect(
                delay <= decoder.latency, f"the delay of decoding is {delay} samples, declared are {decoder.latency}"
            )
        joined = Latents.concatenate(pieces)
        expect(
            int(joined.audio_lengths) == samples,
            f"{samples} streamed samples give audio_lengths {int(joined.audio_lengths)}",
        )
        expect_equal(content_of(joined), content_of(full), f"encoded in pushes of up to {largest} samples")
        expect_equal(torch.cat(decoded_pieces, dim=-1), decoded, f"decoded in pushes of up to {largest} samples")


@check(fix="derive randomness from seeds in decode_frames, and draw none in encode_frames")
def eval_is_deterministic(case: CodecCase) -> None:
    """Encoding and decoding draw no numbers from the global generator, change no state, and are repeatable."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    audio = case.audio(codec, 2, 3 * codec.latent_spec.hop, layout)
    state, before = state_of(codec), torch.get_rng_state()
    latents = codec.encode(audio, layout=layout)
    decoded = codec.decode(latents)
    expect(torch.equal(before, torch.get_rng_state()), "numbers of the global generator are drawn")
    expect_state(codec, state, "encoding and decoding")
    twin = copy.deepcopy(codec)
    for what, other in (("again", codec), ("by a deep copy", twin)):
        expect_equal(content_of(other.encode(audio, layout=layout)), content_of(latents), f"encoded {what}", exact=True)
        expect_equal(other.decode(latents), decoded, f"decoded {what}", exact=True)


@check(fix="override the primitives, not encode and decode, which disable autocast")
def results_are_equal_under_autocast(case: CodecCase) -> None:
    """Under bfloat16 autocast latents and audio are the same, so stored latents equal fresh ones."""
    codec = case.build().float()
    layout = layouts_taken(codec)[0]
    audio = case.audio(codec, 2, 3 * codec.latent_spec.hop, layout).float()
    latents = codec.encode(audio, layout=layout)
    decoded = codec.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        other = codec.encode(audio, layout=layout)
        again = codec.decode(latents)
    expect_equal(content_of(other), content_of(latents), "encoded under autocast", exact=True)
    expect_equal(again, decoded, "decoded under autocast", exact=True)


@check(fix="encode under no_grad, not under inference_mode")
def latents_work_in_training(case: CodecCase) -> None:
    """Latents have no gradient and can enter a graph that is trained; they are not inference tensors."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    values = codec.encode(case.audio(codec, 1, codec.latent_spec.hop, layout), layout=layout).values
    if values is not None:
        expect(not values.requires_grad, "values have a gradient")
        weight = torch.ones(values.shape[1], 1, dtype=values.dtype, requires_grad=True)
        (weight * values).square().sum().backward()


CODEC_CHECKS = Suite(
    "codec",
    CodecCase,
    (
        every_length_round_trips,
        batch_composition_does_not_matter,
        batch_size_limit_does_not_matter,
        tiles_equal_whole,
        streams_equal_batch,
        eval_is_deterministic,
        results_are_equal_under_autocast,
        latents_work_in_training,
        codes_are_consistent,
        arrays_equal_tensors,
        invalid_audio_raises,
        foreign_latents_raise,
        space_id_identifies_the_weights,
        saved_latents_round_trip,
        saved_model_round_trips,
    ),
)

check_codec = CODEC_CHECKS.check
"""Run the suite on the codec that `factory` returns, in eval mode, or on a `CodecCase`; see `Suite.check`."""
