import pytest
import torch
from partita_core import Chain, Parallel, PartitaError, StatefulStream, Streamable, TiledStream
from partita_core.streams import FrameAligner, concatenate, map_tree
from partita_testing._common import random_splits
from torch.nn import functional as F


def pushed(stream, x, splits, unit=1, empty=None):
    """Push `x` in pieces of `splits` units, and check the latency at one sample per step."""
    outputs, given, out = [], 0, 0
    for i, piece in enumerate(x.split([unit * size for size in splits], dim=-1)):
        last = i == len(splits) - 1
        outputs.append(stream.push(piece, last=last))
        given += piece.shape[-1]
        out += outputs[-1].shape[-1] if empty is None else empty(outputs[-1])
        assert out >= given - stream.latency
    return concatenate(outputs)


SPLITS = [[11], [0, 11, 0], [1] * 11, [5, 0, 6], [10, 1], *(random_splits(11, seed) for seed in range(5))]


# ------------------------------------------------------------------ FrameAligner


@pytest.mark.parametrize("splits", SPLITS)
def test_frame_aligner_cuts_to_frames(splits):
    x = torch.randn(1, 2, 11)
    whole = FrameAligner(4)
    assert whole.latency == 3
    assert torch.equal(pushed(whole, x, splits), F.pad(x, (0, 1)))


@pytest.mark.parametrize("splits", SPLITS)
def test_frame_aligner_returns_full_frames_only(splits):
    whole = FrameAligner(4)
    for i, piece in enumerate(torch.randn(1, 2, 11).split(splits, dim=-1)):
        assert whole.push(piece, last=i == len(splits) - 1).shape[-1] % 4 == 0


def test_frame_aligner_passes_full_frames_and_empty_input():
    x = torch.randn(1, 1, 8)
    assert torch.equal(FrameAligner(4).push(x, last=True), x)
    assert FrameAligner(4).push(x[..., :0], last=True).shape == (1, 1, 0)
    assert FrameAligner(4, samples=10).latency == 30


# ------------------------------------------------------------------ TiledStream


def smooth(left, right, units_in, units_out):
    """A function that averages `left + 1 + right` frames, repeats each `units_out` times, and returns codes too."""

    def fn(x):
        assert x.shape[-1] > 0, "networks are never asked for nothing"
        frames = x.unflatten(-1, (-1, units_in)).mean(-1)
        kernel = torch.linspace(1, 2, left + 1 + right, dtype=x.dtype).expand(x.shape[1], 1, -1)
        y = F.conv1d(F.pad(frames, (left, right)), kernel, groups=x.shape[1]).repeat_interleave(units_out, -1)
        return y, (y > 0).long(), None

    return fn


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("left, right", [(0, 0), (2, 0), (0, 2), (3, 1), (20, 20)])
@pytest.mark.parametrize("width", [1, 3, 100])
def test_tiled_stream_equals_full_result(splits, left, right, width):
    fn = smooth(left, right, 3, 2)
    x = torch.randn(2, 2, 33, dtype=torch.float64)
    stream = TiledStream(fn, units_in=3, units_out=2, context=(left, right), hop=3, width=width)
    assert stream.latency == 3 * right
    out = pushed(stream, x, splits, unit=3, empty=lambda tree: tree[0].shape[-1] // 2 * 3)
    expected = fn(x)
    torch.testing.assert_close(out[0], expected[0], rtol=0, atol=1e-12)
    assert torch.equal(out[1], expected[1]) and out[2] is None


def test_tiled_stream_respects_its_width():
    seen = []

    def fn(x):
        seen.append(x.shape[-1])
        return x

    stream = TiledStream(fn, units_in=1, units_out=1, context=(2, 1), hop=1, width=4)
    stream.push(torch.zeros(1, 1, 50), last=True)
    assert max(seen) == 4 + 2 + 1


def test_tiled_stream_keeps_only_its_context():
    stream = TiledStream(lambda x: x, units_in=2, units_out=2, context=(3, 1), hop=2, width=4)
    for _ in range(20):
        stream.push(torch.zeros(1, 1, 10))
    assert stream._seen.shape[-1] == 2 * (3 + 1)


def test_tiled_stream_with_too_little_context_differs():
    fn = smooth(2, 0, 1, 1)
    x = torch.randn(1, 1, 11, dtype=torch.float64)
    stream = TiledStream(fn, units_in=1, units_out=1, context=(1, 0), hop=1, width=1)
    out = pushed(stream, x, [1] * 11, empty=lambda tree: tree[0].shape[-1])
    assert (out[0] - fn(x)[0]).abs().max() > 0.1


def test_tiled_stream_raises_for_partial_frames():
    stream = TiledStream(lambda x: x, units_in=4, units_out=4, context=(0, 0), hop=4, width=4)
    with pytest.raises(PartitaError, match="6 steps.*4 steps per frame"):
        stream.push(torch.zeros(1, 1, 6))


def test_empty_output_has_the_shape_and_dtype_of_the_function():
    stream = TiledStream(smooth(1, 1, 3, 2), units_in=3, units_out=2, context=(1, 1), hop=3, width=4)
    y, codes, none = stream.push(torch.zeros(2, 2, 0, dtype=torch.float64))
    assert y.shape == codes.shape == (2, 2, 0) and none is None
    assert (y.dtype, codes.dtype) == (torch.float64, torch.int64)


# ------------------------------------------------------------------ StatefulStream and Chain


class Summing:
    """A cumulative sum with a delay of one step."""

    latency = 1

    def init_state(self, batch_size, *, layout=None, device, dtype):
        start = torch.zeros(batch_size, 1, 1, device=device, dtype=dtype)
        return start, start[..., :0]

    def step(self, x, state, *, last=False):
        total, held = state
        sums = torch.cat([held, total + x.cumsum(-1)], dim=-1)
        total = sums[..., -1:] if x.shape[-1] else total
        out = sums if last else sums[..., : max(0, sums.shape[-1] - 1)]
        return out, (total, sums[..., out.shape[-1] :])


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("width", [1, 4, 100])
def test_stateful_stream_equals_full_result(splits, width):
    x = torch.randn(2, 1, 11, dtype=torch.float64)
    part = Summing()
    assert isinstance(part, Streamable)
    stream = StatefulStream(part, 2, layout=None, device=x.device, dtype=x.dtype, width=width)
    assert stream.latency == 1
    torch.testing.assert_close(pushed(stream, x, splits), x.cumsum(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("splits", SPLITS)
def test_chain_equals_sequential_push(splits):
    x = torch.randn(2, 1, 11, dtype=torch.float64)
    average = smooth(1, 2, 2, 2)

    def chain():
        return Chain(
            FrameAligner(2),
            TiledStream(lambda x: average(x)[0], units_in=2, units_out=2, context=(1, 2), hop=2, width=2),
            StatefulStream(Summing(), 2, layout=None, device=x.device, dtype=x.dtype, width=3),
        )

    assert chain().latency == 1 + 4 + 1
    expected = average(F.pad(x, (0, 1)))[0].cumsum(-1)
    torch.testing.assert_close(pushed(chain(), x, splits), expected, rtol=0, atol=1e-12)


def test_trees():
    from partita_core import BottleneckOutput

    tree = (torch.ones(1, 2), None, BottleneckOutput(torch.ones(1, 1), None, (), ()))
    doubled = map_tree(lambda t: 2 * t, tree)
    assert isinstance(doubled[2], BottleneckOutput) and doubled[1] is None
    joined = concatenate([tree, doubled])
    assert joined[0].tolist() == [[1, 1, 2, 2]] and joined[2].values.tolist() == [[1, 2]]
    assert isinstance(joined[2], BottleneckOutput) and concatenate([None, None]) is None


# ------------------------------------------------------------------ Parallel


@pytest.mark.parametrize("splits", SPLITS)
def test_parallel_streams_are_combined_frame_by_frame(splits):
    def moving_sum(x):
        padded = F.pad(x, (2, 1))
        return padded[..., :-3] + padded[..., 2:-1] + padded[..., 3:]

    x, settings = torch.randn(1, 2, 11, dtype=torch.float64), {"units_in": 1, "units_out": 1, "hop": 1, "width": 3}
    near, far = TiledStream(torch.sin, context=(0, 0), **settings), TiledStream(moving_sum, context=(2, 1), **settings)
    both = Parallel(torch.sub, near, far)
    assert both.latency == 1
    assert torch.allclose(pushed(both, x, splits), x.sin() - moving_sum(x), atol=1e-12)
