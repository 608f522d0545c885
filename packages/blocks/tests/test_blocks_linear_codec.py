"""Linear codecs: principal components against numpy, exactness, and the coding of levels."""

import numpy as np
import pytest
import torch
from partita_blocks import (
    MDCT,
    FrameCovariance,
    LappedProjection,
    LevelCode,
    fit_linear_codec,
    from_mid_side,
    principal_components,
    to_mid_side,
)
from partita_core import ChannelLayout, PartitaError
from torch.nn import functional as F


def audio(channels: int = 1, samples: int = 2400, seed: int = 0) -> torch.Tensor:
    """Noise with a falling spectrum, of different level in each channel."""
    x = torch.randn(2, channels, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = F.conv1d(F.pad(x.flatten(0, 1)[:, None], (7, 0)), 0.7 ** torch.arange(8, dtype=torch.float64)[None, None])
    return x.view(2, channels, samples) * torch.tensor([1.0, 0.3], dtype=torch.float64)[:channels, None]


def fitted(channels: int, hop: int, numbers: int, weighting: float = 0.0) -> tuple[LappedProjection, LappedProjection]:
    parts = LappedProjection(channels, hop, numbers).double(), LappedProjection(channels, hop, numbers).double()
    fit_linear_codec(*parts, [(audio(channels), None)], weighting=weighting)
    return parts


@pytest.mark.parametrize("channels, hop", [(1, 24), (2, 15)])
@pytest.mark.parametrize("weighting", [0.0, 0.5])
def test_full_rank_is_exact(channels, hop, weighting):
    encoder, decoder = fitted(channels, hop, channels * hop, weighting)
    signal = audio(channels, 40 * hop, seed=1)
    assert (decoder.synthesize(encoder.analyze(signal)) - signal).abs().max() < 1e-9


def test_components_are_those_of_numpy():
    hop, numbers, signal = 24, 5, audio()
    frames = MDCT(hop)(signal).transpose(2, 3).reshape(-1, hop).numpy()
    values, vectors = np.linalg.eigh(frames.T @ frames / len(frames))
    basis = vectors[:, ::-1][:, :numbers]
    encoder, decoder = fitted(1, hop, numbers)
    bins = frames @ basis @ basis.T
    expected = MDCT(hop).inverse(torch.from_numpy(bins.reshape(2, 1, -1, hop)).transpose(2, 3))
    assert (decoder.synthesize(encoder.analyze(signal)) - expected).abs().max() < 1e-9
    scale = np.sqrt(values[::-1][:numbers].mean())
    assert np.abs(np.abs(encoder.matrix.flatten(1).numpy()) - np.abs(basis.T) / scale).max() < 1e-9
    assert encoder.analyze(signal).square().mean() == pytest.approx(1.0, abs=1e-9)


def test_fit_returns_the_kept_energy():
    hop, signal = 24, audio()
    encoder, decoder = LappedProjection(1, hop, 6).double(), LappedProjection(1, hop, 6).double()
    kept = fit_linear_codec(encoder, decoder, [(signal, None)])
    bins = MDCT(hop)(signal)
    error = (MDCT(hop)(decoder.synthesize(encoder.analyze(signal))) - bins).square().sum() / bins.square().sum()
    assert kept == pytest.approx(1 - float(error), abs=1e-3)  # frames at the ends are not orthonormal
    _, worse = fitted(1, hop, 6, weighting=0.5)
    assert not torch.allclose(decoder.matrix, worse.matrix)


def test_only_the_strongest_bins_are_kept():
    covariance = FrameCovariance(1, 24, max_bins=10)
    covariance.add(audio())
    variance = MDCT(24)(audio()).square().mean((0, 1, 3))
    assert covariance.bins is not None and set(covariance.bins.tolist()) == set(variance.topk(10).indices.tolist())
    assert torch.allclose(covariance.matrix.diagonal(), variance[covariance.bins])


def test_padding_does_not_count():
    signal, padded = audio(samples=240), FrameCovariance(1, 24)
    whole = FrameCovariance(1, 24)
    whole.add(signal)
    padded.add(F.pad(signal, (0, 2400)), torch.tensor([240, 240]))
    assert padded.frames == whole.frames == 20
    assert padded.matrix.trace() == pytest.approx(float(whole.matrix.trace()), rel=0.1)  # the last frames differ


def test_weighted_components_reconstruct_in_the_least_squares_sense():
    """The synthesis is the regression of all bins on the numbers, whatever the weighting."""
    covariance = FrameCovariance(1, 24)
    covariance.add(audio())
    c = covariance.matrix
    found = principal_components(c, 7, weighting=0.5)
    regression = torch.linalg.solve(found.analysis @ c @ found.analysis.mT, found.analysis @ c)
    assert (found.synthesis - regression).abs().max() < 1e-8


def test_misfits_and_silence_raise():
    with pytest.raises(PartitaError, match="silent"):
        fit_linear_codec(LappedProjection(1, 24, 4), LappedProjection(1, 24, 4), [(torch.zeros(1, 1, 240), None)])
    with pytest.raises(PartitaError, match=r"\(4, 1, 24\) and \(5, 1, 24\)"):
        fit_linear_codec(LappedProjection(1, 24, 4), LappedProjection(1, 24, 5), [(audio(), None)])
    with pytest.raises(PartitaError, match="49 numbers"):
        LappedProjection(2, 24, 49)


@pytest.mark.parametrize("layout", list(ChannelLayout))
def test_mid_and_side_are_inverted(layout):
    signal = audio(2)
    layouts = torch.full((2,), int(layout))
    if layout is ChannelLayout.MONO:
        signal = signal.mean(1, keepdim=True).expand(2, 2, -1)
    converted = to_mid_side(signal, layouts)
    assert torch.allclose(from_mid_side(converted, layouts), signal)
    if layout is ChannelLayout.MONO:
        assert torch.equal(converted[:, 0], signal[:, 0]) and not converted[:, 1].any()


def numbers(dim: int) -> torch.Tensor:
    """Frames from silence to +30 dB."""
    x = torch.randn(2, dim, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x * torch.tensor([0.0, 1e-4, 0.01, 0.3, 1.0, 30.0], dtype=torch.float64)


@pytest.mark.parametrize("level", ["none", "root", "channel"])
@pytest.mark.parametrize("free", [0, 3])
def test_level_code_is_inverted(level, free):
    code = LevelCode(16, None if not free else 16 - free - (2 if level == "channel" else 0), level=level)
    original = numbers(code.numbers)
    latents = code.encode(original)
    assert latents.shape == (2, 16, 6)
    assert torch.allclose(code.decode(latents), original, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("free", [0, 3])
def test_level_channel_survives_normalization_and_bounding(free):
    code = LevelCode(16, 14 - free, level="channel")
    bounded = LevelCode(16, 14 - free, level="channel", bounded=True)
    original, correction = numbers(code.numbers), 0.1 * torch.randn(2, 14, 6, dtype=torch.float64)
    correction[:, : code.numbers] = 0
    latents = code.encode(original, correction)
    normalized = (latents - latents.mean(1, keepdim=True)) / latents.std(1, correction=0, keepdim=True)
    assert torch.allclose(code.decode(normalized), original, rtol=1e-6, atol=1e-9)
    assert torch.allclose(bounded.decode((0.5 * normalized).tanh()), original, rtol=1e-5, atol=1e-7)


def test_root_halves_the_range_in_decibels():
    code = LevelCode(16, level="root")
    rms = code.encode(numbers(16)[:, :, 2:]).square().mean(1).sqrt()
    assert torch.allclose(rms, numbers(16)[:, :, 2:].square().mean(1).sqrt().sqrt(), rtol=0.01)


def test_corrections_are_added_after_the_level_is_taken_out():
    code, correction = LevelCode(16, 12, level="channel"), torch.zeros(2, 14, 6, dtype=torch.float64)
    correction[:, 0] = 5.0
    changed = code.decode(code.encode(numbers(12), correction))
    level = numbers(12).square().mean(1).sqrt()
    assert torch.allclose(changed.square().mean(1).sqrt(), level, atol=1e-9)
    assert (changed[:, 0, 2:] > level[:, 2:]).all()


def test_numbers_that_do_not_fit_raise():
    with pytest.raises(PartitaError, match="15.*16.*14"):
        LevelCode(16, 15, level="channel")
