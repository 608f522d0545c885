import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from partita_core import (
    Autoencoder,
    Codec,
    Config,
    Frozen,
    PartitaError,
    Saved,
    from_dict,
    load_weights,
    measure_latents,
    outputs,
    read_json,
    read_tensors,
    register,
    registry,
    saving,
    write_json,
    write_tensors,
)
from partita_testing.dummies import BlockCodec, DenoisingConfig, RoundingConfig, autoencoder


@pytest.fixture
def model(tmp_path):
    codec = autoencoder(quantizer=RoundingConfig())
    codec.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder, change):
    facts = read_json(folder / "config.json")
    change(facts)
    write_json(folder / "config.json", facts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------ there and back


@pytest.mark.parametrize("changes", [{}, {"bottleneck": RoundingConfig(7)}, {"decoder": DenoisingConfig()}])
def test_saved_model_is_loaded(tmp_path, changes):
    codec = autoencoder(**changes)
    audio = 0.3 * torch.randn(2, 2, 100)
    codec.latent_spec = measure_latents(codec, [codec.encode(audio)])
    codec.save_pretrained(tmp_path / "model")
    for cls in (Autoencoder, Saved):
        back = cls.from_pretrained(str(tmp_path / "model"))
        assert type(back) is Autoencoder and not back.training
        assert (back.latent_spec, back.audio_spec) == (codec.latent_spec, codec.audio_spec)
        assert (back.space_id, back.codes_id) == (codec.space_id, codec.codes_id)
        latents = back.encode(audio)
        assert torch.equal(latents.values, codec.encode(audio).values)
        assert torch.equal(back.decode(latents), codec.decode(latents))


def test_saved_folder_has_expected_files(model):
    assert names(model) == ["README.md", "config.json", "model.safetensors"]
    facts = read_json(model / "config.json")
    assert set(facts) == {"schema", "model", "latent_spec", "space_id", "codes_id"}
    assert facts["schema"] == 2 and facts["model"]["type"] == "autoencoder"
    assert facts["model"]["quantizer"] == {"type": "quantizer/rounding", "levels": 5}
    tensors, _ = read_tensors(model / "model.safetensors")
    assert tensors.keys() == autoencoder(quantizer=RoundingConfig()).state_dict().keys()
    assert (model / "README.md").read_text().startswith("# Autoencoder\n")


def test_card_is_written(tmp_path):
    autoencoder().save_pretrained(tmp_path / "model", card="# Mine\n")
    assert (tmp_path / "model" / "README.md").read_text() == "# Mine\n"


def test_loaded_ids_are_the_stored_ones(model):
    """Stored ids stay valid after `half()` and for other versions of torch."""
    edit(model, lambda facts: facts.update(space_id="0123456789abcdef", codes_id="f" * 16))
    back = Autoencoder.from_pretrained(model)
    assert (back.space_id, back.half().codes_id) == ("0123456789abcdef", "f" * 16)


def test_further_trained_model_gets_a_new_space_id(model, tmp_path):
    codec = Autoencoder.from_pretrained(model)
    before = codec.space_id
    codec.train()
    with torch.no_grad():
        codec.encoder.layout.weight.add_(1)
    codec.save_pretrained(tmp_path / "tuned")
    assert codec.training
    tuned = Autoencoder.from_pretrained(tmp_path / "tuned")
    assert tuned.space_id == codec.space_id != before
    # Changed through `.data` in eval mode, which torch does not count: saving computes the hash again.
    codec.eval()
    with torch.no_grad():
        codec.encoder.layout.weight.add_(1)
    codec.save_pretrained(tmp_path / "again")
    assert Autoencoder.from_pretrained(tmp_path / "again").space_id == codec.space_id != tuned.space_id


def test_half_model_is_loaded_in_float32(tmp_path):
    codec = autoencoder().half()
    codec.save_pretrained(tmp_path / "model")
    back = Autoencoder.from_pretrained(tmp_path / "model")
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    assert torch.equal(back.encoder.layout.weight, codec.encoder.layout.weight.float())


@pytest.mark.slow
def test_another_process_computes_the_same_hash(model):
    code = (
        "import sys; from partita_core import Autoencoder; from partita_testing import dummies\n"
        "with dummies.registered(): print(Autoencoder.from_pretrained(sys.argv[1])._hash_space())"
    )
    out = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True).stdout
    assert out.strip() == Autoencoder.from_pretrained(model).space_id


# ------------------------------------------------------------------ whole or not at all


def test_saving_replaces_an_earlier_model_only(model):
    (model / "notes.txt").write_text("mine")
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_text("mine")
    other = autoencoder(seed=1)
    other.save_pretrained(model)
    assert names(model) == [".git", "README.md", "config.json", "model.safetensors", "notes.txt"]
    assert (model / "notes.txt").read_text() == (model / ".git" / "HEAD").read_text() == "mine"
    assert Autoencoder.from_pretrained(model).space_id == other.space_id


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_saving_over_foreign_files_raises(tmp_path, name):
    (tmp_path / "main.py").write_text("mine")
    autoencoder().save_pretrained(tmp_path)
    assert names(tmp_path) == ["README.md", "config.json", "main.py", "model.safetensors"]
    project = tmp_path / "project"
    project.mkdir()
    (project / name).write_text("{}")
    with pytest.raises(PartitaError, match=f"project holds a {name} that is not of a Partita model"):
        autoencoder().save_pretrained(project)
    assert names(project) == [name] and (project / name).read_text() == "{}"


def test_interrupted_save_is_completed_on_loading(model, monkeypatch):
    """The files are complete but not yet moved into place."""
    other = autoencoder(seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "finish_interrupted_write", lambda folder: None)
        other.save_pretrained(model)
    assert names(model) == [".partita-new", "README.md", "config.json", "model.safetensors"]
    assert Autoencoder.from_pretrained(model).space_id == other.space_id
    assert names(model) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("step", ["write_json", "write_tensors"])
def test_failed_save_keeps_the_earlier_model(model, monkeypatch, step):
    before = Autoencoder.from_pretrained(model).space_id

    def fail(path, *args):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, step, fail)
    with pytest.raises(PartitaError, match="cannot write .*model: No space left on device"):
        autoencoder(seed=1).save_pretrained(model)
    monkeypatch.undo()
    assert Autoencoder.from_pretrained(model).space_id == before
    assert names(model.parent) == ["model"]


def test_failed_save_leaves_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "write_tensors", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        autoencoder().save_pretrained(tmp_path / "model")
    assert names(tmp_path) == []


def test_saving_parts_without_a_config_raises(tmp_path):
    codec = autoencoder()
    del codec.decoder.config
    with pytest.raises(PartitaError, match="TransposedDecoder has no registered Config"):
        codec.save_pretrained(tmp_path / "model")
    assert names(tmp_path) == []


# ------------------------------------------------------------------ what is refused


def missing(name):
    return lambda folder: (folder / name).unlink()


def rewritten(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def edited(change):
    return lambda folder: edit(folder, change)


def of_another_model(folder):
    write_tensors(folder / "model.safetensors", autoencoder(bottleneck=RoundingConfig()).state_dict())


def wrong_shape(folder):
    tensors, _ = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", tensors | {"bottleneck.gain": torch.zeros(5, 1)})


@pytest.mark.parametrize(
    "damage, message",
    [
        (missing("config.json"), "cannot read .*config.json: No such file"),
        (missing("model.safetensors"), "no such file: .*model.safetensors"),
        (rewritten("config.json", b"{"), "config.json is not JSON"),
        (rewritten("config.json", b"[]"), "config.json is not the config of a Partita model"),
        (rewritten("model.safetensors", b"half"), "model.safetensors is not a safetensors file, or is damaged"),
        (rewritten("model.safetensors", pickle.dumps({"a": 1})), "is not a safetensors file, or is damaged"),
        (edited(lambda facts: facts.update(schema=1)), "config.json has schema 1,.* 2; train the model again"),
        (edited(lambda facts: facts.update(schema=3)), "config.json has schema 3,.* 2; update"),
        (edited(lambda facts: facts.update(schema="2")), "config.json is not the config of a Partita model"),
        (edited(lambda facts: facts.pop("schema")), "config.json is not the config of a Partita model"),
        (edited(lambda facts: facts.pop("model")), "model: expected a component with its type, got None"),
        (edited(lambda facts: facts.pop("space_id")), "config.json lacks .*Autoencoder"),
        (edited(lambda facts: facts.pop("latent_spec")), "config.json lacks .*Autoencoder"),
        (
            edited(lambda facts: facts["latent_spec"].update(hop=8)),
            "latent_spec.hop in config.json is 8.* 16",
        ),
        (
            edited(lambda facts: facts["model"].update(type="autoencodr")),
            "model: unknown component 'autoencodr'; did you mean autoencoder?",
        ),
        (
            edited(lambda facts: facts["model"]["encoder"].update(type="encoder/stridden")),
            r"model.encoder: unknown encoder 'encoder/stridden'; did you mean encoder/strided",
        ),
        (
            edited(lambda facts: facts["model"]["encoder"].update(token_per_frame=1)),
            "model.encoder: unknown key 'token_per_frame'; did you mean tokens_per_frame?",
        ),
        (
            of_another_model,
            "another model: 2 missing and 0 unexpected tensors.*bottleneck.",
        ),
        (wrong_shape, r"another model: bottleneck.gain is \(5, 1\), expected \(4, 1\)"),
    ],
)
def test_invalid_model_folder_raises(model, damage, message):
    damage(model)
    with pytest.raises(PartitaError, match=message) as caught:
        Autoencoder.from_pretrained(model)
    assert "\n" not in str(caught.value)


def test_model_of_another_class_raises(model):
    class Other(Saved):
        def saved_config(self):
            raise NotImplementedError

        def restore(self, facts):
            raise NotImplementedError

    with pytest.raises(PartitaError, match="model .*Autoencoder.*Other"):
        Other.from_pretrained(model)


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "/a/b", "a/b/c"])
def test_name_of_neither_folder_nor_repository_raises(name):
    with pytest.raises(PartitaError, match=f"no model folder '{name}'"):
        Autoencoder.from_pretrained(name)


# ------------------------------------------------------------------ the hub, of which nothing is reached here


def test_model_is_loaded_from_the_hub(model, monkeypatch):
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(model)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    back = Autoencoder.from_pretrained("somebody/tiny", revision="v1")
    assert back.space_id == Autoencoder.from_pretrained(model).space_id
    # Files that could be pickles are not downloaded.
    assert asked == [("somebody/tiny", "v1", ["*.json", "*.safetensors", "README.md"])]


def test_failed_hub_download_raises_one_line(monkeypatch):
    def snapshot_download(name, **kwargs):
        raise RuntimeError("404 not found\nlong explanation")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(PartitaError) as caught:
        Autoencoder.from_pretrained("somebody/tiny")
    assert str(caught.value) == "no model folder 'somebody/tiny', and loading it from the Hub failed: 404 not found"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PartitaError, match="install huggingface_hub"):
        Autoencoder.from_pretrained("somebody/tiny")


def test_push_to_hub_uploads_the_complete_model(tmp_path, monkeypatch):
    calls = []

    class HfApi:
        def __init__(self, token):
            calls.append(token)

        def create_repo(self, repo_id, *, private, exist_ok):
            calls.append((repo_id, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return f"address of {repo_id}"

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi))
    codec = autoencoder()
    assert codec.push_to_hub("somebody/tiny", private=True, token="secret") == "address of somebody/tiny"
    assert calls == ["secret", ("somebody/tiny", True, True)]
    assert Autoencoder.from_pretrained(tmp_path / "uploaded").space_id == codec.space_id


def test_only_saved_subclasses_can_be_saved():
    assert issubclass(Autoencoder, (Saved, Codec)) and not issubclass(BlockCodec, Saved)


def test_load_weights_loads_all_or_raises():
    codec = autoencoder()
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    stray = {name: tensor + 1 for name, tensor in before.items()} | {"stray": torch.zeros(1)}
    with pytest.raises(PartitaError, match="weights .*another model: 0 missing and 1 unexpected"):
        load_weights(codec, stray, "weights")
    assert all(torch.equal(tensor, before[name]) for name, tensor in codec.state_dict().items())


def test_config_of_a_saved_model_builds_it(model):
    from partita_core import AutoencoderConfig

    config = from_dict(AutoencoderConfig, json.loads((model / "config.json").read_text())["model"])
    assert config.build().latent_spec.codebook_sizes == (5,) * 4


# ------------------------------------------------------------------ models on top of other models


@register("testing/pair")
@dataclass(frozen=True)
class PairConfig(Config):
    """A gain and two nested models, one of them optional."""

    width: int = 3

    def build(self, *, first, second=None):
        return Pair(first, second, self.width)

    @classmethod
    def example(cls):
        return cls()


class Pair(Saved):
    def __init__(self, first, second, width):
        super().__init__()
        self.first, self.second = Frozen(first), None if second is None else Frozen(second)
        self.gain = torch.nn.Parameter(torch.randn(width))

    def saved_config(self):
        return self.config, {"space_id": self.first.module.space_id}

    def restore(self, facts):
        assert self.first.module.space_id == facts["space_id"]

    def nested(self):
        models = {"first": self.first, "second": self.second}
        return {name: frozen.module for name, frozen in models.items() if frozen is not None}


del registry._registry[PairConfig.tag]  # not visible to other tests


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._registry, PairConfig.tag, PairConfig)
    model = PairConfig(4).build(first=autoencoder(quantizer=RoundingConfig()), second=autoencoder(seed=1))
    model.save_pretrained(tmp_path / "pair")
    return model


def test_nested_models_are_saved_in_subfolders(pair, tmp_path):
    folder = tmp_path / "pair"
    assert names(folder) == ["README.md", "config.json", "first", "model.safetensors", "second"]
    assert read_json(folder / "config.json")["nested"] == ["first", "second"]
    assert read_tensors(folder / "model.safetensors")[0].keys() == {"gain"}
    back = Saved.from_pretrained(folder)
    assert type(back) is Pair and torch.equal(back.gain, pair.gain)
    audio = 0.3 * torch.randn(1, 2, 100)
    for name in ("first", "second"):
        one, other = getattr(back, name).module, getattr(pair, name).module
        assert (one.space_id, one.codes_id) == (other.space_id, other.codes_id)
        assert torch.equal(one.encode(audio).values, other.encode(audio).values)
        assert Autoencoder.from_pretrained(folder / name).space_id == other.space_id
    # Save again, over the existing files.
    PairConfig().build(first=pair.first.module).save_pretrained(folder)
    assert names(folder) == ["README.md", "config.json", "first", "model.safetensors"]
    assert Saved.from_pretrained(folder).second is None


def test_nested_models_are_written_all_or_none(pair, tmp_path):
    del pair.second.module.decoder.config
    pair.gain.data.zero_()
    with pytest.raises(PartitaError, match="TransposedDecoder has no registered Config"):
        pair.save_pretrained(tmp_path / "pair")
    assert Saved.from_pretrained(tmp_path / "pair").gain.any() and names(tmp_path) == ["pair"]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: shutil.rmtree(folder / "first"), "pair lacks the folder 'first'"),
        (edited(lambda facts: facts.update(nested="first")), "config.json: nested is 'first'"),
        (edited(lambda facts: facts.update(nested=[1])), r"config.json: nested is \[1\]"),
        (edited(lambda facts: facts.pop("nested")), "testing/pair is built on first, second.*config.json names none"),
        (edited(lambda facts: facts.update(nested=["second"])), "config.json names second"),
        (edited(lambda facts: facts.update(nested=["first", "../x"])), r"config.json names first, \.\./x"),
        (lambda folder: edit(folder / "first", lambda facts: facts.pop("model")), "expected a component"),
        (lambda folder: (folder / "second" / "model.safetensors").unlink(), "no such file: .*second/model.safetensors"),
    ],
)
def test_invalid_nested_models_raise(pair, tmp_path, damage, message):
    damage(tmp_path / "pair")
    with pytest.raises(PartitaError, match=message) as caught:
        Saved.from_pretrained(tmp_path / "pair")
    assert "\n" not in str(caught.value)


def test_unexpected_nested_model_raises(model):
    edit(model, lambda facts: facts.update(nested=["codec"]))
    with pytest.raises(PartitaError, match="autoencoder .*no other model.*config.json names codec"):
        Saved.from_pretrained(model)


def test_folder_of_a_part_raises(model):
    edit(model, lambda facts: facts.update(model=facts["model"]["bottleneck"]))
    with pytest.raises(PartitaError, match="bottleneck/noisy is built on dim.*config.json names none"):
        Saved.from_pretrained(model)
