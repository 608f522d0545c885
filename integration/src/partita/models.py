"""Models by name: a model folder, a checkpoint of a run, or a repository on the hub."""

from pathlib import Path

from partita_core import Autoencoder, Codec, from_dict, read_json


def load_codec(name: str | Path) -> Codec:
    """The codec that is called `name`, in eval mode.

    Args:
        name: a model folder, `RUN/checkpoints/step_...` of a run (with its averaged weights), or a repository on
            the hub.

    Raises:
        PartitaError: there is none; see `Saved.from_pretrained`.
    """
    path = Path(name)
    if (path / "objective.safetensors").is_file():
        return _load_checkpoint(path)
    return Autoencoder.from_pretrained(name)


def _load_checkpoint(path: Path) -> Codec:
    from partita.training import RunConfig, RunFolder
    from partita.training.checkpoints import load_model

    run = RunFolder(path.resolve().parent.parent)
    config = from_dict(RunConfig, read_json(run.config).get("config"), where=str(run.config))
    model = load_model(path, config.model)
    assert isinstance(model, Codec)
    return model
