"""Weights in the order that the kernels read, and calls of them; the structures are those of `kernels.cpp`."""

import ctypes
import threading
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import record_function

from .activations import SnakeLite
from .convolutions import DownStage, ResidualUnit

LANE = 16  # channels are padded to a multiple of it


class _SnakeFields(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_void_p), ("inverse", ctypes.c_void_p)]


class _MatrixFields(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)]


class _DownFields(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("stride", "channels_in", "channels_out", "audio")),
        ("stem", _MatrixFields),
        ("activation", _SnakeFields),
        ("convolution", _MatrixFields),
    ]


class _UnitFields(ctypes.Structure):
    _fields_ = [
        ("channels", ctypes.c_long),
        ("dilation", ctypes.c_long),
        ("first", _SnakeFields),
        ("taps", _MatrixFields),
        ("pointwise", _MatrixFields),
        ("second", _SnakeFields),
        ("last", _MatrixFields),
    ]


def _padded(channels: int) -> int:
    return -(-channels // LANE) * LANE


class Packed:
    """Packed weights of stem and stages, and the memory that activations lie in."""

    def __init__(
        self, library: ctypes.CDLL, stem: nn.Conv1d, stages: list[DownStage], *, bf16: bool, state: Any
    ) -> None:
        """Packs for `library`; `state` tells of which weights."""
        self.library, self.bf16, self.state = library, bf16, state
        self.panel = library.partita_panel()
        self._kept: list[Tensor] = []
        self.channels_out = 0
        self.layers: list[tuple[_DownFields, list[_UnitFields]]] = []
        for stage in stages:
            conv = cast(nn.Conv1d, stage.down[1])
            first = not self.layers
            down = _DownFields(
                stride=stage.stride,
                channels_in=_padded(conv.in_channels),
                channels_out=_padded(conv.out_channels),
                audio=stem.in_channels if first else 0,
                stem=self._matrix(stem, rows=stem.in_channels, bf16=False) if first else _MatrixFields(),
                activation=self._snake(stage.down[0]),
                convolution=self._matrix(conv, pieces=2),
            )
            self.layers.append((down, [self._unit(cast(ResidualUnit, unit)) for unit in stage.units]))
            self.channels_out = conv.out_channels
        self._local = threading.local()

    def bytes_of_item(self, length: int) -> int:
        """Memory that the widest activations of one item take."""
        sizes = []
        for down, _ in self.layers:
            length //= down.stride
            sizes.append(4 * length * down.channels_out)
        return max(sizes)

    def run(self, audio: Tensor, side: Tensor | None, side_stage: int) -> Tensor:
        """See `FusedStages`."""
        x, (batch, _, length) = audio, audio.shape
        buffers = self._buffers(batch * self.bytes_of_item(length) // 4)
        threads, bf16 = torch.get_num_threads(), int(self.bf16)
        for index, (down, units) in enumerate(self.layers, start=1):
            length //= down.stride
            y, other = (buffer[: batch * length * down.channels_out] for buffer in buffers)
            if y.data_ptr() == x.data_ptr():
                y, other = other, y
            arguments = (batch, length, threads, bf16)
            with record_function(f"partita::down_{index}"):
                self.library.partita_down(ctypes.byref(down), x.data_ptr(), y.data_ptr(), *arguments)
            x = y
            with record_function(f"partita::units_{index}"):
                for unit in units:
                    self.library.partita_unit(ctypes.byref(unit), x.data_ptr(), other.data_ptr(), *arguments)
                    x, other = other, x
            if side is not None and index == side_stage:
                x.view(batch, length, -1)[..., : side.shape[1]] += side.transpose(1, 2)
        return x.view(batch, length, -1)[..., : self.channels_out].transpose(1, 2).contiguous()

    def _buffers(self, floats: int) -> tuple[Tensor, Tensor]:
        """Two, which layers read and write in turn, kept from call to call: fresh pages are dear."""
        kept = getattr(self._local, "buffers", None)
        if kept is None or kept[0].numel() < floats:
            with torch.inference_mode(False):  # or they could not be written to outside of it
                empty = partial(torch.empty, floats, dtype=torch.float32, device="cpu")
                self._local.buffers = kept = (empty(), empty())
        return kept

    def _unit(self, unit: ResidualUnit) -> _UnitFields:
        first, depthwise, pointwise, second, last = unit.layers
        return _UnitFields(
            channels=_padded(cast(nn.Conv1d, last).out_channels),
            dilation=unit.dilation,
            first=self._snake(first),
            taps=self._matrix(depthwise, rows=1, packed=False),
            pointwise=self._matrix(pointwise),
            second=self._snake(second),
            last=self._matrix(last),
        )

    def _snake(self, layer: nn.Module) -> _SnakeFields:
        beta = cast(SnakeLite, layer).log_beta.detach().flatten().exp() + 1e-9
        return _SnakeFields(self._keep(_pad(beta / torch.pi)), self._keep(_pad(1 / beta)))

    def _matrix(
        self, layer: nn.Module, *, rows: int | None = None, pieces: int = 1, packed: bool = True, bf16: bool = True
    ) -> _MatrixFields:
        """Weight `(out, in, kernel)` as `pieces` matrices `(kernel * rows, out)` one behind the other, and the bias.

        `rows` is what one frame of the input has, `in` padded for most.
        """
        conv = cast(nn.Conv1d, layer)
        weight = _pad(conv.weight.detach().permute(2, 1, 0))
        rows = _padded(weight.shape[1]) if rows is None else rows
        matrix = F.pad(weight, (0, 0, 0, rows - weight.shape[1])).flatten(0, 1)
        if packed:
            bf16 = bf16 and self.bf16
            matrix = torch.cat([_panels(piece, self.panel, bf16=bf16) for piece in matrix.chunk(pieces)])
        bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        return _MatrixFields(self._keep(matrix), self._keep(_pad(bias)))

    def _keep(self, tensor: Tensor) -> int:
        """The address of the tensor's memory, which lives as long as this."""
        self._kept.append(tensor.contiguous().clone())
        return self._kept[-1].data_ptr()


def _pad(x: Tensor) -> Tensor:
    """Zeros behind the last axis, up to a multiple of the lane."""
    return F.pad(x, (0, -x.shape[-1] % LANE))


def _panels(matrix: Tensor, panel: int, *, bf16: bool) -> Tensor:
    """`(k, n)` as panels of columns one behind the other; in bf16 two neighbors along k lie together."""
    columns = matrix.split(panel, dim=1)
    if bf16:
        columns = [c.bfloat16().unflatten(0, (-1, 2)).transpose(1, 2) for c in columns]
    return torch.cat([c.flatten() for c in columns])
