"""Fingerprints of weights and of the latent spaces they define: 16 hex digits of a SHA-256."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Self

import torch
from torch import Tensor, nn

from .errors import PartitaError, short_repr
from .specs import LatentSpec


def uncompiled_state(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """State dict of a module with its original names; `torch.compile` inserts `_orig_mod.` into them."""
    state = module.state_dict(prefix=prefix, keep_vars=True)
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}


def unwrap_compiled(module: Any) -> Any:
    """The original of a module returned by `torch.compile`; any other module unchanged."""
    return getattr(module, "_orig_mod", module)


def weights_hash(tensors: Mapping[str, Tensor], description: Any = None) -> str:
    """Hash named tensors and a JSON-serializable description.

    Floating-point tensors are hashed as float32, so converting a model to a half type and back keeps its hash.
    """
    digest = sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))  # pyright: ignore
    return digest.hexdigest()[:16]


# Fingerprints that packages write have 16 characters.
_MAX_ID_LENGTH = 80


def check_ids(*ids: object) -> None:
    """Check identifiers of latent spaces and codes that come from a file or a caller.

    Raises:
        PartitaError: an identifier is neither None nor a short text of printable characters.
    """
    for name in ids:
        if name is not None and not (isinstance(name, str) and name.isprintable() and len(name) <= _MAX_ID_LENGTH):
            raise PartitaError(
                f"{short_repr(name)} is not an identifier of a latent space; use None or at most {_MAX_ID_LENGTH} "
                "printable characters"
            )


class _Stamp:
    """A fingerprint, and the state of the weights it was computed from."""

    def __init__(self, name: str, tensors: list[Tensor]) -> None:
        self.name, self._tensors, self._states = name, tensors, [_state(tensor) for tensor in tensors]

    def holds(self, tensors: list[Tensor]) -> bool:
        """Return True if these are the same tensors and none has been written to since."""
        same = len(tensors) == len(self._tensors) and all(a is b for a, b in zip(tensors, self._tensors))
        return same and self._states == [_state(tensor) for tensor in tensors]

    def __reduce__(self) -> Any:
        # A copied model keeps its fingerprint: its tensors are copied along, and their new state is recorded.
        return _Stamp, (self.name, self._tensors if self.holds(self._tensors) else [])


def _state(tensor: Tensor) -> tuple[int, int]:
    """Address and write count of a tensor; torch does not count writes to inference tensors."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class Fingerprinted(nn.Module):
    """A model whose latent space and codes are identified by a hash of the weights that produce them.

    Subclasses define which weights enter the hash, and which settings besides them. A fingerprint is valid for one
    state of the weights: replacing a tensor or writing to one invalidates it, by torch's own write count. `to`, `half`
    and `optimize` change only the representation of the weights and keep it. torch does not count writes through
    `.data`, so `train()` invalidates it too.
    """

    latent_spec: LatentSpec

    _stamps: Mapping[str, _Stamp] = {}
    _optimized = False

    @property
    def space_id(self) -> str:
        """Fingerprint of the latent space, a hash of the weights that produce values; saved with the model."""
        return self._fingerprint("space", self._hash_space)

    @property
    def codes_id(self) -> str | None:
        """Fingerprint of the quantizer's codes; None for a codec without codes."""
        if not self.latent_spec.codebook_sizes:
            return None
        return self._fingerprint("codes", self._hash_codes)

    def _space_weights(self) -> dict[str, Tensor]:
        """Weights that produce the values."""
        return uncompiled_state(self)

    def _space_facts(self) -> Any:
        """JSON-serializable settings that affect the values, besides the weights."""
        return None

    def _codes_weights(self) -> dict[str, Tensor]:
        """Weights that produce codes from the values."""
        return {}

    def _hash_space(self) -> str:
        return weights_hash(self._space_weights(), self._space_facts())

    def _hash_codes(self) -> str:
        return self.space_id

    def _fingerprint(self, what: str, compute: Callable[[], str]) -> str:
        tensors, stamp = self._hashed_weights(what), self._stamps.get(what)
        if stamp is None or not stamp.holds(tensors):
            stamp = _Stamp(compute(), tensors)
            self._stamps = {**self._stamps, what: stamp}
        return stamp.name

    def _hashed_weights(self, what: str) -> list[Tensor]:
        weights = list(self._space_weights().values())
        return weights if what == "space" else weights + list(self._codes_weights().values())

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training drops the fingerprints, since torch does not count every write of an optimizer."""
        if mode:
            self._stamps = {}
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with self._fingerprints_kept():
            return super()._apply(fn, recurse)

    @contextmanager
    def _fingerprints_kept(self) -> Iterator[None]:
        """Keep the valid fingerprints while the weights are moved, cast or folded."""
        names = {what: stamp.name for what, stamp in self._stamps.items() if stamp.holds(self._hashed_weights(what))}
        yield
        self._set_fingerprints(names)

    def _set_fingerprints(self, names: Mapping[str, str]) -> None:
        self._stamps = {what: _Stamp(name, self._hashed_weights(what)) for what, name in names.items()}

    def _ids(self) -> dict[str, str | None]:
        """The fingerprints, as stored in `config.json`."""
        return {"space_id": self.space_id, "codes_id": self.codes_id}

    def _restore_ids(self, facts: Mapping[str, Any]) -> None:
        """Restore the fingerprints stored in `config.json`."""
        space, codes = facts["space_id"], facts["codes_id"]
        check_ids(space, codes)
        self._set_fingerprints({what: name for what, name in (("space", space), ("codes", codes)) if name is not None})

    @contextmanager
    def _frozen_for_inference(self) -> Iterator[None]:
        """Freeze the weights for inference, with the fingerprints of the trained weights."""
        self.eval()
        _ = self.space_id, self.codes_id
        self.requires_grad_(False)
        with self._fingerprints_kept():
            yield
        self._optimized = True

    def _check_savable(self) -> None:
        if self._optimized:
            raise PartitaError("an optimized model cannot be saved; call save_pretrained() before optimize()")
