"""Training on stored latents equals training on latents that the codec encodes on the fly."""

from dataclasses import replace

import pytest
import torch
from partita.cli import main
from partita.data import DataConfig, build_loader, encode_corpus, open_dataset
from partita.model_loading import load_codec
from partita.objectives import LatentQuantizationConfig
from partita.objectives.latent_batches import fill_padding, latents_of, tokens_of
from partita.training import AdamWConfig, Constant, RunConfig, TrainerConfig, train
from partita.training.logs import read_log
from partita_core import Frozen, PartitaError
from partita_losses import MultiScaleMelConfig
from partita_quantizers import ReBottleneckConfig

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture(scope="module")
def corpus(run, tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "corpus"
    encode_corpus(load_codec(run / "model"), tones, folder, progress=False)
    return folder


def quantization(codec, **trainer) -> RunConfig:
    adamw = AdamWConfig(lr=3e-3, schedule=Constant())
    settings = {"steps": 4, "log_every": 1, "evaluate_seconds": 1.0, "ema_decay": None, **trainer}
    return RunConfig(
        codec=str(codec),
        model=ReBottleneckConfig.example(),
        objective=LatentQuantizationConfig.example(),
        data=DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0),
        trainer=TrainerConfig(optimizers={"generator": adamw, "discriminator": adamw}, **settings),
    )


def first_batch(codec, data, seconds):
    config = DataConfig(crop_seconds=seconds, batch_size=6, num_workers=0, augmentation=None)
    hop = codec.latent_spec.hop
    return next(iter(build_loader(open_dataset(data), config, audio_spec=codec.audio_spec, crop_multiple=hop, seed=0)))


def test_latents_encoded_on_the_fly_equal_stored_ones(run, tones, corpus):
    codec = load_codec(run / "model")
    encoded, stored = (first_batch(codec, data, 0.6) for data in (tones, corpus))  # longer than the files
    assert torch.equal(encoded["index"], stored["index"]) and torch.equal(encoded["layout"], stored["layout"])
    values = latents_of(encoded, codec)
    torch.testing.assert_close(values, latents_of(stored, codec), rtol=1e-4, atol=1e-5)
    tokens = tokens_of(encoded, codec.latent_spec)
    assert tokens.tolist() == [167] * 6 and values.shape == (6, 4, 200) and not values[..., 167:].any()


def test_fill_padding_repeats_short_items():
    values = torch.arange(10.0).expand(2, 3, 10)
    found = fill_padding(values, torch.tensor([4, 10]))
    assert found[0, 1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1] and torch.equal(found[1], values[1])


@pytest.mark.slow
def test_quantizer_is_trained_on_a_corpus(run, corpus, tmp_path, capsys, monkeypatch):
    from partita import recipes

    monkeypatch.setitem(recipes.CODEC_RECIPES, "tiny", quantization)
    settings = ["--data", str(corpus), "--output", str(tmp_path / "run"), "--recipe", "tiny"]
    assert main(["quantize", str(run / "model"), *settings]) == 0, capsys.readouterr().err
    log = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "total" in line]
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    model = load_codec(tmp_path / "run" / "model")
    assert len(model.latent_spec.codebook_sizes) == 3 and model.space_id == load_codec(run / "model").space_id
    assert not (tmp_path / "run" / "samples").exists()  # a corpus has no audio


@pytest.mark.slow
def test_statistics_of_a_corpus_equal_those_of_its_audio(foreign, tones, tmp_path):
    foreign("oobleck").save_pretrained(tmp_path / "oobleck")
    name = f"hf:{tmp_path / 'oobleck'}"
    encode_corpus(load_codec(name), tones, tmp_path / "corpus", progress=False)
    for data in (tones, tmp_path / "corpus"):
        train(quantization(name, steps=1), data=data, output=tmp_path / data.name / "run", progress=False)
    encoded, stored = (load_codec(tmp_path / data / "run" / "model").latent_spec for data in (tones.name, "corpus"))
    # Of a corpus, all latents of short files; of audio, three seconds in pieces from anywhere.
    std = torch.tensor(stored.std)
    apart = (torch.tensor(stored.mean) - torch.tensor(encoded.mean)).abs() / std
    assert apart.max() < 0.5, apart
    ratio = torch.tensor(encoded.std) / std
    assert 0.7 < ratio.min() and ratio.max() < 1.4, ratio


@pytest.mark.slow
def test_corpus_that_does_not_fit_the_objective(run, corpus, config, tones, tmp_path):
    def check_rejected(run_config, data, match):
        with pytest.raises(PartitaError, match=match) as caught:
            train(run_config, data=data, output=tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()

    check_rejected(config(), corpus, "AdversarialReconstruction needs audio")
    torch.manual_seed(3)
    config().model.build().save_pretrained(tmp_path / "other")
    check_rejected(quantization(tmp_path / "other"), corpus, "space")
    plain = quantization(run / "model")
    losses = {"losses": {"mel": MultiScaleMelConfig.example()}, "weights": plain.objective.weights | {"mel": 1.0}}
    audible = replace(plain, objective=replace(plain.objective, **losses))
    check_rejected(audible, corpus, "LatentQuantization needs audio")
    coded = tmp_path / "codes"
    train(plain, data=corpus, output=tmp_path / "coded", progress=False)
    encode_corpus(load_codec(tmp_path / "coded" / "model"), tones, coded, only="codes", progress=False)
    check_rejected(plain, coded, "needs latents, .*--only codes")


def test_missing_keys_of_a_batch_are_named(run):
    codec = Frozen(load_codec(run / "model"))
    model = ReBottleneckConfig.example().build(dim=codec.module.latent_spec.dim)
    objective = LatentQuantizationConfig.example().build(model=model, codec=codec)
    objective.check_batch({"latents": 1, "audio_lengths": 1, "layout": 1})
    objective.check_batch({"audio": 1, "audio_lengths": 1, "layout": 1})
    with pytest.raises(PartitaError, match="audio or latents, layout"):
        objective.check_batch({"audio_lengths": 1})
