"""Profile of the model of a recipe, computed without allocating its weights."""

from typing import Any

from partita_core import PartitaError
from torch._subclasses.fake_tensor import FakeTensorMode

from partita.model_profile import profile
from partita.training import RunConfig


def recipe_profile(config: RunConfig) -> dict[str, Any]:
    """Profile a model of any size on fake tensors, without allocating its weights.

    Raises:
        PartitaError: the model is built on a codec, or parts, layouts and objective do not go together.
    """
    if config.codec is not None:
        raise PartitaError(f"{config.model.tag} is built on the codec {config.codec}; profile a trained model instead")
    with FakeTensorMode():
        model = config.model.build()
        found = profile(model)
    config.objective.build(model=model)  # what fake tensors cannot build, such as filter banks, is small
    if config.data.augmentation is not None:
        config.data.augmentation.formats(model.audio_spec.layouts)
    return found
