"""What a set of weights, and the latents that a model makes with it, are called: 16 hex digits of a sha256."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Self

import torch
from torch import Tensor, nn

from .errors import PartitaError
from .latents import check_ids
from .specs import LatentSpec


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


class Named(nn.Module):
    """A model whose latent space, and the codes on top of it, are called by the weights that make them.

    A class says what enters: `_hash_space` and `_hash_codes`. Names hold while the weights do: training and loading
    forget them; `to` and `half` do not, nor does `optimize`, after which a model cannot be saved.
    """

    latent_spec: LatentSpec

    _space_id: str | None = None
    _codes_id: str | None = None
    _optimized = False

    @property
    def space_id(self) -> str:
        """Names the latent space: a hash over what makes the values. Stored on saving, kept by `to` and `half`."""
        if self._space_id is not None:
            return self._space_id
        space_id = self._hash_space()
        if not self.training:
            self._space_id = space_id
        return space_id

    @property
    def codes_id(self) -> str | None:
        """Names the codes on top of it; None for a codec without them."""
        if not self.latent_spec.codebook_sizes:
            return None
        if self._codes_id is not None:
            return self._codes_id
        codes_id = self._hash_codes()
        if not self.training:
            self._codes_id = codes_id
        return codes_id

    def _hash_space(self) -> str:
        return weights_hash(self.state_dict())

    def _hash_codes(self) -> str:
        return self.space_id

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; training forgets what the latent space is called."""
        if mode:
            self._forget_ids()
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Loads weights, and forgets what the latent space was called."""
        self._forget_ids()
        return super().load_state_dict(*args, **kwargs)

    def _forget_ids(self) -> None:
        self._space_id = self._codes_id = None

    def _take_ids(self, facts: Mapping[str, Any]) -> None:
        """What a saved model says that its latent space and codes are called."""
        check_ids(facts["space_id"], facts["codes_id"])
        self._space_id, self._codes_id = facts["space_id"], facts["codes_id"]

    def _fix(self) -> None:
        self.eval()
        _ = self.space_id, self.codes_id  # named by the weights as they were trained
        self.requires_grad_(False)
        self._optimized = True

    def _check_savable(self) -> None:
        if self._optimized:
            raise PartitaError("an optimized model cannot be saved; save it before optimize()")
