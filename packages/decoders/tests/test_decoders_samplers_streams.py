"""What all samplers have in common: streams of bounded memory, and what a result depends on."""

import weakref

import pytest
import torch
from partita_core import StreamDecoder
from partita_decoders import Autoregressive, Independent, Overlap, Parallel, TwoStep
from partita_testing._common import random_splits
from partita_testing.dummies import DenoisingConfig, StridedConfig, autoencoder

SEQUENTIAL = [
    TwoStep(),
    TwoStep(refine=False),
    TwoStep(sigma_context=0),
    Autoregressive(),
    Autoregressive(steps=3, sigma_context=0.1),
    Independent(),
    Independent(steps=2),
    Overlap(),
    Overlap(sigma=0.2),
]
ALL = [*SEQUENTIAL, Parallel(), Parallel(steps=3, batch=1), Parallel(steps=5, batch=4)]
SPLITS = [[1] * 23, [3, 20], [0, 2, 0, 0, 21, 0], [22, 1], [1, 22], *(random_splits(23, seed) for seed in range(4))]


# ------------------------------------------------------------------ streams


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_streamed_is_whole_bit_for_bit(sampler, tiny, features, sampled):
    given = features(23)
    whole = sampled(sampler, tiny, given)
    assert whole.shape == (2, 2, 8, 23 * 4)
    for splits in SPLITS:
        assert torch.equal(sampled(sampler, tiny, given, splits), whole), splits


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_short_ones(sampler, chunks, tiny, features, sampled):
    given = features(chunks)
    whole = sampled(sampler, tiny, given)
    assert whole.shape == (2, 2, 8, chunks * 4) and whole.isfinite().all()
    assert torch.equal(sampled(sampler, tiny, given, [0, *[1] * chunks, 0]), whole)


@torch.no_grad()
@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_what_is_held_back_is_what_is_declared(sampler, tiny, features):
    (given,), stream = features(40, batch=1), sampler.start(tiny, torch.tensor([5]))
    final, late = 0, []
    for t in range(40):
        final += stream.push((given[:, t : t + 1],)).shape[-1]
        late.append(4 * (t + 1) - final)
    assert max(late) == 4 * sampler.latency
    assert stream.push((given[:, :0],), last=True).shape[-1] == late[-1]


@torch.no_grad()
@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("size", [1, 60])
def test_features_are_held_no_longer_than_chunks_are_held_back(sampler, size, tiny, features):
    (given,), stream = features(60, batch=1), sampler.start(tiny, torch.tensor([5]))
    memory: list[weakref.ref] = []  # a storage is alive as long as any view of it
    alive: list[int] = []
    take = stream.take

    def watched(chunk, own):
        memory.extend(weakref.ref(f.untyped_storage()) for f in own)
        alive.append(sum(storage() is not None for storage in memory))
        return take(chunk, own)

    stream.take = watched
    for t in range(0, 60, size):
        piece = given[:, t : t + size].clone()
        memory.append(weakref.ref(piece.untyped_storage()))
        stream.push((piece,))
    # The one being taken, what was pushed, and the context of the next, which is final or held back.
    assert len(alive) == 60 and max(alive) <= 2 + max(1, sampler.latency)


@torch.no_grad()
@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_a_decoder_conditions_chunks_as_the_sampler_takes_them(sampler, tiny):
    memory: list[weakref.ref] = []
    alive: list[int] = []
    condition = tiny.condition

    def watched(hidden, layout):
        alive.append(sum(storage() is not None for storage in memory))
        features = condition(hidden, layout)
        memory.extend(weakref.ref(f.untyped_storage()) for f in features)
        return features

    tiny.condition = watched
    hidden = torch.randn(1, 4, 60 * tiny.frames_per_chunk)
    audio = tiny.generate(hidden, torch.tensor([1]), sampler=sampler, seeds=torch.tensor([5]))
    assert audio.shape == (1, 2, 60 * 32) and len(alive) == 60 and max(alive) <= 1


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_codec_decodes_and_streams(sampler):
    torch.manual_seed(0)
    codec = autoencoder(encoder=StridedConfig(1), decoder=DenoisingConfig()).double()
    latents = codec.encode(0.3 * torch.randn(1, 2, 1000).double())
    whole = codec.decode(latents, sampler=sampler, seed=3)
    assert whole.shape == (1, 2, 1000) and whole.dtype == torch.float64
    decoder = StreamDecoder(codec, layout="stereo", sampler=sampler, seed=3)
    pieces = [decoder.push(latents[0]), decoder.push(codec.encode(torch.zeros(1, 2, 1).double()), last=True)]
    assert pieces[0].shape[-1] >= 1000 - decoder.latency
    longer = torch.cat(pieces, dim=-1)
    assert longer.shape[-1] == 1001
    torch.testing.assert_close(longer[..., :640], whole[..., :640], rtol=0, atol=1e-12)


# ------------------------------------------------------------------ what a result depends on


@pytest.mark.parametrize("sampler", [one for one in SEQUENTIAL if one != Independent()], ids=repr)
def test_no_chunk_depends_on_later_ones(sampler, tiny, features, sampled):
    given, other = features(6), features(6, seed=2)
    for t in (1, 3, 5):
        changed = torch.cat([given[0][:, :t], other[0][:, t:]], dim=1)
        before, after = sampled(sampler, tiny, given), sampled(sampler, tiny, (changed,))
        assert torch.equal(after[..., : 4 * t], before[..., : 4 * t])
        assert not torch.allclose(after[..., 4 * t : 4 * t + 4], before[..., 4 * t : 4 * t + 4])


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_each_item_has_its_own_noise_wherever_it_stands(sampler, tiny, features, sampled):
    decoder = tiny.double()
    (one,) = features(5, batch=1)
    given = (one.double().repeat(3, 1, 1),)
    out = sampled(sampler, decoder, given, seeds=torch.tensor([4, 9, 4]))
    torch.manual_seed(1)
    for row, seed in ((0, 4), (1, 9), (2, 4)):
        alone = sampled(sampler, decoder, (one.double(),), seeds=torch.tensor([seed]))
        torch.testing.assert_close(out[row : row + 1], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(out[0], out[1])


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_all_is_at_least_float32_but_what_the_decoder_sees_of_half_features(sampler, dtype, tiny, features, sampled):
    seen = []
    tiny.to(dtype).register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].dtype, inputs[1].dtype)))
    out = sampled(sampler, tiny, (features(3)[0].to(dtype),))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert out.dtype == wide and set(seen) == {(dtype, wide)}
