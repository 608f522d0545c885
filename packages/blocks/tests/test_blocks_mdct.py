"""MDCT: formula, exact inverse for every hop and length, energy, lapping."""

import numpy as np
import pytest
import torch
from partita_blocks import MDCT
from partita_core import PartitaError


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("hop", [2, 3, 5, 8, 105, 160])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_inverse_is_exact(hop, frames):
    audio, mdct = noise(2, 3, hop * frames), MDCT(hop)
    bins = mdct(audio)
    assert bins.shape == (2, 3, hop, frames)
    assert (mdct.inverse(bins) - audio).abs().max() < 1e-12


def test_bins_are_those_of_the_formula():
    hop, audio = 6, noise(18)
    padded = np.pad(audio.numpy(), hop // 2)
    n, k = np.arange(2 * hop), np.arange(hop)[:, None]
    window = np.sin(np.pi / (2 * hop) * (n + 0.5))
    cosines = np.cos(np.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5))
    expected = [np.sqrt(2 / hop) * cosines @ (window * padded[t * hop : t * hop + 2 * hop]) for t in range(3)]
    assert np.abs(MDCT(hop)(audio).numpy() - np.stack(expected, axis=1)).max() < 1e-12


def test_transform_preserves_energy_away_from_the_ends():
    audio = torch.nn.functional.pad(noise(2, 320), (20, 20))
    assert torch.allclose(MDCT(20)(audio).square().sum(), audio.square().sum(), rtol=1e-12, atol=0)


def test_inverse_is_computed_in_float32_at_least():
    audio, mdct = noise(1, 640).float(), MDCT(32)
    assert (mdct.inverse(mdct(audio)) - audio).abs().max() < 1e-5
    assert mdct(audio.bfloat16()).dtype == torch.float32


def test_incomplete_frames_raise():
    with pytest.raises(PartitaError, match="30 samples .* 20"):
        MDCT(20)(noise(1, 30))
    with pytest.raises(PartitaError, match="hop is 1"):
        MDCT(1)
