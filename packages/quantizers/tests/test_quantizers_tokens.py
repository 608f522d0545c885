import json
import random
from dataclasses import replace

import pytest
import torch
from partita_core import Latents, LatentSpec, PartitaError, read_tensors, write_tensors
from partita_quantizers import (
    Tokens,
    TokenSpace,
    delay_codes,
    flatten_codes,
    undelay_codes,
    unflatten_codes,
)
from partita_testing.dummies import RoundingConfig, autoencoder

LAYOUTS = ("flat", "delay")
SMALL = (4, 3, 5)


def ragged(sizes, lengths, seed=0):
    """Random codes `(len(lengths), len(sizes), max(lengths))`, -1 after the end of each item."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    codes = torch.stack([torch.randint(size, shape, generator=generator) for size in sizes], dim=1)
    ends = torch.tensor(lengths)[:, None, None]
    return torch.where(torch.arange(max(lengths)) < ends, codes, -1)


def spaces(seed):
    """Random codebook sizes of up to six levels, number of levels kept, and lengths."""
    chance = random.Random(seed)
    sizes = tuple(chance.choice([1, 2, 7, 64, 2048]) for _ in range(chance.randint(1, 6)))
    kept = chance.choice([None, chance.randint(1, len(sizes))])
    lengths = [chance.randint(0, 9) for _ in range(chance.randint(1, 4))]
    return sizes, kept, lengths


# ------------------------------------------------------------------ the two layouts


def test_layouts_by_hand():
    codes = torch.tensor([[[1, 2, 3], [11, 12, 13]]])
    assert flatten_codes(codes).tolist() == [[1, 11, 2, 12, 3, 13]]
    assert delay_codes(codes, fill=-1).tolist() == [[[1, 2, 3, -1], [-1, 11, 12, 13]]]


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("tokens", [0, 1, 2, 8])
def test_layouts_have_exact_inverses(batch, levels, tokens):
    codes = torch.randint(9, (batch, levels, tokens), generator=torch.Generator().manual_seed(tokens))
    flat, delayed = flatten_codes(codes), delay_codes(codes, fill=-7)
    assert flat.shape == (batch, tokens * levels) and delayed.shape == (batch, levels, tokens + levels - 1)
    assert torch.equal(unflatten_codes(flat, levels), codes)
    assert torch.equal(undelay_codes(delayed), codes)
    assert (delayed == -7).sum() == batch * levels * (levels - 1)


def test_invalid_layout_lengths():
    with pytest.raises(PartitaError, match="7 .*3"):
        unflatten_codes(torch.zeros(1, 7, dtype=torch.long), 3)
    with pytest.raises(PartitaError, match="2 .*4 .*3"):
        undelay_codes(torch.zeros(1, 4, 2, dtype=torch.long))


# ------------------------------------------------------------------ ids


def test_ids_by_hand():
    codes = torch.tensor([[[3, 0], [2, 1], [4, 0]], [[1, -1], [0, -1], [2, -1]]])
    flat = TokenSpace(SMALL)  # level 0 has the ids 3..6, level 1 7..9, level 2 10..14
    assert flat.vocab_size == 15 and list(flat.level_ids(1)) == [7, 8, 9]
    assert flat.encode(codes).tolist() == [[1, 6, 9, 14, 3, 8, 10, 2], [1, 4, 7, 12, 2, 0, 0, 0]]
    delayed = TokenSpace(SMALL, layout="delay").encode(codes)
    assert delayed[0].tolist() == [[1, 6, 3, 0, 0, 2], [1, 0, 9, 8, 0, 2], [1, 0, 0, 14, 10, 2]]
    assert delayed[1].tolist() == [[1, 4, 0, 0, 2, 0], [1, 0, 7, 0, 2, 0], [1, 0, 0, 12, 2, 0]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(40))
def test_round_trips_are_exact(seed, layout):
    sizes, kept, lengths = spaces(seed)
    space = TokenSpace(sizes, kept, layout)
    codes = ragged(sizes, lengths, seed)
    ids = space.encode(codes)
    assert ids.dtype == torch.int64 and 0 <= ids.min() and ids.max() < space.vocab_size
    assert ids.shape[-1] == space.length(max(lengths))
    decoded = space.decode(ids)
    count = len(space.kept)
    assert torch.equal(decoded[:, :count], codes[:, :count]) and (decoded[:, count:] == -1).all()
    # The ids of an item do not depend on the batch, and more padding does not change the codes.
    for i, length in enumerate(lengths):
        alone = space.encode(codes[i : i + 1, :, :length])
        assert torch.equal(ids[i : i + 1, ..., : alone.shape[-1]], alone)
    more = torch.nn.functional.pad(ids, (0, 3), value=space.pad_id)
    assert torch.equal(space.decode(more), decoded)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(3))
def test_decode_accepts_exactly_what_encode_returns(seed, layout):
    """Any change of one id is an error, unless encoding the decoded codes returns the changed ids."""
    space = TokenSpace((2, 3), layout=layout)
    ids = space.encode(ragged((2, 3), [2, 1], seed))
    accepted = 0
    for position in range(ids.numel()):
        for value in range(space.vocab_size):
            changed = ids.clone()
            changed.view(-1)[position] = value
            try:
                decoded = space.decode(changed)
            except PartitaError as error:
                assert "\n" not in str(error)
                continue
            accepted += 1
            assert torch.equal(space.encode(decoded), changed)
    # Each of 6 codes may be any of its level (2 or 3); all other ids are fixed.
    assert accepted == ids.numel() + 3 * 1 + 3 * 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fewer_levels_are_a_prefix_of_the_ids(layout):
    codes = ragged(SMALL, [4, 2])
    whole, two = TokenSpace(SMALL, layout=layout), TokenSpace(SMALL, 2, layout)
    assert two.vocab_size == 3 + 4 + 3 and whole.level_ids(1) == two.level_ids(1)
    dropped = codes.clone()
    dropped[:, 2] = -1  # as `encode_codes(num_quantizers=2)` gives them
    assert torch.equal(two.encode(dropped), two.encode(codes))
    assert torch.equal(two.decode(two.encode(codes)), dropped)
    with pytest.raises(PartitaError, match="item 0, token 0: level 2 .*num_quantizers=2"):
        whole.encode(dropped)


def test_extreme_codes_of_large_codebooks_round_trip():
    sizes = (14_641,) * 3 + (2**62,)
    codes = torch.tensor(sizes)[None, :, None].repeat(1, 1, 2) - 1
    codes[..., 1] = 0
    for layout in LAYOUTS:
        space = TokenSpace(sizes, layout=layout)
        assert torch.equal(space.decode(space.encode(codes)), codes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebook_sizes": ()}, "continuous"),
        ({"codebook_sizes": (4, 0)}, r"\(4, 0\)"),
        ({"codebook_sizes": (4,), "num_quantizers": 2}, "num_quantizers is 2.*1"),
        ({"codebook_sizes": (4,), "num_quantizers": 0}, "num_quantizers is 0"),
        ({"codebook_sizes": (4,), "num_quantizers": "all"}, "num_quantizers is 'all'"),
        ({"codebook_sizes": 4}, "codebook_sizes is 4"),
        ({"codebook_sizes": "4"}, "codebook_sizes is '4'"),
        ({"codebook_sizes": (4,), "layout": "diagonal"}, "'diagonal'.*'flat' or 'delay'"),
        ({"codebook_sizes": (2**62, 2**62)}, "int64"),
    ],
)
def test_invalid_token_spaces(settings, message):
    with pytest.raises(PartitaError, match=message):
        TokenSpace(**settings)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 2, 3, dtype=torch.long), r"\(1, 2, 3\).*\(batch, 3, tokens\)"),
        (torch.zeros(1, 3, 3), "torch.float32"),
        (torch.tensor([[[0], [3], [0]]]), "code 3 of item 0.*level 1.*3"),
        (torch.tensor([[[0], [-2], [0]]]), "code -2 of item 0.*level 1"),
        (torch.tensor([[[-1, 0], [-1, 0], [-1, 0]]]), "item 0, token 0: -1"),
    ],
)
def test_invalid_codes(codes, message):
    with pytest.raises(PartitaError, match=message):
        TokenSpace(SMALL).encode(codes)


@pytest.mark.parametrize(
    ("layout", "ids", "message"),
    [
        ("flat", [[1, 6, 9, 15, 2]], r"id 15 .*0\.\.14"),
        ("flat", [[1, 6, 9, -1, 2]], "id -1 "),
        ("flat", [[1, 6, 6, 14, 2]], r"item 0, position 2: id 6.* level 1 \(7\.\.9\)"),
        ("flat", [[1, 6, 9, 2]], "item 0 .*2 .*3 ids"),
        ("flat", [[1, 6, 9, 14]], "item 0 has no eos"),
        ("flat", [[6, 9, 14, 2]], "ends within a token"),
        ("flat", [[2]], r"position 0: id 2.*bos \(id 1\)"),
        ("flat", [[]], "item 0 has no eos"),
        ("flat", [[1, 2, 0], [1, 2, 6]], r"item 1, position 2: id 6.*pad \(id 0\)"),
        ("flat", [[[1, 2]]], r"\(1, 1, 2\).*\(batch, length\)"),
        ("delay", [[1, 2]], r"\(1, 2\).*\(batch, 3, length\)"),
        ("delay", [[[1, 2], [1, 2], [1, 2]]], "item 0 .*0 .*2 steps"),
        ("delay", [[[1, 0, 0, 2], [1, 0, 0, 2], [1, 0, 5, 2]]], r"position 2: id 5.*pad \(id 0\)"),
        ("delay", [[[1, 0, 0, 2], [1, 0, 0, 0], [1, 0, 0, 2]]], r"position 3: id 0.*eos \(id 2\)"),
    ],
)
def test_invalid_ids_have_one_line_errors(layout, ids, message):
    with pytest.raises(PartitaError, match=message) as caught:
        TokenSpace(SMALL, layout=layout).decode(torch.tensor(ids, dtype=torch.long))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ the record


def latents(lengths=(40, 25), tokens_per_frame=1, **settings):
    spec = LatentSpec(6, 1000, 10, tokens_per_frame, codebook_sizes=SMALL)
    counts = [spec.frames(samples) * tokens_per_frame for samples in lengths]
    return Latents(
        values=None,
        codes=ragged(SMALL, counts),
        audio_lengths=torch.tensor(lengths),
        layout=torch.arange(len(lengths)),
        spec=spec,
        space_id="space",
        codes_id="codes",
        **settings,
    )


@pytest.mark.parametrize("tokens_per_frame", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_round_trip_latents(tmp_path, layout, tokens_per_frame):
    record = latents(tokens_per_frame=tokens_per_frame, gain=torch.rand(2, 4))
    Tokens.from_latents(record, layout=layout).save(tmp_path / "ids.safetensors")
    loaded = Tokens.load(tmp_path / "ids.safetensors")
    assert len(loaded) == 2 and loaded.space == TokenSpace(SMALL, layout=layout)
    again = loaded.to_latents()
    for name in ("codes", "audio_lengths", "layout", "gain"):
        assert torch.equal(getattr(again, name), getattr(record, name)), name
    for name in ("spec", "space_id", "codes_id"):
        assert getattr(again, name) == getattr(record, name), name


def test_levels_can_be_dropped_in_both_directions():
    record = latents()
    two = Tokens.from_latents(record, num_quantizers=2)
    assert torch.equal(two.to_latents().codes[:, :2], record.codes[:, :2])
    one = two.to_latents(num_quantizers=1).codes
    assert torch.equal(one[:, :1], record.codes[:, :1]) and (one[:, 1:] == -1).all()
    with pytest.raises(PartitaError, match="num_quantizers is 3.*2"):
        two.to_latents(num_quantizers=3)


def test_inconsistent_tokens(tmp_path):
    record = latents()
    tokens = Tokens.from_latents(record)
    facts = {"audio_lengths": record.audio_lengths, "channel_layout": record.layout, "spec": record.spec}
    with pytest.raises(PartitaError, match=r"\(4, 3\).*\(4, 3, 5\)"):
        Tokens(tokens.ids, TokenSpace((4, 3)), **facts)
    short = Tokens(tokens.ids, tokens.space, **facts | {"audio_lengths": torch.tensor([40, 35])})
    with pytest.raises(PartitaError, match=r"\[4, 3\].*audio_lengths.*\[4, 4\]"):
        short.to_latents()
    record.save(tmp_path / "latents.safetensors")
    with pytest.raises(PartitaError, match="latents.safetensors"):
        Tokens.load(tmp_path / "latents.safetensors")
    spec = LatentSpec(6, 1000, 10)
    continuous = Latents(torch.zeros(1, 6, 2), None, torch.tensor([20]), torch.tensor([0]), spec)
    with pytest.raises(PartitaError, match="codes"):
        Tokens.from_latents(continuous)


# ------------------------------------------------------------------ invalid files


def put(name, value):
    def change(tensors, header):
        tensors[name].view(-1)[1] = value

    return change


def replaced(name, make):
    def change(tensors, header):
        tensors[name] = make(tensors[name])

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (put("ids", 10**6), "id 1000000 "),
        (put("ids", 2), "item 0, position 2: id 8.*pad"),
        (put("audio_lengths", 10**9), "audio_lengths"),
        (put("gain", float("nan")), "gain"),
        (replaced("ids", lambda x: x.float()), "ids.*torch.float32"),
        (replaced("ids", lambda x: x[:, :-1]), "has no eos"),
        # A TypeError once, found by fuzzing.
        (replaced("audio_lengths", lambda x: x[None]), r"audio_lengths is \(1, 2\)"),
        (replaced("channel_layout", lambda x: x + 7), "layout.*8"),
        (lambda tensors, header: tensors.update(x=tensors["ids"]), "tensor 'x'"),
        (lambda tensors, header: header["space"].update(num_quantizers=9), "num_quantizers is 9"),
        (lambda tensors, header: header["spec"].update(codebook_sizes=[4, 3]), r"\(4, 3, 5\).*\(4, 3\)"),
        (lambda tensors, header: header.pop("space_id"), "header.*'space_id'"),
    ],
)
def test_invalid_files_have_one_line_errors(tmp_path, change, message):
    path = tmp_path / "tokens.safetensors"
    codes = ragged(SMALL, [3, 2])
    lengths, layout = torch.tensor([30, 20]), torch.tensor([1, 1])
    spec = LatentSpec(2, 8000, 10, codebook_sizes=SMALL)
    Tokens.from_latents(Latents(None, codes, lengths, layout, spec, gain=torch.ones(2, 3))).save(path)
    assert Tokens.load(path).to_latents().codes.equal(codes)
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata["partita_tokens"])
    change(tensors, header)
    write_tensors(path, tensors, {"partita_tokens": json.dumps(header)}, finite=False)
    with pytest.raises(PartitaError, match=f"tokens.safetensors: .*{message}") as caught:
        Tokens.load(path)
    assert "\n" not in str(caught.value)


def test_invalid_field_types():
    tokens = Tokens.from_latents(autoencoder(bottleneck=RoundingConfig()).encode(torch.zeros(1, 1, 40), layout="mono"))
    for name in ("space", "spec"):
        with pytest.raises(PartitaError, match=f"^{name} is None"):
            replace(tokens, **{name: None})
    with pytest.raises(PartitaError, match="Tensor"):
        Tokens.from_latents(torch.zeros(1, 4, 3))  # pyright: ignore
