"""Profile of the model of a recipe, without its weights."""

from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from partita.model_profile import profile
from partita.training import RunConfig


def recipe_profile(config: RunConfig) -> dict[str, Any]:
    """The figures of a model that is built of shapes alone: at once, and without its memory, whatever its size.

    Raises:
        PartitaError: the parts, the layouts and the objective do not go together.
    """
    with FakeTensorMode():
        model = config.model.build()
        found = profile(model)
    config.objective.build(model=model)  # what shapes alone cannot build, such as filter banks, is small
    if config.data.augmentation is not None:
        config.data.augmentation.formats(model.audio_spec.layouts)
    return found
