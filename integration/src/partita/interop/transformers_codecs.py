"""The codecs of transformers as ours, and by their own settings, so that they are saved as models of ours are."""

import json
from dataclasses import dataclass
from typing import Any, Self

from partita_core import Config, PartitaError, register, suggest

from ._common import ExternalCodec
from .dac import DacCodec
from .encodec import ChunkedEncodecCodec, EncodecCodec
from .mimi import MimiCodec

MODELS = {"dac": "DacModel", "encodec": "EncodecModel", "mimi": "MimiModel"}
"""The class of transformers, by what its configuration calls it."""

# Of where and with what a model was saved, which building it does not take.
_CIRCUMSTANCES = ("_name_or_path", "architectures", "dtype", "transformers_version")


@register("codec/transformers")
@dataclass(frozen=True)
class TransformersCodecConfig(Config):
    """A DacModel, EncodecModel or MimiModel by its own settings.

    Attributes:
        settings: of its configuration, as transformers' `config.json` has them.
    """

    settings: dict[str, Any]

    @classmethod
    def of(cls, model: Any) -> Self:
        """The settings of a model."""
        settings = json.loads(json.dumps(model.config.to_dict()))
        return cls({key: value for key, value in settings.items() if key not in _CIRCUMSTANCES})

    def build(self) -> ExternalCodec:
        """Builds it, with weights that nobody has trained.

        Raises:
            PartitaError: transformers is not installed, or the settings are of no codec that is known here.
        """
        settings = dict(self.settings)
        kind = str(settings.pop("model_type", None))
        if kind not in MODELS:
            raise PartitaError(f"settings of a {kind} model: {suggest(kind, MODELS)}")
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
        """A DacModel of hop 30."""
        sizes = {"encoder_hidden_size": 4, "decoder_hidden_size": 8, "n_codebooks": 3, "codebook_size": 16}
        rates = {"sampling_rate": 8000, "downsampling_ratios": [2, 15], "upsampling_ratios": [15, 2]}
        return cls({"model_type": "dac", "codebook_dim": 3} | sizes | rates)


def wrap_transformers(model: Any) -> ExternalCodec | None:
    """A loaded or built model as one of ours; None if it is no codec that is known here."""
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
