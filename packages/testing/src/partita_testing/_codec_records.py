"""Checks of codecs: codes, errors, fingerprints and saving."""

import copy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from partita_core.latents import Latents
from partita_core.layouts import ChannelLayout
from partita_core.saving import Saved

from ._codec_case import CodecCase, content_of, layouts_taken
from ._common import check, expect, expect_equal, raises_partita_error


@check(fix="make values of encode_frames equal codes_to_values(codes), or independent of num_quantizers")
def codes_are_consistent(case: CodecCase) -> None:
    """Codes are within their codebooks, fewer levels are a prefix followed by -1, and codes alone can be decoded."""
    codec = case.build()
    layout, sizes = layouts_taken(codec)[0], codec.latent_spec.codebook_sizes
    audio = case.audio(codec, 2, 4 * codec.latent_spec.hop, layout)
    latents = codec.encode(audio, layout=layout)
    values, codes = latents.values, latents.codes
    expect((codes is None) == (not sizes), f"codes are {codes}, codebook_sizes are {sizes}")
    expect((latents.codes_id is None) == (not sizes), f"codes_id is {latents.codes_id}, codebook_sizes are {sizes}")
    if codes is None:
        with raises_partita_error("codes for a codec without a quantizer"):
            codec.codes_to_values(torch.zeros(1, 1, 1, dtype=torch.int64))
        return
    expect(codes.shape[1] == len(sizes), f"codes have {codes.shape[1]} levels, codebook_sizes has {len(sizes)}")
    expect(codes.dtype == torch.int64, f"codes are {codes.dtype}")
    limits = torch.tensor(sizes)[:, None]
    expect(
        bool(((codes >= 0) & (codes < limits)).all()),
        f"codes are from {int(codes.min())} to {int(codes.max())}, codebook_sizes are {sizes}",
    )
    in_the_slot = values is not None and values.equal(codec.codes_to_values(codes))
    for count in range(1, len(sizes) + 1):
        fewer = codec.encode(audio, layout=layout, num_quantizers=count)
        some = torch.cat([codes[:, :count], torch.full_like(codes[:, count:], -1)], dim=1)
        expect_equal(fewer.codes, some, f"the codes of {count} levels", exact=True)
        expected = codec.codes_to_values(some) if in_the_slot else values
        expect_equal(fewer.values, expected, f"the values of {count} levels", exact=True)
        decoded = codec.decode(fewer.only_codes())
        expect_equal(decoded, codec.decode(replace(fewer, values=codec.codes_to_values(some))), "decoded from codes")
    for count in (0, len(sizes) + 1):
        with raises_partita_error(f"num_quantizers={count} of {len(sizes)}"):
            codec.encode(audio, layout=layout, num_quantizers=count)


# ------------------------------------------------------------------ errors


@check(fix="override the primitives, not encode, which checks its input")
def invalid_audio_raises(case: CodecCase) -> None:
    """NaN, 0 samples, invalid lengths, three channels and unsupported layouts raise a PartitaError."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    audio = case.audio(codec, 1, codec.latent_spec.hop, layout)
    for bad in (float("nan"), float("inf")):
        broken = audio.clone()
        broken[0, 0, -1] = bad
        with raises_partita_error(f"audio with {bad}"):
            codec.encode(broken, layout=layout)
    with raises_partita_error("audio without samples"):
        codec.encode(audio[..., :0], layout=layout)
    for length in (0, audio.shape[-1] + 1):
        with raises_partita_error(f"a length of {length}"):
            codec.encode(audio, lengths=[length], layout=layout)
    with raises_partita_error("audio of three channels"):
        codec.encode(audio[:, :1].expand(-1, 3, -1))
    with raises_partita_error("an unknown layout"):
        codec.encode(audio, layout="quad")
    taken = layouts_taken(codec)
    for foreign in set(ChannelLayout) - set(taken):
        with raises_partita_error(f"{foreign.name.lower()} audio"):
            codec.encode(case.audio(codec, 1, codec.latent_spec.hop, foreign), layout=foreign)
    if ChannelLayout.MONO in taken:
        latents = codec.encode(case.audio(codec, 1, codec.latent_spec.hop, ChannelLayout.MONO))
        with raises_partita_error("decoding mono as stereo"):
            codec.decode(latents, layout="stereo")


@check(fix="override the primitives, not decode or check_latents")
def foreign_latents_raise(case: CodecCase) -> None:
    """Latents of another space or hop, and codes of another quantizer, raise a PartitaError; without ids they work."""
    codec = case.build()
    layout = layouts_taken(codec)[0]
    latents = codec.encode(case.audio(codec, 1, codec.latent_spec.hop, layout), layout=layout)
    expect(
        latents.space_id == codec.space_id, f"space_id of latents is {latents.space_id}, of the codec {codec.space_id}"
    )
    with raises_partita_error("latents of another space"):
        codec.decode(replace(latents, space_id="0" * 16))
    spec = replace(latents.spec, hop=latents.spec.hop + 1, mean=None, std=None)
    with raises_partita_error("latents of another hop"):
        codec.decode(replace(latents, spec=spec, audio_lengths=latents.audio_lengths.clamp(max=spec.hop)))
    if latents.codes is not None:
        with raises_partita_error("codes of another quantizer"):
            codec.decode(replace(latents.only_codes(), codes_id="0" * 16))
        for code in (latents.spec.codebook_sizes[0], 2**40, -2):
            wrong = latents.codes.clone()
            wrong[0, 0, 0] = code
            with raises_partita_error(f"the code {code} of {latents.spec.codebook_sizes[0]}"):
                codec.decode(replace(latents, values=None, codes=wrong))
    if latents.values is not None:
        with raises_partita_error("latents with NaN"):
            codec.decode(replace(latents, values=torch.full_like(latents.values, float("nan"))))
    with raises_partita_error("a bare tensor"):
        codec.decode(latents.values if latents.values is not None else latents.codes)  # pyright: ignore
    codec.decode(replace(latents, space_id=None, codes_id=None))


@check(fix="override the primitives, not encode and latents, which convert their inputs")
def arrays_equal_tensors(case: CodecCase) -> None:
    """Arrays and lists give the same results as tensors, and bare values the same as latents."""
    codec = case.build()
    layout, hop = layouts_taken(codec)[0], codec.latent_spec.hop
    audio = case.audio(codec, 2, 2 * hop, layout)
    latents = codec.encode(audio, lengths=torch.tensor([2 * hop, hop]), layout=layout)
    array: Any = audio.numpy()
    expect_equal(
        content_of(codec.encode(array, lengths=[2 * hop, hop], layout=int(layout))),
        content_of(latents),
        "encoded from an array",
    )
    names = ("values", "codes", "gain")
    bare: Any = {name: None if (t := getattr(latents, name)) is None else t.numpy() for name in names}
    own = codec.latents(**bare, lengths=latents.audio_lengths.tolist(), layout=layout)
    expect_equal(codec.decode(own), codec.decode(latents), "decoded from bare values", exact=True)
    expect(
        own.space_id == codec.space_id, f"space_id of wrapped values is {own.space_id}, of the codec {codec.space_id}"
    )


# ------------------------------------------------------------------ fingerprints and saving


@check(fix="register every weight that affects values as a parameter or buffer, and use it in _space_weights")
def space_id_identifies_the_weights(case: CodecCase) -> None:
    """Fingerprints survive `half`, `to` and a copy, and change if weights are trained, written to or loaded."""
    codec = case.build()
    names = codec.space_id, codec.codes_id
    expect(len(names[0]) == 16 and set(names[0]) <= set("0123456789abcdef"), f"space_id is {names[0]!r}")
    codec.half()
    expect(
        (codec.space_id, codec.codes_id) == names,
        f"half() changes the ids from {names} to {codec.space_id, codec.codes_id}",
    )
    codec.to(case.dtype)
    expect((codec.space_id, codec.codes_id) == names, "to() changes the ids")
    twin = copy.deepcopy(codec)
    expect((twin.space_id, twin.codes_id) == names, "a copy has other ids")
    codec = case.build()
    expect((codec.space_id, codec.codes_id) == names, "an equal codec has other ids")
    if not any(p.is_floating_point() for p in codec.parameters()):
        return

    def change() -> None:
        with torch.no_grad():
            for parameter in codec.parameters():
                parameter.add_(1)

    state = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    codec.train()
    change()
    codec.eval()
    expect(codec.space_id != names[0], "training does not change space_id")
    audio = case.audio(codec, 1, codec.latent_spec.hop, layouts_taken(codec)[0])
    stale = codec.encode(audio, layout=layouts_taken(codec)[0])
    change()  # in eval mode
    expect(codec.space_id != stale.space_id, "writing to weights in eval mode does not change space_id")
    with raises_partita_error("latents of earlier weights"):
        codec.decode(stale)
    codec.load_state_dict(state)
    expect(codec.space_id == names[0], "loading the original weights does not restore space_id")


@check(fix="return Latents from encode with all of its fields")
def saved_latents_round_trip(case: CodecCase) -> None:
    """Saved latents equal the original in all fields, and decode to the same audio."""
    codec = case.build()
    taken = layouts_taken(codec)
    hop = codec.latent_spec.hop
    layout = taken[-1]
    latents = codec.encode(case.audio(codec, 2, 2 * hop, layout), lengths=[2 * hop, hop - 1 or 1], layout=layout)
    with TemporaryDirectory() as folder:
        latents.save(Path(folder) / "latents.safetensors")
        back = Latents.load(Path(folder) / "latents.safetensors")
    names = ("values", "codes", "audio_lengths", "layout", "gain")
    theirs, ours = ([getattr(record, name) for name in names] for record in (back, latents))
    expect_equal(theirs, ours, "loaded latents", exact=True)
    for name in ("spec", "space_id", "codes_id", "normalized"):
        theirs, ours = getattr(back, name), getattr(latents, name)
        expect(theirs == ours, f"{name} is {theirs} after loading, it was {ours}")
    expect_equal(codec.decode(back), codec.decode(latents), "audio decoded from loaded latents", exact=True)


@check(fix="build everything that affects results from the Config, and save the rest as weights")
def saved_model_round_trips(case: CodecCase) -> None:
    """A saved model, if it can be saved, is loaded bit for bit, with its specs and fingerprints."""
    codec = case.factory()
    if not isinstance(codec, Saved):
        return
    with TemporaryDirectory() as folder:
        codec.save_pretrained(Path(folder) / "model")
        back: Any = type(codec).from_pretrained(Path(folder) / "model")
    expect_equal(back.state_dict(), codec.state_dict(), "loaded weights", exact=True)
    for name in ("audio_spec", "latent_spec", "space_id", "codes_id"):
        theirs, ours = getattr(back, name), getattr(codec, name)
        expect(theirs == ours, f"{name} is {theirs} after loading, it was {ours}")
    layout = layouts_taken(codec)[0]
    audio = case.audio(codec, 1, 3 * codec.latent_spec.hop, layout).float()
    latents = codec.encode(audio, layout=layout)
    expect_equal(
        content_of(back.encode(audio, layout=layout)), content_of(latents), "encoded by the loaded model", exact=True
    )
    expect_equal(back.decode(latents), codec.decode(latents), "decoded by the loaded model", exact=True)
