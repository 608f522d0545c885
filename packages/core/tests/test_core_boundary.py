"""Arguments of codecs: arrays and lists work, and invalid ones raise an error of one line."""

from dataclasses import replace

import numpy
import pytest
import torch
from partita_core import (
    AudioSpec,
    Autoencoder,
    ChannelLayout,
    Constant,
    Latents,
    LatentSpec,
    PartitaError,
    StreamDecoder,
    StreamEncoder,
    as_integers,
    as_tensor,
    check_codes,
    length_mask,
    regroup,
)
from partita_testing.dummies import DenoisingConfig, RoundingConfig, StridedConfig, autoencoder, blocks

HOP = 16


def noise(batch=2, channels=2, samples=50) -> torch.Tensor:
    return 0.3 * torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------ arrays and lists


@pytest.mark.parametrize(
    "value",
    [
        numpy.arange(6.0).reshape(2, 3)[::-1],
        numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)[::-1]),
        numpy.arange(6.0).reshape(2, 3)[::-1].astype(">f8"),
        [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]],
        [numpy.array([3.0, 4.0, 5.0]), torch.tensor([0.0, 1.0, 2.0])],
        ((numpy.float64(3), 4.0, 5.0), [0.0, 1.0, torch.tensor(2.0)]),
    ],
)
def test_arrays_and_lists_become_tensors(value):
    if isinstance(value, numpy.ndarray):
        value.flags.writeable = False
    if isinstance(value, list) and isinstance(value[0], numpy.ndarray):
        value[0] = value[0].astype("f4")
    assert as_tensor(value, "x").tolist() == [[3, 4, 5], [0, 1, 2]]


@pytest.mark.parametrize("value", [None, "ab", [[1], [2, 3]], [None], {"a": 1}, numpy.array(["a"]), object()])
def test_nonnumeric_values_raise(value):
    with pytest.raises(PartitaError, match="^lengths must be .*array of numbers"):
        as_integers(value, "lengths")


@pytest.mark.parametrize("value", [1.0, [1.5], [True], 2**63, numpy.array([1j])])
def test_noninteger_values_raise(value):
    with pytest.raises(PartitaError, match="lengths (is|must be)"):
        as_integers(value, "lengths")


@pytest.mark.parametrize("dtype", [numpy.uint8, numpy.int16, numpy.int32, numpy.int64])
def test_integers_of_any_width_become_int64(dtype):
    assert as_integers(numpy.array([3, 5], dtype), "lengths").dtype == torch.int64


def test_encode_accepts_arrays_and_lists():
    codec, audio = autoencoder(), noise()
    expected = codec.encode(audio, lengths=torch.tensor([50, 7]), layout="stereo")
    for given in (audio.numpy(), audio.double().numpy(), audio.tolist(), list(audio.numpy())):
        for lengths in ([50, 7], (50, 7), numpy.array([50, 7], numpy.int16)):
            latents = codec.encode(given, lengths=lengths, layout=numpy.array([1, 1]))
            assert torch.equal(latents.values, expected.values)
    streamed = StreamEncoder(codec, layout="stereo").push(audio[:1].numpy(), last=True)
    torch.testing.assert_close(streamed.values, codec.encode(audio[:1]).values)


# ------------------------------------------------------------------ codes


USES = {
    "decode": lambda codec, wrong, path: codec.decode(wrong),
    "codes_to_values": lambda codec, wrong, path: codec.codes_to_values(wrong.codes),
    "stream": lambda codec, wrong, path: StreamDecoder(codec, layout="mono").push(wrong, last=True),
    "save": lambda codec, wrong, path: wrong.save(path),
    "latents": lambda codec, wrong, path: codec.latents(codes=wrong.codes, layout="mono"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("code", [5, 2**40, -2, -(2**62)])
def test_codes_out_of_range_raise(code, use, tmp_path):
    for codec in (autoencoder(bottleneck=RoundingConfig()), autoencoder(quantizer=RoundingConfig()), blocks()):
        latents = codec.encode(noise(1, 1))
        codes = latents.codes.clone()
        codes[0, 1, 2] = code
        with pytest.raises(PartitaError, match=f"code {code} of item 0.*level 1 has 5"):
            USES[use](codec, replace(latents, values=None, codes=codes), tmp_path / "latents.safetensors")
        assert not list(tmp_path.iterdir())


def test_codes_of_other_codebooks_raise():
    codec, finer = autoencoder(bottleneck=RoundingConfig()), autoencoder(bottleneck=RoundingConfig(7))
    latents = replace(finer.encode(noise()).only_codes(), space_id=None, codes_id=None)
    with pytest.raises(PartitaError, match=r"\(7, 7, 7, 7\).*\(5, 5, 5, 5\)"):
        codec.decode(latents)


def test_narrow_codes_are_decoded():
    codec = autoencoder(bottleneck=RoundingConfig())
    latents = codec.encode(noise()).only_codes()
    for codes in (latents.codes.short(), latents.codes.numpy().astype("i1"), latents.codes.tolist()):
        assert torch.equal(codec.decode(replace(latents, codes=codes)), codec.decode(latents))


def test_traced_codes_are_checked_by_shape():
    class Lookup(torch.nn.Module):
        def forward(self, codes):
            return check_codes(codes, (5, 5)).clamp(min=0)

    program = torch.export.export(Lookup(), (torch.zeros(1, 2, 3, dtype=torch.int64),)).module()
    assert program(torch.ones(1, 2, 3, dtype=torch.int64)).sum() == 6
    with pytest.raises(PartitaError, match=r"codes are \(1, 3, 3\); \(batch, 2, tokens\)"):
        check_codes(torch.zeros(1, 3, 3, dtype=torch.int64, device="meta"), (5, 5))


# ------------------------------------------------------------------ values of one's own


@pytest.mark.parametrize("make", [torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.tolist])
def test_wrapped_values_are_latents_of_the_model(make, tmp_path):
    codec = autoencoder()
    latents = codec.encode(noise())
    own = codec.latents(make(latents.values), lengths=[50, 50], layout="stereo")
    assert (own.space_id, own.spec, own.audio_lengths.tolist()) == (codec.space_id, codec.latent_spec, [50, 50])
    assert torch.equal(codec.decode(own), codec.decode(latents))
    own.save(tmp_path / "own.safetensors")
    assert torch.equal(Latents.load(tmp_path / "own.safetensors").values, latents.values)


def test_wrapped_values_default_to_full_frames_and_the_only_layout():
    codec = autoencoder(ChannelLayout.MONO, encoder=StridedConfig(tokens_per_frame=2))
    own = codec.latents(torch.zeros(3, 4, 2 * 5))
    assert own.audio_lengths.tolist() == [5 * HOP] * 3 and own.layouts() == [ChannelLayout.MONO] * 3
    assert codec.decode(own).shape == (3, 1, 5 * HOP)


def test_wrapped_normalized_values_and_codes_decode():
    codec = autoencoder(bottleneck=RoundingConfig())
    codes = codec.encode(noise()).codes
    own = codec.latents(codes=codes, layout="stereo")
    assert own.codes_id == codec.codes_id and codec.decode(own).shape == (2, 2, 4 * HOP)
    codec.latent_spec = replace(codec.latent_spec, mean=(1.0,) * 4, std=(2.0,) * 4)
    own = codec.latents(torch.zeros(1, 4, 3), layout="stereo", normalized=True)
    assert torch.equal(own.denormalize().values, torch.ones(1, 4, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": torch.zeros(1, 5, 3)}, r"values are \(1, 5, 3\); \(batch, 4, tokens\) is expected"),
        ({"values": torch.zeros(4, 3)}, r"values or codes are \(4, 3\)"),
        ({"values": torch.full((1, 4, 3), float("nan"))}, "values holds numbers that are not finite"),
        ({"values": torch.full((1, 4, 3), 2.0)}, "values reach 2.*1"),
        ({"values": torch.zeros(1, 4, 0)}, "audio_lengths holds 0"),
        ({"values": torch.zeros(0, 4, 0)}, "0 items"),
        ({"values": torch.zeros(1, 4, 3), "lengths": [100]}, ".*audio_lengths .*1 items of 7 tokens"),
        ({"values": torch.zeros(1, 4, 3), "layout": "quad"}, "unknown channel layout 'quad'"),
        ({"values": torch.zeros(1, 4, 3), "layout": None}, r"several layouts \(mono, stereo, mid_side\)"),
        ({}, "neither values nor codes"),
    ],
)
def test_wrapped_values_of_other_shapes_raise(arguments, message):
    with pytest.raises(PartitaError, match=message):
        autoencoder().latents(**{"layout": "mono"} | arguments)


# ------------------------------------------------------------------ forward


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 5 * HOP + 7])
def test_forward_preserves_the_number_of_samples(samples):
    codec, audio = autoencoder(), noise(samples=samples)
    output, bottleneck = codec(audio, "stereo")
    assert output.shape == audio.shape and bottleneck.values.shape[-1] == -(-samples // HOP)
    torch.testing.assert_close(output, codec.decode(codec.encode(audio, layout="stereo")))


def test_forward_defaults_to_the_only_layout():
    codec, audio = autoencoder(ChannelLayout.STEREO), noise(samples=HOP)
    expected = codec(audio, torch.tensor([1, 1]))[0]
    for layout in (None, "stereo", 1, [1, 1], ["stereo", ChannelLayout.STEREO], numpy.array([1, 1])):
        assert torch.equal(codec(audio, layout)[0], expected)
    assert torch.equal(codec(audio.numpy())[0], expected)


def test_posterior_samples_decode():
    codec, audio = autoencoder(), noise()
    posterior = codec.posterior(audio, "stereo")
    torch.testing.assert_close(posterior.mean, codec.encode(audio).values)
    own = codec.latents(posterior.sample([1, 2]), lengths=[50, 50], layout="stereo")
    torch.testing.assert_close(codec.decode(own), codec.decode(codec.encode(audio)))  # no noise


CASES = {
    "layout that is none": (lambda m: m(noise(), 7), "unknown channel layout 7"),
    "layouts that are none": (lambda m: m(noise(), torch.tensor([7, 1])), "unknown channel layout 7"),
    "layout by a wrong name": (lambda m: m(noise(), "sterio"), "did you mean stereo"),
    "layout missing": (lambda m: m(noise()), "several layouts"),
    "layouts of another batch": (lambda m: m(noise(), [1, 1, 1]), "3 layouts for 2 items"),
    "target that is none": (lambda m: m(noise(), 1, 9), "unknown channel layout 9"),
    "forward of nothing": (lambda m: m(noise()[..., :0], 1), r"audio is \(2, 2, 0\)"),
    "forward of no items": (lambda m: m(noise()[:0], 1), r"audio is \(0, 2, 50\)"),
    "forward of other channels": (lambda m: m(noise(channels=1), 0), r"\(batch, 2, samples\)"),
    "forward of integers": (lambda m: m(torch.zeros(2, 2, 50, dtype=torch.int16), 1), "floating"),
    "decoding a tensor": (lambda m: m.decode(torch.zeros(1, 4, 3)), r"got a Tensor.*model.latents"),
    "decoding nothing": (lambda m: m.decode(None), "got a NoneType"),
    "decoding NaN": (
        lambda m: m.decode(replace(m.encode(noise()), values=torch.full((2, 4, 4), float("nan")))),
        "values holds numbers that are not finite",
    ),
    "streaming a tensor": (lambda m: StreamDecoder(m, layout="mono").push(torch.zeros(1, 4, 3)), "got a Tensor"),
    "streaming flat audio": (lambda m: StreamEncoder(m, layout="mono").push(noise()[0, 0]), r"audio is \(50,\)"),
    "encoding nothing": (lambda m: m.encode(None), "audio must be"),
    "encoding flat audio": (lambda m: m.encode(noise()[0, 0].numpy()), r"audio is \(50,\)"),
    "encoding integers": (lambda m: m.encode((noise() * 1000).short().numpy()), "torch.int16; floating"),
    "layout of fractions": (lambda m: m.encode(noise(), layout=torch.tensor([0.5, 1.0])), "channel layout 0.5"),
    "layout None in a list": (lambda m: m.encode(noise(), layout=[None, "mono"]), "channel layout None"),
    "lengths of fractions": (lambda m: m.encode(noise(), lengths=[3.5, 5]), "lengths is torch.float32"),
    "lengths by name": (lambda m: m.encode(noise(), lengths="ab"), "lengths must be"),
    "lengths of another batch": (lambda m: m.encode(noise(), lengths=[3]), r"lengths are \[3\]; 2 lengths"),
    "lengths of values as one number": (
        lambda m: m.latents(torch.zeros(1, 4, 3), lengths=5, layout="mono"),
        "lengths are 5",
    ),
    "levels of fractions": (lambda m: m.encode(noise(), num_quantizers=1.5), "num_quantizers is 1.5"),
    "seed by name": (lambda m: m.decode(m.encode(noise()), seed="x"), "seed is 'x'"),
    "seed of fractions": (lambda m: m.decode(m.encode(noise()), seed=1.5), "seed is 1.5"),
    "item by name": (lambda m: m.encode(noise())["a"], "there is no item 'a'"),
    "joining nothing": (lambda m: Latents.concatenate([]), "no pieces"),
    "regrouping to nothing": (lambda m: regroup(torch.zeros(1, 4, 4), 0), "0 channels"),
    "record without a spec": (
        lambda m: Latents(torch.zeros(1, 4, 1), None, [HOP], [0], None),  # pyright: ignore
        "spec is None; a LatentSpec is expected",
    ),
    "rate of fractions": (lambda m: AudioSpec(44100.5, 1, (ChannelLayout.MONO,)), "sample_rate is 44100.5"),  # pyright: ignore
    "width by name": (lambda m: LatentSpec("4", 8000, HOP), "dim is '4'"),  # pyright: ignore
    "encoder that is none": (
        lambda m: Autoencoder(torch.nn.Conv1d(1, 1, 1), m.bottleneck, m.decoder),  # pyright: ignore
        "the encoder is a Conv1d; a partita_core.Encoder is expected",
    ),
    "decoder that is none": (
        lambda m: Autoencoder(m.encoder, m.bottleneck, torch.nn.Identity()),  # pyright: ignore
        "the decoder is a Identity",
    ),
    "bottleneck as quantizer": (
        lambda m: Autoencoder(m.encoder, m.bottleneck, m.decoder, m.bottleneck),  # pyright: ignore
        "the quantizer is a NoisyBottleneck",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_invalid_arguments_raise_one_line(name):
    use, message = CASES[name]
    with pytest.raises(PartitaError, match=message) as caught:
        use(autoencoder())
    assert "\n" not in str(caught.value)


def test_forward_of_a_denoising_decoder_raises_with_advice():
    with pytest.raises(PartitaError, match="TinyDenoiser .*ConsistencyTraining"):
        autoencoder(decoder=DenoisingConfig())(noise(), "stereo")


def test_audio_spec_accepts_layout_names():
    assert AudioSpec(8000, 2, ["mono", "stereo"]).layouts == (ChannelLayout.MONO, ChannelLayout.STEREO)  # pyright: ignore


# ------------------------------------------------------------------ constants


def test_constant_is_exact_in_every_dtype():
    third = Constant(torch.tensor([1 / 3], dtype=torch.float64))
    for dtype in (torch.float64, torch.float32, torch.float16):
        assert torch.equal(third.like(torch.ones(1, dtype=dtype)), torch.tensor([1 / 3], dtype=dtype))
    assert third.like(torch.ones(1)) is third.like(torch.ones(2))
    with pytest.raises(PartitaError, match="on meta"):
        Constant(torch.ones(1, device="meta"))


def test_constant_first_used_in_inference_mode_works_in_training():
    third = Constant(torch.tensor([1 / 3], dtype=torch.float64))
    with torch.inference_mode():
        third.like(torch.ones(1))
    weight = torch.ones(1, requires_grad=True)
    (weight * third.like(weight)).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([1 / 3]))


# ------------------------------------------------------------------ lengths, types and settings of other kinds


@pytest.mark.parametrize("make", [list, tuple, numpy.array, lambda sizes: torch.tensor(sizes, dtype=torch.int32)])
def test_forward_accepts_lengths_as_arrays_and_lists(make):
    codec, audio = autoencoder(bottleneck=RoundingConfig()), noise()
    expected = codec(audio, 1, lengths=torch.tensor([50, 7]))[1]
    found = codec(audio, 1, lengths=make([50, 7]))[1]
    assert torch.equal(found.codes, expected.codes) and (found.codes[1, :, 1:] == -1).all()
    assert length_mask(make([3, 0]), 3).tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("lengths", [3, [50], [50, 51], [50, 0], [-1, 50], "ab", [1.5, 2.0], [[50, 50]], [2**62, 50]])
def test_forward_with_invalid_lengths_raises(lengths):
    with pytest.raises(PartitaError, match="lengths "):
        autoencoder(bottleneck=RoundingConfig())(noise(), 1, lengths=lengths)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_forward_and_posterior_accept_any_floating_dtype(dtype):
    codec, audio = autoencoder(), noise().to(dtype)
    assert torch.equal(codec(audio, 1)[0], codec(audio.float(), 1)[0])
    assert torch.equal(codec.posterior(audio, 1).mean, codec.posterior(audio.float(), 1).mean)


@pytest.mark.parametrize("precision", ["fp16", "bfloat16", "", None, 32, torch.bfloat16, numpy.zeros(2)])
def test_unknown_precision_raises(precision):
    with pytest.raises(PartitaError, match="^precision is .*; 'float32' or 'bf16' is expected"):
        autoencoder().optimize(precision=precision)


def test_project_accepts_arrays_and_lists():
    codec = autoencoder()
    for values in (torch.tensor([[[2.0]]]), numpy.array([[[2.0]]]), [[[2.0]]]):
        assert codec.project(values).tolist() == [[[1.0]]]
    with pytest.raises(PartitaError, match="values must be"):
        codec.project(None)


@pytest.mark.parametrize("pieces", [None, 5, "ab", [1, 2], torch.zeros(1, 4, 3)])
def test_concatenate_raises_for_other_types(pieces):
    with pytest.raises(PartitaError, match="piece(s)? to join"):
        Latents.concatenate(pieces)
