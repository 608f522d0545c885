"""Building what a file describes, and trusting it no further than its weights reach."""

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

# What pickles are called; opening one runs what it says.
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})

# What a model may make beside its weights, as windows and tables: this many bytes, or as many as its weights take.
_FREE_BYTES = 1 << 28

# Calls of torch that building takes, for each tensor and beside them; ours take 2 to 5 a tensor.
_CALLS, _FREE_CALLS = 50, 2000

# No width, count or length of a model comes near to it; Python alone would fill the memory with more.
_MOST = 10**8


def check_folder(folder: Path, names: list[str], root: Path) -> None:
    """Refuses a model folder with a pickle in it, however deep, or one of which something to be read lies elsewhere.

    Links of a download of huggingface_hub lead from `snapshots/REVISION` to `blobs`, and are let be.

    Args:
        folder: of the model, or of one that it is built on.
        names: what is to be read in it, as far as it is there.
        root: the folder that was named, which `folder` lies in.

    Raises:
        PartitaError: so it is; the file is named.
    """
    try:
        held, own, root = sorted(folder.rglob("*")), folder.resolve(), root.resolve()
        targets = {name: (folder / name).resolve() for name in names}
    except (OSError, RuntimeError) as error:  # a loop of links is either
        raise PartitaError(f"cannot read {folder}: {error}") from None
    for path in held:
        if path.suffix.lower() in _PICKLES:
            raise PartitaError(
                f"{folder} holds {path.relative_to(folder)}, a pickle, which can run code; models are read from "
                "safetensors only: remove it, or convert the weights"
            )
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    for name, target in targets.items():
        if own not in target.parents and (blobs is None or target.parent != blobs):
            raise PartitaError(f"{folder / name} leads out of the model folder, to {target}; put a copy in its place")


def build_for(
    weights: Mapping[str, Tensor], config: Config, build: Callable[[], Any], source: Any, *, kind: type[M]
) -> M:
    """Builds a module that weights are to be loaded into, once it is known that they fit.

    It is built on the meta device first, which takes no memory and little time, and held against the weights.

    Args:
        weights: name, shape and dtype of each, as `read_shapes` has them.
        config: says what is built.
        build: builds it.
        source: what the weights are of, for messages.
        kind: what it must be.

    Raises:
        PartitaError: it cannot be built, is of another kind, or is not of these weights, or out of proportion to them.
    """
    for value in tree_leaves(to_dict(config)):
        if isinstance(value, int) and abs(value) > _MOST:
            figure = shorten(str(value), 40)
            raise PartitaError(f"{source} describes a model with a figure of {figure}; {_MOST} is the most there is")
    size = sum(tensor.nbytes for tensor in weights.values())
    with _Budget(len(weights), size + _FREE_BYTES, source):
        shell = build_shell(weights, build, source, kind=kind)
    made = sum(tensor.nbytes for tensor in (*shell.parameters(), *shell.buffers()))
    if made > 2 * size + _FREE_BYTES:
        raise PartitaError(f"{source} describes a model of {made} bytes, and holds weights of {size}")
    with _described(source):
        module = build()
    assert isinstance(module, kind)
    return module


def build_shell(weights: Mapping[str, Tensor], build: Callable[[], Any], source: Any, *, kind: type[M]) -> M:
    """Build a module on the meta device, which takes no memory, and hold it against weights; see `build_for`.

    Raises:
        PartitaError: it cannot be built, is of another kind, or is not of these weights.
    """
    with _described(source), torch.device("meta"):
        shell = build()
    if not isinstance(shell, kind):
        raise PartitaError(f"{source} holds a {type(shell).__name__}, not a {kind.__name__}")
    check_weights(shell.state_dict(), weights, source)
    return shell


@contextmanager
def limited_build(source: Any, *, max_tensors: int, max_bytes: int) -> Iterator[None]:
    """Build within on the meta device, as `build_for` does, a module whose weights are not at hand.

    Args:
        source: name of the model in messages.
        max_tensors: tensors of the largest model that is expected.
        max_bytes: bytes of its largest tensor.

    Raises:
        PartitaError: it cannot be built, or is larger.
    """
    with _described(source), torch.device("meta"), _Budget(max_tensors, max_bytes, source):
        yield


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: Any) -> None:
    """Holds weights against the state of a module: names, shapes and types; floating types may differ.

    Raises:
        PartitaError: they do not fit; the first is named.
    """
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unexpected:
        example = f"no {missing[0]}" if missing else f"a stray {shorten(unexpected[0])}"
        count = f"{len(missing)} missing and {len(unexpected)} unexpected tensors"
        raise PartitaError(f"{source} holds the weights of another model: {count}, first {example}")
    for name, tensor in weights.items():
        expected = own[name]
        if tensor.shape != expected.shape:
            shapes = f"{name} is {shorten(str(tuple(tensor.shape)))}, expected {tuple(expected.shape)}"
            raise PartitaError(f"{source} holds the weights of another model: {shapes}")
        if tensor.dtype != expected.dtype and not (tensor.is_floating_point() and expected.is_floating_point()):
            types = f"{name} is {tensor.dtype}, expected {expected.dtype}"
            raise PartitaError(f"{source} holds the weights of another model: {types}")


@contextmanager
def _described(source: Any) -> Iterator[None]:
    """Whatever a build raises is the fault of the figures that it was given; the cause is kept."""
    try:
        yield
    except PartitaError:
        raise
    except Exception as error:
        reason = shorten((str(error).splitlines() or [""])[0])
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise PartitaError(f"{source} describes a model that cannot be built ({reason})") from error


class _Budget(TorchDispatchMode):
    """Ends a build on the meta device that makes more than weights could fill, before Python runs out of memory."""

    def __init__(self, tensors: int, most_bytes: int, source: Any) -> None:
        super().__init__()
        self._calls, self._most_bytes, self._source = _FREE_CALLS + _CALLS * tensors, most_bytes, source

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        self._calls -= any(tensor.is_meta for tensor in made)
        for tensor in made:
            if tensor.nbytes > self._most_bytes:
                shape = tuple(tensor.shape)
                raise PartitaError(f"{self._source} describes a model with a tensor of {shape}, and weights for none")
        if self._calls < 0:
            raise PartitaError(f"{self._source} describes a model of far more parts than it has weights for")
        return result
