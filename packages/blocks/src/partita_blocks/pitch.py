"""Fundamental frequency of voices, by autocorrelation and a path of least cost through nearby frames."""

import math
from typing import NamedTuple

import torch
from partita_core import Constant, PartitaError, TypedModule, upcast
from torch import Tensor
from torch.nn import functional as F

# Settings found on read speech: cost of a jump, per octave and frame; cost of a lower octave, whose autocorrelation is
# as high as that of the true one; seconds of the window, and of the path to either side of a frame. With 0.1 s, 1 % of
# the voiced frames differ by more than 5 % from a path through the full recording.
_JUMP_COST = 0.35
_OCTAVE_COST = 0.05
_WINDOW_SECONDS = 0.048
_PATH_SECONDS = 0.1
# Level in RMS below which the strength falls to zero.
_FLOOR = 2e-4


class Pitch(NamedTuple):
    """Pitch of each frame, `(batch, frames)`.

    Attributes:
        position: logarithm of the fundamental frequency, -1 for `f_min` and 1 for `f_max`.
        strength: normalized autocorrelation at its period, near 1 for a voice and near 0 for noise and silence.
    """

    position: Tensor
    strength: Tensor


class PitchScale:
    """Map between a fundamental frequency in Hz and its position in [-1, 1] on a logarithmic scale.

    Encoders and decoders share it through the latents.

    Args:
        f_min: frequency at -1.
        f_max: frequency at 1.
    """

    def __init__(self, f_min: float = 60.0, f_max: float = 400.0) -> None:
        self.f_min, self.f_max = f_min, f_max
        self.center, self.nepers = math.sqrt(f_min * f_max), math.log(f_max / f_min) / 2

    def check(self, sample_rate: int) -> None:
        """Check that a sample rate suffices for voices of this range.

        Raises:
            PartitaError: it is below five times the highest frequency.
        """
        if sample_rate < 5 * self.f_max:
            raise PartitaError(
                f"the sample rate is {sample_rate} Hz; a pitch up to {self.f_max:g} Hz needs {5 * self.f_max:g} Hz"
            )

    def frequency(self, position: Tensor) -> Tensor:
        """Frequencies in Hz of positions; positions outside [-1, 1] are clamped."""
        return self.center * (self.nepers * position.clamp(-1, 1)).exp()

    def position(self, frequency: Tensor) -> Tensor:
        """Positions of frequencies in Hz."""
        return (frequency / self.center).log() / self.nepers


class PitchTracker(TypedModule):
    """Analysis of the fundamental frequency per frame, without parameters and without a gradient.

    Each frame has a strength per candidate: the autocorrelation of a window of 48 ms, normalized by that of the window.
    The path maximizes the sum of strengths minus a cost of jumps. It is computed for each frame from the frames within
    0.1 s, so that the result depends on bounded context, and is refined between the candidates by a parabola.

    Args:
        sample_rate: samples per second.
        hop: samples per frame.
        scale: range of frequencies.
        candidates: number of candidates, equally spaced on the scale.

    Attributes:
        context: frames to either side that the pitch of a frame depends on.

    Raises:
        PartitaError: the sample rate is too low for the range.
    """

    def __init__(self, sample_rate: int, hop: int, *, scale: PitchScale | None = None, candidates: int = 128) -> None:
        super().__init__()
        self.hop, self.scale, self.candidates = hop, scale or PitchScale(), candidates
        self.scale.check(sample_rate)
        self.step = 2 / (candidates - 1)  # distance of candidates on the scale
        self.path = max(1, round(_PATH_SECONDS * sample_rate / hop))
        self.window = 2 * round(_WINDOW_SECONDS / 2 * sample_rate)
        self.margin = max(0, -(-(self.window - hop) // 2))  # samples of the window before and after its frame
        self.context = self.path + -(-self.margin // hop)
        positions = torch.linspace(-1, 1, candidates, dtype=torch.float64, device="cpu")
        lags = sample_rate / self.scale.frequency(positions)
        self.lags = math.ceil(sample_rate / self.scale.f_min) + 2
        self.n_fft = 1 << (self.window + self.lags - 1).bit_length()
        matrix = (1 - (torch.arange(self.lags, device="cpu")[:, None] - lags).abs()).clamp_min(0)
        hann = torch.hann_window(self.window, dtype=torch.float64, device="cpu")
        own = self._autocorrelation(hann)
        self._hann, self._energy = Constant(hann), 3 / 8 * self.window
        # Interpolates the autocorrelation at the lags of the candidates, divided by that of the window.
        self._interpolation = Constant(matrix * (own[0] / own)[:, None])
        octaves = (1 - positions) * self.scale.nepers / math.log(2)
        self._cost = Constant(_OCTAVE_COST * octaves)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Pitch:
        """Analyze audio `(batch, hop * frames)`, in at least float32."""
        audio = upcast(audio)
        with torch.autocast(audio.device.type, enabled=False):
            strengths = self._strengths(audio)
            scores = strengths - self._cost.like(strengths)
            best = (self._past(scores) + self._past(scores.flip(1)).flip(1) - scores).argmax(-1, keepdim=True)
            return Pitch(*self._refine(strengths, best))

    def _strengths(self, audio: Tensor) -> Tensor:
        """Strengths `(batch, frames, candidates)`; audio beyond the ends is zero."""
        frames = audio.shape[-1] // self.hop
        padded = F.pad(audio, (self.margin, max(self.margin, self.window - self.margin)))
        windows = padded.unfold(-1, self.window, self.hop)[:, :frames]
        windows = (windows - windows.mean(-1, keepdim=True)) * self._hann.like(audio)
        found = self._autocorrelation(windows)
        level = found[..., :1] + _FLOOR**2 * self._energy
        return (found @ self._interpolation.like(audio)) / level

    def _autocorrelation(self, windows: Tensor) -> Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft(windows, self.n_fft)).square().sum(-1)
        return torch.fft.irfft(spectrum, self.n_fft)[..., : self.lags]

    def _past(self, scores: Tensor) -> Tensor:
        """Score of the best path to each candidate from up to `path` frames before, `(batch, frames, candidates)`."""
        slope = _JUMP_COST * self.step * self.scale.nepers / math.log(2)
        ramp = slope * torch.arange(self.candidates, dtype=scores.dtype, device=scores.device)
        best = scores
        for _ in range(self.path):
            before = F.pad(best, (0, 0, 1, 0))[:, :-1]
            # The maximum over candidates minus the cost of a jump, which grows linearly with the distance, is one
            # running maximum upward and one downward.
            upward = (before + ramp).cummax(-1).values - ramp
            downward = (before.flip(-1) + ramp).cummax(-1).values - ramp
            best = scores + torch.maximum(upward, downward.flip(-1))
        return best

    def _refine(self, strengths: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """Position and strength `(batch, frames)` at the vertex of the parabola through the best candidate."""
        inner = best.clamp(1, self.candidates - 2)
        left, middle, right = (strengths.gather(-1, inner + i)[..., 0] for i in (-1, 0, 1))
        curvature = (2 * middle - left - right).clamp_min(torch.finfo(middle.dtype).tiny)
        offset = ((right - left) / (2 * curvature)).clamp(-0.5, 0.5)
        offset = torch.where(inner == best, offset[..., None], 0)[..., 0]
        position = (best[..., 0] + offset) * self.step - 1
        return position, strengths.gather(-1, best)[..., 0]
