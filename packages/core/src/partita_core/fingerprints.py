"""Names of a set of weights, and of the latents that a model makes with it: 16 hex digits of a sha256."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Self

import torch
from torch import Tensor, nn

from .errors import PartitaError
from .latents import check_ids
from .specs import LatentSpec


def uncompiled_state(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Weights of a module by the names that they have before `torch.compile`, which adds `_orig_mod.` to them."""
    state = module.state_dict(prefix=prefix, keep_vars=True)
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}


def unwrap_compiled(module: Any) -> Any:
    """The module that `torch.compile` was given, of what it returned; every other module as it is."""
    return getattr(module, "_orig_mod", module)


def weights_hash(tensors: Mapping[str, Tensor], description: Any = None) -> str:
    """A hash over named tensors and a description that JSON can hold.

    Floating values enter as float32, so that storing a model in another type and back keeps the name.
    """
    digest = sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))  # pyright: ignore
    return digest.hexdigest()[:16]


class _Stamp:
    """A name, and the state of the weights that have it."""

    def __init__(self, name: str, tensors: list[Tensor]) -> None:
        self.name, self._tensors, self._states = name, tensors, [_state(tensor) for tensor in tensors]

    def holds(self, tensors: list[Tensor]) -> bool:
        """Check that these are the tensors that had the name, and that nothing has been written to them since."""
        same = len(tensors) == len(self._tensors) and all(a is b for a, b in zip(tensors, self._tensors))
        return same and self._states == [_state(tensor) for tensor in tensors]

    def __reduce__(self) -> Any:
        # A copy of the model keeps the name: its tensors come along, and their state is taken anew.
        return _Stamp, (self.name, self._tensors if self.holds(self._tensors) else [])


def _state(tensor: Tensor) -> tuple[int, int]:
    """Place and number of writes of a tensor; torch does not count writes to inference tensors."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class Named(nn.Module):
    """A model whose latent space, and the codes on top of it, are named by the weights that make them.

    A class defines which weights those are, and which facts enter beside them. A name holds for one state of the
    weights: exchanging one ends it, and so does writing to one, by torch's own count. `to`, `half` and `optimize`
    change only the form of the weights, and keep the name. torch does not count writes through `.data`; `train()` ends
    the names for their sake.
    """

    latent_spec: LatentSpec

    _stamps: Mapping[str, _Stamp] = {}
    _optimized = False

    @property
    def space_id(self) -> str:
        """Name of the latent space: a hash over what makes the values. Stored on saving, kept by `to` and `half`."""
        return self._name("space", self._hash_space)

    @property
    def codes_id(self) -> str | None:
        """Name of the codes on top of it; None for a codec without them."""
        if not self.latent_spec.codebook_sizes:
            return None
        return self._name("codes", self._hash_codes)

    def _space_weights(self) -> dict[str, Tensor]:
        """Weights that make the values."""
        return uncompiled_state(self)

    def _space_facts(self) -> Any:
        """Facts that make the values beside the weights, as JSON can hold them."""
        return None

    def _codes_weights(self) -> dict[str, Tensor]:
        """Weights that make the codes of the values."""
        return {}

    def _hash_space(self) -> str:
        return weights_hash(self._space_weights(), self._space_facts())

    def _hash_codes(self) -> str:
        return self.space_id

    def _name(self, what: str, compute: Callable[[], str]) -> str:
        tensors, stamp = self._named_weights(what), self._stamps.get(what)
        if stamp is None or not stamp.holds(tensors):
            stamp = _Stamp(compute(), tensors)
            self._stamps = {**self._stamps, what: stamp}
        return stamp.name

    def _named_weights(self, what: str) -> list[Tensor]:
        weights = list(self._space_weights().values())
        return weights if what == "space" else weights + list(self._codes_weights().values())

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training ends the names, since an optimizer may write where torch does not count."""
        if mode:
            self._stamps = {}
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with self._names_kept():
            return super()._apply(fn, recurse)

    @contextmanager
    def _names_kept(self) -> Iterator[None]:
        """Keep the names that hold now while the weights are moved, cast or folded."""
        names = {what: stamp.name for what, stamp in self._stamps.items() if stamp.holds(self._named_weights(what))}
        yield
        self._take_names(names)

    def _take_names(self, names: Mapping[str, str]) -> None:
        self._stamps = {what: _Stamp(name, self._named_weights(what)) for what, name in names.items()}

    def _ids(self) -> dict[str, str | None]:
        """The names as a saved model holds them."""
        return {"space_id": self.space_id, "codes_id": self.codes_id}

    def _take_ids(self, facts: Mapping[str, Any]) -> None:
        """Take the names that a saved model holds."""
        space, codes = facts["space_id"], facts["codes_id"]
        check_ids(space, codes)
        self._take_names({what: name for what, name in (("space", space), ("codes", codes)) if name is not None})

    @contextmanager
    def _fixed(self) -> Iterator[None]:
        """Name the weights as they were trained, and keep the names of what inference makes of them."""
        self.eval()
        _ = self.space_id, self.codes_id
        self.requires_grad_(False)
        with self._names_kept():
            yield
        self._optimized = True

    def _check_savable(self) -> None:
        if self._optimized:
            raise PartitaError("an optimized model cannot be saved; save it before optimize()")
