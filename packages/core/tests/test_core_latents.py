import json
from dataclasses import replace

import pytest
import torch
from partita_core import (
    ChannelLayout,
    Latents,
    LatentSpec,
    PartitaError,
    measure_latents,
    read_tensors,
    regroup,
    write_tensors,
)
from partita_testing.dummies import RoundingConfig, autoencoder

SPEC = LatentSpec(3, 8000, 10, tokens_per_frame=2, codebook_sizes=(5, 5), mean=(1.0, -2.0, 0.0), std=(0.5, 2.0, 1.0))
LENGTHS = torch.tensor([25, 1, 30])  # 3, 1 and 3 frames


def record(spec=SPEC, **changes):
    inside = torch.arange(6) < 2 * spec.frames(1) * torch.tensor([3, 1, 3])[:, None, None]
    values = torch.where(inside, torch.randn(3, 3, 6), 0)
    if spec.bounded:
        values = values.tanh()
    codes = torch.where(inside, torch.randint(0, 5, (3, 2, 6)), -1)
    fields = {
        "values": values,
        "codes": codes,
        "audio_lengths": LENGTHS,
        "layout": torch.tensor([0, 1, 2]),
        "spec": spec,
        "space_id": "0123456789abcdef",
        "codes_id": "fedcba9876543210",
        "gain": torch.rand(3, 3),
    }
    return Latents(**fields | changes)


def same(a, b):
    for name in ("values", "codes", "audio_lengths", "layout", "gain"):
        left, right = getattr(a, name), getattr(b, name)
        if (left is None) != (right is None) or (left is not None and not torch.equal(left, right)):
            return False
    return all(getattr(a, name) == getattr(b, name) for name in ("spec", "space_id", "codes_id", "normalized"))


# ------------------------------------------------------------------ the record


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"values": None, "codes": None}, "neither values nor codes"),
        ({"values": torch.zeros(3, 4, 6)}, r"values are \(3, 4, 6\); \(batch, 3, tokens\) is expected"),
        ({"values": torch.zeros(3, 6)}, r"values are \(3, 6\)"),
        ({"codes": torch.zeros(3, 2, 6)}, "codes is torch.float32"),
        ({"values": torch.zeros(3, 3, 5)}, r"values are \(3, 3, 5\).*audio_lengths .*3 items of 6 tokens"),
        ({"codes": torch.zeros(2, 2, 6, dtype=torch.int64)}, r"codes are \(2, 2, 6\).*audio_lengths .*3 items"),
    ],
)
def test_inconsistent_fields_raise(changes, message):
    with pytest.raises(PartitaError, match=message):
        record(**changes)


def test_frames_and_layouts():
    latents = record()
    assert len(latents) == 3 and latents.frames.tolist() == [3, 1, 3]
    assert latents.layouts() == [ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE]


@pytest.mark.parametrize("index, item", [(0, 0), (1, 1), (-1, 2), (-3, 0)])
def test_item(index, item):
    latents = record()
    one = latents[index]
    tokens = [6, 2, 6][item]
    assert torch.equal(one.values, latents.values[item : item + 1, :, :tokens])
    assert torch.equal(one.codes, latents.codes[item : item + 1, :, :tokens])
    assert torch.equal(one.gain, latents.gain[item : item + 1, : tokens // 2])
    assert (one.audio_lengths.tolist(), one.layout.tolist()) == ([LENGTHS[item]], [item])
    assert (one.spec, one.space_id, one.codes_id) == (latents.spec, latents.space_id, latents.codes_id)


def test_index_out_of_range_raises():
    for index in (3, -4):
        with pytest.raises(PartitaError, match=f"no item {index}.* 0 to 2"):
            record()[index]
    assert len(list(record())) == 3


def test_to_keeps_lengths_and_layouts_on_the_cpu():
    moved = record(gain=None).to("meta")
    assert moved.values.device.type == moved.codes.device.type == "meta"
    assert moved.audio_lengths.device.type == moved.layout.device.type == "cpu"


def test_only_codes():
    latents = record()
    assert latents.only_codes().values is None
    assert torch.equal(latents.only_codes().codes, latents.codes)
    with pytest.raises(PartitaError, match="no codes"):
        record(codes=None).only_codes()


def test_concatenate():
    first, second = (replace(record()[0], audio_lengths=torch.tensor([n])) for n in (30, 25))
    joined = Latents.concatenate([first, second])
    assert joined.audio_lengths.tolist() == [55]
    assert torch.equal(joined.values, torch.cat([first.values, second.values], dim=-1))
    assert torch.equal(joined.codes, torch.cat([first.codes, second.codes], dim=-1))
    with pytest.raises(PartitaError, match="piece before the last has .*25"):
        Latents.concatenate([second, first])
    assert Latents.concatenate([first.only_codes(), second.only_codes()]).values is None


# ------------------------------------------------------------------ normalize


@pytest.mark.parametrize("bounded", [False, True])
def test_denormalize_inverts_normalize(bounded):
    latents = record(replace(SPEC, bounded=bounded))
    latents = replace(latents, values=latents.values.double())
    normal = latents.normalize()
    assert normal.normalized and not latents.normalized
    back = normal.denormalize()
    assert not back.normalized
    torch.testing.assert_close(back.values, latents.values, rtol=1e-12, atol=1e-12)
    for values in (normal.values, back.values):
        assert not values[1, :, 2:].any()
    assert torch.equal(normal.codes, latents.codes)


def test_normalize_equals_formula():
    latents = record()
    expected = (latents.values[0] - torch.tensor([1.0, -2.0, 0.0])[:, None]) / torch.tensor([0.5, 2.0, 1.0])[:, None]
    assert torch.equal(latents.normalize().values[0], expected)
    bounded = record(replace(SPEC, bounded=True, mean=(0.0,) * 3, std=(1.0,) * 3))
    torch.testing.assert_close(bounded.normalize().values[0], bounded.values[0].atanh())


def test_normalize_is_idempotent():
    normal = record().normalize()
    assert normal.normalize() is normal
    plain = record()
    assert plain.denormalize() is plain


def test_values_at_the_bound_stay_finite():
    spec = replace(SPEC, bounded=True)
    values = torch.ones(3, 3, 6)
    values[1, :, 2:] = 0
    normal = record(spec, values=values).normalize()
    assert normal.values.isfinite().all()
    torch.testing.assert_close(normal.denormalize().values, values, rtol=0, atol=2e-6)


def test_normalize_without_values_or_statistics_raises():
    with pytest.raises(PartitaError, match="no mean and std"):
        record(replace(SPEC, mean=None, std=None)).normalize()
    with pytest.raises(PartitaError, match="hold codes only"):
        record().only_codes().normalize()


def test_decode_denormalizes():
    codec = autoencoder()
    latents = codec.encode(torch.rand(2, 2, 100) - 0.5, lengths=[100, 20])
    codec.latent_spec = measure_latents(codec, [latents])
    latents = codec.encode(torch.rand(2, 2, 100) - 0.5, lengths=[100, 20])
    torch.testing.assert_close(codec.decode(latents.normalize()), codec.decode(latents), rtol=0, atol=1e-5)


def test_measured_statistics_equal_those_of_all_frames():
    codec = autoencoder()
    pieces = [codec.encode(torch.rand(2, 2, n) - 0.5, lengths=[n, n // 2]) for n in (160, 90)]
    spec = measure_latents(codec, pieces)
    assert spec.bounded and replace(spec, mean=None, std=None) == codec.latent_spec
    normal = [replace(piece, spec=spec).normalize() for piece in pieces]
    frames = torch.cat([item.values[0] for piece in normal for item in piece], dim=-1).double()
    assert frames.shape[-1] == 10 + 5 + 6 + 3
    torch.testing.assert_close(frames.mean(-1), torch.zeros(4).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(frames.std(-1, correction=0), torch.ones(4).double(), rtol=0, atol=1e-4)


def test_measuring_nothing_raises():
    with pytest.raises(PartitaError, match="there are no latents to measure"):
        measure_latents(autoencoder(), [])


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("changes", [{}, {"values": None}, {"codes": None, "codes_id": None}, {"gain": None}])
def test_save_and_load(tmp_path, changes):
    latents = record(**changes)
    latents.save(tmp_path / "deep" / "latents.safetensors")
    assert same(Latents.load(tmp_path / "deep" / "latents.safetensors"), latents)
    normal = record().normalize()
    normal.save(str(tmp_path / "normal.safetensors"))
    assert same(Latents.load(tmp_path / "normal.safetensors"), normal)


def test_views_are_saved_correctly(tmp_path):
    latents = record()[0]
    latents.save(tmp_path / "one.safetensors")
    assert same(Latents.load(tmp_path / "one.safetensors"), latents)


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_damaged_file_raises(tmp_path, keep):
    path = tmp_path / "latents.safetensors"
    record().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PartitaError, match="latents.safetensors is not a safetensors file, or is damaged") as caught:
        Latents.load(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_other_file_raise(tmp_path):
    with pytest.raises(PartitaError, match="no such file: .*none.safetensors"):
        Latents.load(tmp_path / "none.safetensors")
    with pytest.raises(PartitaError, match="no such file"):
        Latents.load(tmp_path)
    write_tensors(tmp_path / "weights.safetensors", {"weight": torch.zeros(3)})
    with pytest.raises(PartitaError, match="weights.safetensors does not hold latents"):
        Latents.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"spec": {"dim": "3"}}', "null"])
def test_invalid_header_raises(tmp_path, text):
    path = tmp_path / "latents.safetensors"
    record().save(path)
    tensors, _ = read_tensors(path)
    write_tensors(path, tensors, {"partita_latents": text})
    with pytest.raises(PartitaError, match="latents.safetensors"):
        Latents.load(path)


def test_inconsistent_file_raises(tmp_path):
    path = tmp_path / "latents.safetensors"
    record().save(path)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors | {"audio_lengths": torch.tensor([25, 1, 31])}, metadata)
    with pytest.raises(PartitaError, match="latents.safetensors: values are .*audio_lengths .*3 items of 8 tokens"):
        Latents.load(path)


def test_codes_round_trip_through_a_file(tmp_path):
    codec = autoencoder(quantizer=RoundingConfig())
    latents = codec.encode(torch.rand(1, 2, 50) - 0.5).only_codes()
    latents.save(tmp_path / "codes.safetensors")
    assert torch.equal(codec.decode(Latents.load(tmp_path / "codes.safetensors")), codec.decode(latents))


def test_regroup_round_trips():
    """128 tokens of 4 channels per frame become 8 tokens of 64: sixteen neighbors each."""
    values = torch.arange(2 * 4 * 256, dtype=torch.float32).view(2, 4, 256)
    wide = regroup(values, 64)
    assert wide.shape == (2, 64, 16)
    assert torch.equal(wide[0, :8, 1], torch.cat([values[0, :, 16], values[0, :, 17]]))
    assert torch.equal(regroup(wide, 4), values)
    with pytest.raises(PartitaError, match="3 tokens of 4 channels.* 8 channels"):
        regroup(values[..., :3], 8)


# ------------------------------------------------------------------ files that hold what latents cannot be


def edited(tmp_path, change):
    """A file of latents with changed tensors and header."""
    path = tmp_path / "latents.safetensors"
    record().save(path)
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata["partita_latents"])
    change(tensors, header)
    write_tensors(path, tensors, {"partita_latents": json.dumps(header)}, finite=False)
    return path


def put(name, value, place=0):
    def change(tensors, header):
        tensors[name].view(-1)[place] = value

    return change


def said(**changes):
    return lambda tensors, header: header["spec"].update(changes)


def replaced(name, make):
    def change(tensors, header):
        tensors[name] = make(tensors[name])

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (put("values", float("nan")), r"values holds numbers that are not finite \(NaN or infinite\)"),
        (put("gain", float("inf")), r"gain holds numbers that are not finite"),
        (put("codes", 5), "code 5 of item 0.*level 0 has 5"),
        (put("codes", -2, place=7), "code -2 of item 0.*level 1 has 5"),
        (put("layout", 3), "layout holds 3"),
        (put("audio_lengths", 0, place=1), "audio_lengths holds 0"),
        (put("audio_lengths", 2**62), "values are .*audio_lengths .*3 items of "),
        (said(codebook_sizes=[5]), r"codes are \(3, 2, 6\); \(batch, 1, tokens\)"),
        (said(codebook_sizes=[5, 0]), r"codebook_sizes\[1\] is 0"),
        (said(codebook_sizes=[5, 2**63]), r"codebook_sizes\[1\] is 9223372036854775808"),
        (said(hop=10**30), "hop is 10+; it must be at least 1 and at most 2147483647"),
        (said(std=[1, 0, 1]), r"std\[1\] is 0.0; it must be above 0"),
        (said(bounded=True), "values reach .*1"),
        (replaced("values", lambda x: x.long()), "values is torch.int64"),
        (replaced("codes", lambda x: x.float()), "codes is torch.float32"),
        (replaced("layout", lambda x: x.float()), "layout is torch.float32"),
        (replaced("audio_lengths", lambda x: x[0]), r"audio_lengths is \(\); \(batch,\) is expected"),
        (lambda tensors, header: tensors.update(x=torch.zeros(1)), "tensor 'x'"),
        (lambda tensors, header: header.update(normalized="no"), "header.normalized: expected bool, got 'no'"),
        (lambda tensors, header: header.update(x=1), "header: unknown key 'x'"),
        (lambda tensors, header: header.update(space_id="a\nb"), "is not an identifier"),
        (
            lambda tensors, header: tensors.update({k: v[:0] for k, v in tensors.items()}),
            "values are .*audio_lengths .*0 items",
        ),
    ],
)
def test_file_of_invalid_latents_raises(tmp_path, change, message):
    with pytest.raises(PartitaError, match=f"latents.safetensors: .*{message}") as caught:
        Latents.load(edited(tmp_path, change))
    assert "\n" not in str(caught.value)
