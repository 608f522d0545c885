"""Fused CPU kernels for the stem and stages of an early-downsampling separable encoder: inference in float32.

The kernels process channels-last tiles of time that stay in the cache: the stem, its activation and the first strided
convolution are one pass over the audio, a residual unit is one pass over its input. A strided convolution of kernel
2 * stride is two matrix products on its input in place, one per half of the kernel.
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

_TAPS = 7  # kernel size of the stem and of residual units
_WORKSPACE = 2**28  # maximum bytes of activations per call; larger batches are split into groups


class FusedStages:
    """Callable that computes `stages(stem(audio))` with fused kernels, equal to it within 1e-4 of the RMS in float32.

    The modules keep their weights. Copies in the memory layout of the kernels are made at the first call, and again
    when the weights have changed; they are not copied or pickled along.
    """

    def __init__(self, stem: nn.Conv1d, stages: nn.ModuleList, *, bf16: bool) -> None:
        """See `fuse_stages`, which checks the modules; `bf16` concerns the operands of matrix products only."""
        self.stem, self.stages, self.bf16 = stem, stages, bf16
        self.hop = prod(stage.stride for stage in _down_stages(stages))
        self._modules = [
            *stem.modules(),
            *stages.modules(),
        ]  # walking the tree at each call would take a millisecond
        self._packed: Packed | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}

    def serves(self, audio: Tensor) -> bool:
        """True if the kernels support this call: float32 on the CPU, multiples of the hop, no gradients or tracing."""
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
        if traced or torch.is_grad_enabled() or kernels() is None or not self._takes(audio):
            return False
        packed = self._packed is not None and self._packed.state == self._state()
        return packed or all(map(_is_plain, self._parameters()))

    def __call__(self, audio: Tensor, *, side: Tensor | None = None, side_stage: int = 0) -> Tensor:
        """Map audio `(batch, channels, hop * frames)` to `(batch, out_channels, frames)`.

        Args:
            audio: audio for which `serves` is true.
            side: tensor `(batch, channels, length)` to add to the output of stage `side_stage`; or None.
            side_stage: number of stages before `side` is added.

        Raises:
            PartitaError: the kernels do not support the audio, or the weights as they are now.
        """
        if not self._takes(audio):
            wanted = f"float32 (batch, {self.stem.in_channels}, {self.hop} * frames) on the CPU"
            raise PartitaError(f"audio is {audio.dtype} {tuple(audio.shape)}; the fused kernels need {wanted}")
        packed = self._pack()
        group = max(1, _WORKSPACE // packed.bytes_of_item(audio.shape[-1]))
        sides = [None] * len(audio) if side is None else side.split(group)
        pieces = [packed.run(x, extra, side_stage) for x, extra in zip(audio.contiguous().split(group), sides)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _takes(self, audio: Tensor) -> bool:
        fits = audio.dim() == 3 and audio.shape[1] == self.stem.in_channels and audio.shape[2] % self.hop == 0
        return type(audio) is Tensor and _is_plain(audio) and fits and audio.numel() > 0

    def _parameters(self) -> Iterator[nn.Parameter]:
        for module in self._modules:
            yield from (p for p in module._parameters.values() if p is not None)

    def _state(self) -> Any:
        """Fingerprint of the weights: in-place changes alter the version, replaced tensors the address."""
        try:
            return [(p.data_ptr(), p._version) for p in self._parameters()]
        except RuntimeError:  # tensors created in inference mode have no version
            return [p.data_ptr() for p in self._parameters()]

    def _pack(self) -> "Packed":
        state = self._state()
        if self._packed is None or self._packed.state != state:
            library = kernels()
            if library is None or not all(map(_is_plain, self._parameters())):
                raise PartitaError(
                    "the fused kernels are unavailable, or the weights are not float32 on the CPU; call the modules"
                )
            self._packed = Packed(library, self.stem, _down_stages(self.stages), bf16=self.bf16, state=state)
        return self._packed


def fuse_stages(stem: nn.Module, stages: nn.ModuleList, *, precision: Precision) -> FusedStages | None:
    """Fused kernels for `stages(stem(audio))`, if they support these layers on this machine.

    Args:
        stem: convolution of kernel 7; all weights are float32 on the CPU.
        stages: list of `DownStage`, early and separable, of kernel 7, with SnakeLite.
        precision: "bf16" rounds the operands of matrix products to bfloat16 on CPUs with instructions for them; sums,
            activations and everything else stay in float32.

    Returns:
        The fused form, or None if the layers are not supported or there are no kernels (see `why_no_kernels`).

    Raises:
        PartitaError: the precision is neither "float32" nor "bf16".

    Example:
        >>> settings = {"dilations": (1, 3, 9), "kernel": 7, "separable": True, "early": True, "activation": SnakeLite}
        >>> stem, stages = nn.Conv1d(2, 16, 7, padding=3), nn.ModuleList(down_stages((16, 32), (6,), **settings))
        >>> fused, audio = fuse_stages(stem, stages, precision="float32"), torch.randn(1, 2, 600)
        >>> with torch.no_grad():
        ...     y = fused(audio) if fused is not None and fused.serves(audio) else stages[0](stem(audio))
    """
    if precision not in ("float32", "bf16"):
        raise PartitaError(f"precision is {precision!r}; the fused kernels compute in 'float32' or 'bf16'")
    fit = _is_conv(stem, kernel=_TAPS) and len(stages) > 0 and all(map(_is_fit, stages))
    fit = fit and all(map(_is_plain, [*stem.parameters(), *stages.parameters()]))
    library = kernels() if fit else None
    if library is None:
        return None
    return FusedStages(cast(nn.Conv1d, stem), stages, bf16=precision == "bf16" and bool(library.partita_has_bf16()))


# ---------------------------------------------------------------------- layers that the kernels support


def _is_fit(stage: nn.Module) -> bool:
    if not isinstance(stage, DownStage) or not stage.early or stage.stride == 1:  # stride 1 adds a frame
        return False
    units = all(isinstance(unit, ResidualUnit) and _is_fit_unit(unit) for unit in stage.units)
    return units and isinstance(stage.down[0], SnakeLite)


def _is_fit_unit(unit: ResidualUnit) -> bool:
    if len(unit.layers) != 5 or unit.kernel != _TAPS:  # a unit that is not separable has four
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
