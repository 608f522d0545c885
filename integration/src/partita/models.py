"""Models by name: a model folder, a checkpoint of a run, or a repository on the hub."""

from pathlib import Path

from partita_core import Codec, PartitaError, Quantizer, Saved, from_dict, read_json

from .quantized import attach_quantizer

FOREIGN = "hf:"
"""What a name begins with where the model is one of diffusers or transformers; see `partita.interop`."""


def load_codec(name: str | Path) -> Codec:
    """The codec that is called `name`, in eval mode.

    Args:
        name: a model folder, `RUN/checkpoints/step_...` of a run (with its averaged weights), or a repository on
            the hub; behind `hf:`, a folder or repository of diffusers' or transformers'.

    Raises:
        PartitaError: there is none; see `Saved.from_pretrained` and `from_foreign`.
    """
    if str(name).startswith(FOREIGN):
        from .interop import from_foreign

        return from_foreign(str(name).removeprefix(FOREIGN))
    path = Path(name)
    if (path / "objective.safetensors").is_file():
        return _load_checkpoint(path)
    model = Saved.from_pretrained(name)
    if not isinstance(model, Codec):
        raise PartitaError(f"{name} holds a {type(model).__name__}, which is no codec")
    return model


def _load_checkpoint(path: Path) -> Codec:
    from partita.training import RunConfig, RunFolder
    from partita.training.checkpoints import load_model

    run = RunFolder(path.resolve().parent.parent)
    config = from_dict(RunConfig, read_json(run.config).get("config"), where=str(run.config))
    codec = None if config.codec is None else load_codec(config.codec)
    model = config.model.build() if codec is None else config.model.build(dim=codec.latent_spec.dim)
    load_model(path, model)
    if codec is not None:
        assert isinstance(model, Quantizer)
        model = attach_quantizer(codec, model).eval()
    assert isinstance(model, Codec)
    return model
