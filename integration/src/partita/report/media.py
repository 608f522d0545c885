"""Spectrogram images, and audio and images as data URIs."""

import base64
import io
from functools import cache
from typing import Literal

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from partita.evaluation.spectrograms import magnitudes

# Dynamic range of spectrograms in dB below the loudest point of the clip.
RANGE_DB = 80.0
# Largest difference of spectrograms in dB, in either direction.
DIFFERENCE_DB = 30.0


def audio_uri(audio: Tensor, sample_rate: int) -> str:
    """Data URI of audio `(channels, samples)` as 16-bit FLAC, clipped at full scale."""
    file = io.BytesIO()
    signal = audio.detach().to("cpu", torch.float32).clamp(-1, 1).T.numpy()
    soundfile.write(file, signal, sample_rate, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{_base64(file.getvalue())}"


def spectrogram(audio: Tensor, sample_rate: int, *, width: int = 720, height: int = 180) -> NDArray[np.float64]:
    """Spectrogram of `(channels, samples)` in dB, of the mean power of the channels.

    Rows are equal steps on the mel scale (HTK), from the highest frequency to the lowest; columns are equal steps in
    time. Each point is the maximum of its bins and frames, so that short and narrow events stay visible.

    Returns:
        `(height, width)`, in dB relative to a full-scale sine.
    """
    fft = 1 << max(6, round(np.log2(0.046 * sample_rate)))
    signal = audio.detach().to("cpu", torch.float64)
    hop = max(1, min(fft // 2, signal.shape[-1] // width))
    power = magnitudes(signal, fft, hop).square().mean(0)
    edges = _mel_edges(height + 1, sample_rate) / (sample_rate / 2) * (power.shape[0] - 1)
    rows = torch.stack([_band(power, low, high) for low, high in zip(edges[:-1], edges[1:])])
    columns = F.adaptive_max_pool1d(rows[None], width)[0]
    return (10 * columns.clamp_min(1e-20).log10()).flip(0).numpy()


def spectrogram_png(levels: NDArray[np.float64], top: float) -> bytes:
    """A spectrogram as PNG, colored from `top` dB down to `RANGE_DB` below it."""
    return _image((levels - top + RANGE_DB) / RANGE_DB, "levels")


def picture(png: bytes) -> NDArray[np.uint8]:
    """Decode a PNG to RGB values `(height, width, 3)`."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def image_uri(png: bytes) -> str:
    """Data URI of a PNG."""
    return f"data:image/png;base64,{_base64(png)}"


def difference_png(levels: NDArray[np.float64], original: NDArray[np.float64], top: float) -> bytes:
    """Difference of an estimate's spectrogram from the original's as PNG, up to `DIFFERENCE_DB` in either direction.

    Levels more than `RANGE_DB` below `top` are clamped in both, so that invisible differences are ignored.
    """
    floor = top - RANGE_DB
    difference = np.maximum(levels, floor) - np.maximum(original, floor)
    return _image(0.5 + difference / (2 * DIFFERENCE_DB), "differences")


def color_stops(scale: Literal["levels", "differences"], count: int = 9) -> list[str]:
    """Colors of a scale for its legend, from quiet to loud or from missing to added."""
    palette = np.frombuffer(_palette(scale), np.uint8).reshape(256, 3)
    picked = palette[np.linspace(0, 255, count).round().astype(int)]
    return ["#" + bytes(color).hex() for color in picked]


def frequency_marks(sample_rate: int) -> list[tuple[float, str]]:
    """Frequency marks of a spectrogram: relative height from the bottom in [0, 1], and label."""
    marks = [(0.2e3, "200 Hz"), (1e3, "1 kHz"), (2e3, "2"), (4e3, "4"), (8e3, "8"), (16e3, "16 kHz")]
    top = _mel(sample_rate / 2)
    return [(_mel(hertz) / top, label) for hertz, label in marks if _mel(hertz) / top < 0.97]


def _band(power: Tensor, low: float, high: float) -> Tensor:
    """Maximum power in the bins from `low` to `high`, interpolated if both lie between two bins."""
    first, last = int(np.ceil(low)), int(np.floor(high))
    if last > first:
        return power[first : last + 1].amax(0)
    center = (low + high) / 2
    under = min(int(center), power.shape[0] - 2)
    return torch.lerp(power[under], power[under + 1], center - under)


def _mel(hertz: float) -> float:
    return 2595 * float(np.log10(1 + hertz / 700))


def _mel_edges(count: int, sample_rate: int) -> NDArray[np.float64]:
    return 700 * (10 ** (np.linspace(0, _mel(sample_rate / 2), count) / 2595) - 1)


def _image(shade: NDArray[np.float64], scale: Literal["levels", "differences"]) -> bytes:
    """PNG of values from 0 to 1 in the colors of a scale."""
    from PIL import Image  # a dependency of matplotlib

    image = Image.fromarray((np.clip(shade, 0, 1) * 255).round().astype(np.uint8))
    image.putpalette(_palette(scale))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


@cache
def _palette(scale: Literal["levels", "differences"]) -> bytes:
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#b9e3ff", "#2f7fc4", "#0b0b0d", "#c4571f", "#ffdf9e"]  # blue is missing, orange is added
    found = colormaps["magma"] if scale == "levels" else LinearSegmentedColormap.from_list("differences", stops)
    return (found(np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
