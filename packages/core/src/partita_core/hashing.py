"""What a set of weights is called: the first 16 hex digits of a sha256."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor


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
