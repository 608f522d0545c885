"""Smooth spectral envelopes from a few values on an auditory scale, and their minimum-phase filters."""

import torch
from partita_core import Constant, TypedModule
from torch import Tensor

from .bands import node_frequencies, node_weights


class EnvelopeNodes(TypedModule):
    """Interpolation of log amplitudes from nodes, spaced equally in arcsinh(f / 500 Hz), to the bins of a spectrum.

    The phase of the filter of minimum phase is linear in the log amplitudes too (folding of the cepstrum), so that
    both are one matrix product.

    Args:
        sample_rate: samples per second.
        n_fft: length of the Fourier transform, even.
        nodes: number of nodes from 0 Hz to half the sample rate, at least 2.
    """

    def __init__(self, sample_rate: int, n_fft: int, nodes: int) -> None:
        super().__init__()
        bins = n_fft // 2 + 1
        frequencies = torch.arange(bins, dtype=torch.float64, device="cpu") * sample_rate / n_fft
        matrix, _ = node_weights(frequencies, nodes, sample_rate / 2)
        cepstrum = torch.fft.irfft(matrix, n=n_fft)
        cepstrum[:, 1 : n_fft // 2] *= 2
        cepstrum[:, n_fft // 2 + 1 :] = 0
        self.frequencies = node_frequencies(nodes, sample_rate / 2)
        self._amplitude, self._phase = Constant(matrix), Constant(torch.fft.rfft(cepstrum).imag.contiguous())

    def forward(self, logs: Tensor) -> Tensor:
        """Interpolate natural log amplitudes `(..., nodes)` to `(..., bins)`."""
        return (logs.flatten(0, -2) @ self._amplitude.like(logs)).unflatten(0, logs.shape[:-1])

    def phase(self, logs: Tensor) -> Tensor:
        """Phase in radians of the minimum-phase filter with log amplitudes `(..., nodes)`, `(..., bins)`."""
        return (logs.flatten(0, -2) @ self._phase.like(logs)).unflatten(0, logs.shape[:-1])
