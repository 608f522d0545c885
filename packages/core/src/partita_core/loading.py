"""Building models from untrusted files: checks of a config against its weights, before memory is allocated."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .configs import to_dict
from .errors import PartitaError, shorten
from .registry import Config

M = TypeVar("M", bound=nn.Module)

# Suffixes of pickle formats, which can execute code when loaded.
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})

# Allowance for tensors besides the weights, such as windows and tables; or the size of the weights if larger.
_EXTRA_BYTES = 1 << 28

# Allowance for torch calls while building, per tensor and besides; typical models take 2 to 5 per tensor.
_CALLS, _EXTRA_CALLS = 50, 2000

# Far above any width, count or length of a model; larger values could exhaust memory in plain Python.
_MAX_CONFIG_VALUE = 10**8


def check_folder(folder: Path, names: list[str], root: Path) -> None:
    """Check that a model folder holds no pickle, at any depth, and that files to be read lie within it.

    Links of huggingface_hub downloads, from `snapshots/REVISION` to `blobs`, are allowed.

    Args:
        folder: folder of the model, or of a model nested in it.
        names: files to be read; they need not exist.
        root: folder that the caller named, which contains `folder`.

    Raises:
        PartitaError: there is a pickle or a file outside; it is named.
    """
    try:
        held, own, root = sorted(folder.rglob("*")), folder.resolve(), root.resolve()
        targets = {name: (folder / name).resolve() for name in names}
    except (OSError, RuntimeError) as error:  # a loop of links is either
        raise PartitaError(f"cannot read {folder}: {error}") from None
    for path in held:
        if path.suffix.lower() in _PICKLES:
            raise PartitaError(
                f"{folder} holds {path.relative_to(folder)}, a pickle, which can execute code; remove it, or convert "
                "the weights to safetensors"
            )
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    for name, target in targets.items():
        if own not in target.parents and (blobs is None or target.parent != blobs):
            raise PartitaError(f"{folder / name} is a link out of the model folder, to {target}; replace it by a copy")


def build_for(
    weights: Mapping[str, Tensor], config: Config, build: Callable[[], Any], source: Any, *, kind: type[M]
) -> M:
    """Build a module to load weights into, after checking that they fit.

    The module is built on the meta device first, without memory, and compared with the weights.

    Args:
        weights: name, shape and dtype of each tensor, as `read_shapes` returns them.
        config: Config of the module.
        build: function that builds it.
        source: name of the model in messages.
        kind: expected type of the module.

    Raises:
        PartitaError: the module cannot be built, is of another type, does not fit the weights, or is far larger.
    """
    for value in tree_leaves(to_dict(config)):
        if isinstance(value, int) and abs(value) > _MAX_CONFIG_VALUE:
            number = shorten(str(value), 40)
            raise PartitaError(f"{source}: the config value {number} exceeds the maximum, {_MAX_CONFIG_VALUE}")
    size = sum(_bytes_in_memory(tensor) for tensor in weights.values())
    with _Budget(len(weights), size + _EXTRA_BYTES, source):
        shell = build_shell(weights, build, source, kind=kind)
    made = sum(tensor.nbytes for tensor in (*shell.parameters(), *shell.buffers()))
    if made > 2 * size + _EXTRA_BYTES:
        raise PartitaError(
            f"{source} describes a model of {made} bytes, but its weights have {size}; use the config of the weights"
        )
    with _described(source):
        module = build()
    assert isinstance(module, kind)
    return module


def _bytes_in_memory(tensor: Tensor) -> int:
    """Size of a tensor that is loaded; half-precision weights are cast to the dtype of the module."""
    return tensor.numel() * max(tensor.element_size(), 4 if tensor.is_floating_point() else 1)


def build_shell(weights: Mapping[str, Tensor], build: Callable[[], Any], source: Any, *, kind: type[M]) -> M:
    """Build a module on the meta device, without memory, and check that weights fit; see `build_for`.

    Raises:
        PartitaError: the module cannot be built, is of another type, or does not fit the weights.
    """
    with _described(source), torch.device("meta"):
        shell = build()
    if not isinstance(shell, kind):
        raise PartitaError(f"{source} is a {type(shell).__name__}; a {kind.__name__} is expected")
    check_weights(shell.state_dict(), weights, source)
    return shell


@contextmanager
def limited_build(source: Any, *, max_tensors: int, max_bytes: int) -> Iterator[None]:
    """Context in which a module without weights at hand is built on the meta device, up to a maximum size.

    Args:
        source: name of the model in messages.
        max_tensors: maximum number of tensors.
        max_bytes: maximum size of a tensor.

    Raises:
        PartitaError: the module cannot be built, or is larger.
    """
    with _described(source), torch.device("meta"), _Budget(max_tensors, max_bytes, source):
        yield


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: Any) -> None:
    """Check names, shapes and dtypes of weights against the state of a module; floating-point types may differ.

    Raises:
        PartitaError: they do not fit; the first difference is named.
    """
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unexpected:
        example = f"{missing[0]} is missing" if missing else f"{shorten(unexpected[0])} is unexpected"
        count = f"{len(missing)} missing and {len(unexpected)} unexpected tensors"
        raise PartitaError(f"{source} holds weights of another model: {count}; {example}")
    for name, tensor in weights.items():
        expected = own[name]
        if tensor.shape != expected.shape:
            shapes = f"{name} is {shorten(str(tuple(tensor.shape)))}, expected {tuple(expected.shape)}"
            raise PartitaError(f"{source} holds weights of another model: {shapes}")
        if tensor.dtype != expected.dtype and not (tensor.is_floating_point() and expected.is_floating_point()):
            types = f"{name} is {tensor.dtype}, expected {expected.dtype}"
            raise PartitaError(f"{source} holds weights of another model: {types}")


@contextmanager
def _described(source: Any) -> Iterator[None]:
    """Convert any error of a build to a `PartitaError`, since it is caused by the config."""
    try:
        yield
    except PartitaError:
        raise
    except Exception as error:
        reason = shorten((str(error).splitlines() or [""])[0])
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise PartitaError(f"{source} describes a model that cannot be built ({reason})") from error


class _Budget(TorchDispatchMode):
    """Stop a build on the meta device that makes more tensors than the weights fill, before memory runs out."""

    def __init__(self, tensors: int, max_bytes: int, source: Any) -> None:
        super().__init__()
        self._calls, self._max_bytes, self._source = _EXTRA_CALLS + _CALLS * tensors, max_bytes, source

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would otherwise import its compiler, for seconds, to keep it out of `__torch_dispatch__`; in a build
        # nothing is compiled. Versions of torch without this method do so either way.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        self._calls -= any(tensor.is_meta for tensor in made)
        for tensor in made:
            if tensor.nbytes > self._max_bytes:
                shape = tuple(tensor.shape)
                raise PartitaError(
                    f"{self._source} describes a model with a tensor of {shape}, larger than all of its weights"
                )
        if self._calls < 0:
            raise PartitaError(f"{self._source} describes a model of far more parts than it has weights")
        return result
