"""Training of generators with the trainer and on the command line, on audio and on stored latents."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch
from partita import recipes
from partita.data import DataConfig
from partita.data.texts import TextTask
from partita.generation import FlowHeadConfig, Generator, GeneratorConfig, LlamaBackboneConfig, TokenHeadConfig
from partita.model_loading import load_model
from partita.objectives import LatentGenerationConfig
from partita.training import AdamWConfig, Constant, RunConfig, TrainerConfig, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita_core import Autoencoder, Latents, PartitaError, override, read_tensors
from partita_quantizers import ResidualVQConfig

TEXTS = (TextTask(prompt="", answer="{label}"),)


def generation(codec, *, head=None, **trainer) -> RunConfig:
    adamw = AdamWConfig(lr=1e-2, schedule=Constant())
    settings = {"steps": 4, "log_every": 1, "evaluate_seconds": 1.0, "ema_decay": 0.5, **trainer}
    return RunConfig(
        codec=str(codec),
        model=GeneratorConfig(head or FlowHeadConfig.example(), LlamaBackboneConfig.example(), stop=True),
        objective=LatentGenerationConfig(),
        data=DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0, augmentation=None, texts=TEXTS),
        trainer=TrainerConfig(optimizers={"generator": adamw}, **settings),
    )


@pytest.fixture(scope="module")
def labeled(tones, tmp_path_factory):
    """Tones with one label each."""
    folder = tmp_path_factory.mktemp("labeled") / "tones"
    folder.mkdir()
    lines = ["file_name,label"]
    for file in sorted(tones.rglob("*.wav")):
        copy = folder / file.relative_to(tones)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
        lines.append(f"{copy.relative_to(folder)},{'high' if file.stem[-1] in '345' else 'low'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def quantized(run, tmp_path_factory):
    """The model of `run`, with codes in addition to its latents."""
    folder = tmp_path_factory.mktemp("quantized") / "model"
    model = Autoencoder.from_pretrained(run / "model")
    torch.manual_seed(0)
    quantizer = ResidualVQConfig.example().build(dim=model.latent_spec.dim)
    Autoencoder(model.encoder, model.bottleneck, model.decoder, quantizer).save_pretrained(folder)
    return folder


def tensors_of(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.stem}.{name}": tensor for name, tensor in read_tensors(file)[0].items()}
    return found


@pytest.mark.slow
def test_generator_training_saves_and_resumes_exactly(run, labeled, tmp_path):
    whole = generation(run / "model")
    model = train(whole, data=labeled, output=tmp_path / "whole", recipe="tiny", progress=False)
    assert all(line["metric/with_text"] == 1.0 for line in read_log(tmp_path / "whole/log.jsonl") if "total" in line)
    train(override(whole, ["trainer.steps=2"]), data=labeled, output=tmp_path / "cut", progress=False)
    train(whole, data=labeled, output=tmp_path / "cut", resume=True, progress=False)
    ends = [tensors_of(checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])

    lines = read_log(tmp_path / "whole" / "log.jsonl")
    trained = [line for line in lines if "total" in line]
    assert {"loss/latents", "loss/stop", "metric/velocity_error", "metric/stop_accuracy"} <= trained[-1].keys()
    assert any("validation/latents" in line and "validation/velocity_error" in line for line in lines)
    card = (model / "README.md").read_text()
    assert "generation_head/flow" in card and "Generator.from_pretrained" in card
    it = load_model(model)
    assert isinstance(it, Generator) and it.codec.space_id == Autoencoder.from_pretrained(run / "model").space_id
    assert it.codec.decode(it.generate(["high"], 0.1)).shape == (1, 2, 800)
    # A checkpoint is a model too, with its averaged weights.
    again = load_model(checkpoints(tmp_path / "whole" / "checkpoints")[-1])
    assert torch.equal(again.generate(["high"], 0.1).values, it.generate(["high"], 0.1).values)


def test_training_on_codes(quantized, labeled, tmp_path):
    config = generation(quantized, head=TokenHeadConfig(num_quantizers=2), steps=2)
    it = load_model(train(config, data=labeled, output=tmp_path / "run", progress=False))
    latents = it.generate(["low"], 0.1)
    assert latents.values is None and (latents.codes[:, 2:] == -1).all() and (latents.codes[:, :2] >= 0).all()
    assert it.codec.decode(latents).shape == (1, 2, 800)


@pytest.mark.slow
def test_training_on_stored_latents_with_texts(run, quantized, labeled, ok, tmp_path):
    for codec, head in ((run / "model", None), (quantized, TokenHeadConfig())):
        corpus = tmp_path / f"corpus{codec.parent.name}"
        ok("encode", codec, labeled, "-o", corpus)
        config = generation(codec, head=head, steps=2)
        it = load_model(train(config, data=corpus, output=tmp_path / f"run{codec.parent.name}", progress=False))
        assert it.generate(["low"], 0.1).audio_lengths.tolist() == [800]
    corpus = tmp_path / f"corpus{run.name}"
    with pytest.raises(PartitaError, match="needs codes of the quantizer .* no codes"):
        train(generation(quantized, head=TokenHeadConfig()), data=corpus, output=tmp_path / "x", progress=False)


@pytest.mark.slow
def test_recipes_select_the_head_by_the_latents(run, quantized):
    rate = float(load_model(run / "model").latent_spec.frame_rate)
    for name in ("generation_tiny", "generation_small", "generation_base"):
        flow, tokens = recipes.recipe(name, str(run / "model")), recipes.recipe(name, str(quantized))
        assert isinstance(flow.model.head, FlowHeadConfig) and isinstance(tokens.model.head, TokenHeadConfig)
        assert 10 < rate / flow.model.head.patch < 15
        assert replace(flow, codec=None, model=None) == replace(tokens, codec=None, model=None)
    tiny = recipes.generation_tiny(str(run / "model"))
    model = tiny.model.build(codec=load_model(run / "model"))
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 2e6
    assert tiny.data.texts[0].text({"caption": "rain"}) == ("", "rain")


@pytest.mark.slow
def test_generate_on_the_command_line(run, labeled, ok, refused, monkeypatch, tmp_path):
    monkeypatch.setitem(recipes.CODEC_RECIPES, "tiny", generation)
    settings = ["--data", labeled, "--recipe", "tiny", "--steps", 2, "--text", "a {label} tone"]
    out, _ = ok("generate", run / "model", *settings, "--output", tmp_path / "run", "model.head.patch=1")
    model = tmp_path / "run" / "model"
    assert str(model) in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["data"]["texts"][0]["answer"] == "a {label} tone" and config["model"]["head"]["patch"] == 1

    sampled = ["generate", model, "--prompt", "a low tone", "--seconds", 0.1]
    files = {}
    for name, extra in {"a": [], "b": [], "c": ["--seed", 1], "d": ["--flow-steps", 2, "--guidance", 1]}.items():
        out, _ = ok(*sampled, *extra, "-o", tmp_path / f"{name}.wav")
        assert "800 samples at 8000 Hz" in out
        files[name] = soundfile.read(tmp_path / f"{name}.wav")[0]
    assert files["a"].shape == (800, 2) and (files["a"] == files["b"]).all()
    assert (files["a"] != files["c"]).any() and (files["a"] != files["d"]).any()

    ok("encode", run / "model", tmp_path / "c.wav", "-o", tmp_path / "c.safetensors")
    prompt, codec = ["--audio-prompt", tmp_path / "c.wav"], load_model(run / "model")
    ok("generate", model, *prompt, "--seconds", 0.2, "-o", tmp_path / "e.wav")
    longer = Generator.from_pretrained(model).generate([""], 0.2, audio=Latents.load(tmp_path / "c.safetensors"))
    expected = codec.decode(longer)[0].T.numpy()
    assert abs(soundfile.read(tmp_path / "e.wav")[0] - expected).max() < 2e-4

    wav = ["-o", tmp_path / "x.wav"]
    assert "frames" in refused("generate", model, *prompt, "--seconds", 0.05, *wav)
    assert "--seconds" in refused("generate", model, *wav)
    assert "not a generator" in refused("generate", run / "model", "--seconds", 1, *wav)
    assert "must be .wav" in refused("generate", model, "--seconds", 1, "-o", tmp_path / "x.flac")
    assert "for training" in refused("generate", model, "--seconds", 1, *wav, "--steps", 3)
    assert "for training" in refused("generate", model, "--seconds", 1, *wav, "model.stop=true")
    assert "for sampling" in refused("generate", run / "model", *settings, "--seed", 1, "--output", tmp_path / "y")
    assert "no output" in refused("generate", model, "--seconds", 1)
    assert "top_k" in refused("generate", model, "--seconds", 1, "--top-k", 3, *wav)
    assert "did you mean" in refused("generate", run / "model", *settings[:2], "--recipe", "tyny", "--output", "y")
    wrong = [*settings[:4], "--text", "{lable}", "--output", tmp_path / "y"]
    assert "needs the column 'lable'" in refused("generate", run / "model", *wrong)


def test_invalid_combinations_of_model_and_data(run, labeled, tmp_path):
    settings = {"data": labeled, "output": tmp_path / "run", "progress": False}
    with pytest.raises(PartitaError, match="no codes"):
        train(generation(run / "model", head=TokenHeadConfig()), **settings)
    with pytest.raises(PartitaError, match="codec=FOLDER"):
        train(replace(generation("x"), codec=None), **settings)
    assert not (tmp_path / "run").exists()
