"""Config of the codecs of transformers, by their original settings, so that they can be saved like native models."""

import json
from dataclasses import dataclass
from typing import Any, Self

from partita_core import Config, PartitaError, register, suggest

from ._common import ExternalCodec
from .dac import DacCodec
from .encodec import ChunkedEncodecCodec, EncodecCodec
from .mimi import MimiCodec

MODELS = {"dac": "DacModel", "encodec": "EncodecModel", "mimi": "MimiModel"}
"""Class of transformers by `model_type`."""

# Settings that describe how a model was saved and are not needed to build it.
_NOT_NEEDED = ("_name_or_path", "architectures", "dtype", "transformers_version")


@register("codec/transformers")
@dataclass(frozen=True)
class TransformersCodecConfig(Config):
    """A DacModel, EncodecModel or MimiModel by its original settings.

    Attributes:
        settings: settings of its configuration, as in transformers' `config.json`.
    """

    settings: dict[str, Any]

    @classmethod
    def of(cls, model: Any) -> Self:
        """Return the Config of a model."""
        settings = json.loads(json.dumps(model.config.to_dict()))
        return cls({key: value for key, value in settings.items() if key not in _NOT_NEEDED})

    def build(self) -> ExternalCodec:
        """Build the codec with untrained weights.

        Raises:
            PartitaError: transformers is not installed, or the settings are not those of a supported codec.
        """
        settings = dict(self.settings)
        kind = str(settings.pop("model_type", None))
        if kind not in MODELS:
            raise PartitaError(f"settings are those of a {kind} model; {suggest(kind, MODELS)}")
        try:
            import transformers
        except ImportError:
            raise PartitaError(f"{MODELS[kind]} is transformers': `pip install 'partita[interop]'`") from None
        config = transformers.AutoConfig.for_model(kind, **settings)
        codec = wrap_transformers(getattr(transformers, MODELS[kind])(config))
        assert codec is not None
        return codec

    @classmethod
    def example(cls) -> Self:
        """A tiny DacModel of hop 30."""
        sizes = {"encoder_hidden_size": 4, "decoder_hidden_size": 8, "n_codebooks": 3, "codebook_size": 16}
        rates = {"sampling_rate": 8000, "downsampling_ratios": [2, 15], "upsampling_ratios": [15, 2]}
        return cls({"model_type": "dac", "codebook_dim": 3} | sizes | rates)


def wrap_transformers(model: Any) -> ExternalCodec | None:
    """Adapt a loaded or built model; None if it is not a supported codec."""
    names = {cls.__name__ for cls in type(model).__mro__}
    if "DacModel" in names:
        codec = DacCodec(model)
    elif "MimiModel" in names:
        codec = MimiCodec(model)
    elif "EncodecModel" in names:
        codec = EncodecCodec(model) if model.config.chunk_length is None else ChunkedEncodecCodec(model)
    else:
        return None
    codec.config = TransformersCodecConfig.of(model)
    return codec
