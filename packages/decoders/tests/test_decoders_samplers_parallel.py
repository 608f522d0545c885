"""Parallel decoding: the stream of pairs equals all chunks at once, as published."""

import math

import pytest
import torch
from partita_core import NoiseSchedule, keyed_noise
from partita_decoders import Parallel

SCHEDULE = NoiseSchedule()


@torch.no_grad()
def all_at_once(decoder, given, steps, seeds):
    """Take all chunks through one step before the next, with one call per pair."""
    (f,), shape = given, (2, decoder.representation.hop, decoder.chunk_frames)
    clean = [torch.zeros(2, *shape, dtype=f.dtype)] * f.shape[1]
    for step in range(steps):
        sigma = SCHEDULE.sigma(1 - step / steps)
        scale = math.sqrt(sigma**2 - SCHEDULE.sigma_min**2) if step else SCHEDULE.sigma_max
        noise = [keyed_noise(seeds, t, f"step {step}", shape=shape).to(f) for t in range(len(clean))]
        noisy = [chunk + scale * eps for chunk, eps in zip(clean, noise)]
        clean = []
        for start in range(-(step % 2), len(noisy), 2):
            pair = slice(max(0, start), start + 2)
            level = torch.full_like(f[:, pair, 0], sigma)
            out = decoder(torch.cat(noisy[pair], -1), level, (f[:, pair].contiguous(),))
            clean += out.chunk(level.shape[1], -1)
    return torch.cat(clean, -1)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 7, 12, 21])
def test_every_batch_size_equals_all_chunks_at_once(steps, chunks, tiny, features, sampled, seeds):
    given = (features(chunks)[0].double(),)
    whole = all_at_once(tiny.double(), given, steps, seeds)
    for batch in (1, 4, 6, 100):
        out = sampled(Parallel(steps, batch), tiny, given)
        torch.testing.assert_close(out, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 7, 10])
def test_partners_alternate(chunks, tiny, sampled, recorded_calls):
    """Features are chunk numbers, which identify the partners."""
    numbered = torch.arange(chunks, dtype=torch.float32).view(1, -1, 1).repeat(2, 1, 6)
    sampled(Parallel(steps=3, batch=2), tiny, (numbered,))
    for step in range(3):
        sigma = pytest.approx(SCHEDULE.sigma(1 - step / 3), rel=1e-6)
        groups = [f[..., 0].tolist() for levels, f in recorded_calls if levels == [sigma] * len(levels)]
        pairs = [[t, t + 1] for t in range(step % 2, chunks - 1, 2)]
        alone = sorted(set(range(chunks)) - {t for pair in pairs for t in pair})
        # Each call has one pair of each of the two items.
        assert sorted(groups) == sorted([group] * 2 for group in (*pairs, *([t] for t in alone)))


@torch.no_grad()
def test_calls_are_full_batches_of_all_steps(tiny, features, recorded_calls):
    (f,), stream = features(30, batch=1), Parallel(steps=4, batch=3).start(tiny, torch.tensor([5]))
    stream.push((f[:, :6],))
    for t in range(6, 30):
        recorded_calls.clear()
        stream.push((f[:, t : t + 1],))
        assert [call.shape for _, call in recorded_calls] == ([(3, 2, 6)] * 4 if t % 6 == 5 else [])


def test_maximum_number_of_pairs_per_call(tiny, features, sampled, recorded_calls):
    for batch, expected in ((1, 2), (2, 2), (4, 4), (7, 6), (100, 10)):
        recorded_calls.clear()
        sampled(Parallel(batch=batch), tiny, features(10))
        assert max(len(f) for _, f in recorded_calls) == expected


@torch.no_grad()
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (4, 1), (4, 8), (3, 6)])
@pytest.mark.parametrize("items", [1, 3])
def test_latency_of_parallel_is_as_declared(steps, batch, items, tiny, features):
    """Items share the pairs of a call, so that several items have the latency of a smaller batch."""
    (f,), stream = features(50, batch=items), Parallel(steps, batch).start(tiny, torch.arange(items))
    final = 0
    late = []
    for t in range(50):
        final += stream.push((f[:, t : t + 1],)).shape[-1] // 4
        late.append(t + 1 - final)
    assert max(late) == Parallel(steps, max(1, batch // items)).latency <= Parallel(steps, batch).latency
    assert stream.push((f[:, :0],), last=True).shape[-1] == 4 * late[-1]
