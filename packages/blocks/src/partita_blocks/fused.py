"""Stem and stages of an early-downsampling separable encoder as fused kernels on a CPU: inference in float32.

The kernels work channels-last, in tiles of time that stay in the cache: the stem, its activation and the first strided
convolution are one pass over the audio, a residual unit is one pass over its input. A strided convolution of kernel
2 * stride is two matrix products on its input as it lies, one for each half of the kernel.
"""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, cast

import torch
from partita_core import PartitaError, Precision
from torch import Tensor, nn

from ._packed import Packed
from .activations import SnakeLite
from .convolutions import DownStage, ResidualUnit
from .native import kernels

_TAPS = 7  # of the stem and of residual units
_WORKSPACE = 2**28  # bytes; a batch whose activations take more goes through the kernels in groups


class FusedStages:
    """`stages(stem(audio))` by fused kernels, equal to it within 1e-4 of the RMS in float32.

    The modules stay where they are and keep their weights. Copies of these in the order that the kernels read are made
    at the first call, and again when the weights have changed; they are neither copied nor pickled.
    """

    def __init__(self, stem: nn.Conv1d, stages: nn.ModuleList, *, bf16: bool) -> None:
        """Takes modules that `fuse_stages` has found fit; `bf16` is for operands of matrix products only."""
        self.stem, self.stages, self.bf16 = stem, stages, bf16
        self.hop = prod(stage.stride for stage in _down_stages(stages))
        self._modules = [
            *stem.modules(),
            *stages.modules(),
        ]  # a list: walking the tree at each call takes a millisecond
        self._packed: Packed | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}

    def serves(self, audio: Tensor) -> bool:
        """Whether this call can take the kernels: float32 on the CPU, whole hops, gradients off, no tracing."""
        watched = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
        if watched or torch.is_grad_enabled() or kernels() is None or not self._takes(audio):
            return False
        known = self._packed is not None and self._packed.state == self._state()
        return known or all(map(_is_plain, self._parameters()))

    def __call__(self, audio: Tensor, *, side: Tensor | None = None, side_stage: int = 0) -> Tensor:
        """Maps `(batch, channels, hop * frames)` to `(batch, out_channels, frames)`.

        Args:
            audio: for which `serves` is true.
            side: added to what the first `side_stage` stages make, `(batch, channels, length)`; or None.
            side_stage: see `side`.

        Raises:
            PartitaError: the audio, or what has become of the weights, is not for these kernels.
        """
        if not self._takes(audio):
            wanted = f"float32 (batch, {self.stem.in_channels}, {self.hop} * frames) on the CPU"
            raise PartitaError(f"audio is {audio.dtype} {tuple(audio.shape)}; the fused kernels take {wanted}")
        packed = self._pack()
        group = max(1, _WORKSPACE // packed.bytes_of_item(audio.shape[-1]))
        sides = [None] * len(audio) if side is None else side.split(group)
        pieces = [packed.run(x, extra, side_stage) for x, extra in zip(audio.contiguous().split(group), sides)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _takes(self, audio: Tensor) -> bool:
        whole = audio.dim() == 3 and audio.shape[1] == self.stem.in_channels and audio.shape[2] % self.hop == 0
        return type(audio) is Tensor and _is_plain(audio) and whole and audio.numel() > 0

    def _parameters(self) -> Iterator[nn.Parameter]:
        for module in self._modules:
            yield from (p for p in module._parameters.values() if p is not None)

    def _state(self) -> Any:
        """What tells whether weights have changed: in place moves the version, a replaced tensor the address."""
        try:
            return [(p.data_ptr(), p._version) for p in self._parameters()]
        except RuntimeError:  # made in inference mode, they have no version
            return [p.data_ptr() for p in self._parameters()]

    def _pack(self) -> "Packed":
        state = self._state()
        if self._packed is None or self._packed.state != state:
            library = kernels()
            if library is None or not all(map(_is_plain, self._parameters())):
                raise PartitaError("the fused kernels are not there, or the weights are not in float32 on the CPU")
            self._packed = Packed(library, self.stem, _down_stages(self.stages), bf16=self.bf16, state=state)
        return self._packed


def fuse_stages(stem: nn.Module, stages: nn.ModuleList, *, precision: Precision) -> FusedStages | None:
    """`stages(stem(audio))` by fused kernels, if there are any for these layers on this machine.

    Args:
        stem: a convolution of kernel 7, in float32 on the CPU, as all weights.
        stages: of `DownStage`, early and separable, of kernel 7, with SnakeLite.
        precision: "bf16" rounds the operands of matrix products to bfloat16 where the CPU multiplies these, and
            changes nothing elsewhere; sums, activations and all else stay in float32.

    Returns:
        The fused form, or None where the layers are others or there are no kernels; see `why_no_kernels`.

    Raises:
        PartitaError: another precision.
    """
    if precision not in ("float32", "bf16"):
        raise PartitaError(f"precision is {precision!r}; the fused kernels compute in 'float32' or 'bf16'")
    fit = _is_conv(stem, kernel=_TAPS) and len(stages) > 0 and all(map(_is_fit, stages))
    fit = fit and all(map(_is_plain, [*stem.parameters(), *stages.parameters()]))
    library = kernels() if fit else None
    if library is None:
        return None
    return FusedStages(cast(nn.Conv1d, stem), stages, bf16=precision == "bf16" and bool(library.partita_has_bf16()))


# ---------------------------------------------------------------------- which layers the kernels know


def _is_fit(stage: nn.Module) -> bool:
    if not isinstance(stage, DownStage) or not stage.early or stage.stride == 1:  # which makes one frame more
        return False
    units = all(isinstance(unit, ResidualUnit) and _is_fit_unit(unit) for unit in stage.units)
    return units and isinstance(stage.down[0], SnakeLite)


def _is_fit_unit(unit: ResidualUnit) -> bool:
    if len(unit.layers) != 5 or unit.kernel != _TAPS:  # a full one has four
        return False
    return isinstance(unit.layers[0], SnakeLite) and isinstance(unit.layers[3], SnakeLite)


def _is_conv(layer: nn.Module, *, kernel: int) -> bool:
    if not isinstance(layer, nn.Conv1d) or layer.groups != 1:
        return False
    shape = (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    return shape == ((kernel,), (1,), (1,), (kernel // 2,))


def _is_plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _down_stages(stages: Iterable[nn.Module]) -> list[DownStage]:
    return [cast(DownStage, stage) for stage in stages]
