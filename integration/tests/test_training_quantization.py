"""Latent quantization: codes for codecs with continuous latents, which do not change."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch
from partita.cli import main
from partita.data import DataConfig
from partita.evaluation import evaluate
from partita.model_loading import load_codec
from partita.objectives import LatentQuantizationConfig, TrainState
from partita.training import AdamWConfig, Constant, RunConfig, TrainerConfig, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita_core import (
    AudioSpec,
    Autoencoder,
    ChannelLayout,
    Codec,
    Frozen,
    LatentSpec,
    PartitaError,
    QuantizedCodec,
    QuantizedCodecConfig,
    attach_quantizer,
    override,
    read_tensors,
)
from partita_losses import LatentDiscriminatorConfig, MultiScaleMelConfig
from partita_quantizers import FSQConfig, ReBottleneckConfig, ResidualVQConfig
from partita_testing import CODEC_CHECKS, CodecCase

DIM = 4


def quantization(codec, **trainer) -> RunConfig:
    adamw = AdamWConfig(lr=3e-3, schedule=Constant())
    model = ReBottleneckConfig.example()
    settings = {"steps": 6, "log_every": 1, "evaluate_seconds": 1.0, "ema_decay": None, **trainer}
    return RunConfig(
        codec=str(codec),
        model=model,
        objective=LatentQuantizationConfig.example(),
        data=DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0),
        trainer=TrainerConfig(optimizers={"generator": adamw, "discriminator": adamw}, **settings),
    )


@pytest.fixture(scope="module")
def quantized(run, tones, tmp_path_factory):
    """Folder of a short run of a quantizer for the model of `run`."""
    folder = tmp_path_factory.mktemp("quantized") / "run"
    train(quantization(run / "model"), data=tones, output=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def well_quantized(run, tones, tmp_path_factory):
    """Folder of a run of a quantizer that has learned something."""
    folder = tmp_path_factory.mktemp("well_quantized") / "run"
    train(quantization(run / "model", steps=240), data=tones, output=folder, progress=False)
    return folder


def tensors_of(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.stem}.{name}": tensor for name, tensor in read_tensors(file)[0].items()}
    return found


class Foreign(Codec):
    """A codec that is not an Autoencoder: each frame of 8 stereo samples is rotated and scaled."""

    encode_context = decode_context = (0, 0)

    def __init__(self):
        super().__init__()
        self.audio_spec = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
        self.latent_spec = LatentSpec(16, 8000, 8)
        self.rotation = torch.nn.Parameter(100 * torch.linalg.qr(torch.randn(16, 16))[0])

    def encode_frames(self, audio, layout, num_quantizers):
        return self.rotation @ audio.unflatten(-1, (-1, 8)).transpose(2, 3).flatten(1, 2) + 30, None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        return (self.rotation.T @ (values - 30) / 1e4).unflatten(1, (2, 8)).transpose(2, 3).flatten(2)


def rotated() -> Foreign:
    torch.manual_seed(0)
    return Foreign().eval()


def objective(codec, quantizer=None, **changes):
    torch.manual_seed(1)
    config = replace(LatentQuantizationConfig.example(), **changes)
    quantizer = (quantizer or ReBottleneckConfig.example()).build(dim=codec.latent_spec.dim)
    return config.build(model=quantizer, codec=Frozen(codec))


def batches(samples=480, layout=ChannelLayout.STEREO):
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        layouts = torch.full((4,), int(layout))
        yield {
            "audio": torch.randn(4, 2, samples, generator=generator) * 0.1,
            "audio_lengths": torch.tensor([samples] * 3 + [100]),
            "layout": layouts,
            "target_layout": layouts,
        }


# ------------------------------------------------------------------ the trained model


def test_latents_are_unchanged_and_codes_are_added(run, quantized):
    before, after = Autoencoder.from_pretrained(run / "model"), Autoencoder.from_pretrained(quantized / "model")
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    assert after.space_id == before.space_id and before.codes_id is None and after.codes_id is not None
    assert after.latent_spec == replace(before.latent_spec, codebook_sizes=(16, 16, 16))
    audio = torch.randn(1, 2, 4000) * 0.1
    latents, new = before.encode(audio), after.encode(audio)
    assert torch.equal(new.values, latents.values) and new.codes.shape == (1, 3, latents.values.shape[-1])
    assert torch.equal(after.decode(new), before.decode(latents))
    assert torch.equal(before.decode(replace(new, codes=None)), before.decode(latents))


@pytest.mark.slow
@torch.no_grad()
def test_more_levels_reduce_the_error(well_quantized, tones):
    model = Autoencoder.from_pretrained(well_quantized / "model")
    errors = [0.0, 0.0, 0.0]
    for file in sorted(tones.rglob("*.wav")):
        audio = torch.from_numpy(soundfile.read(file, dtype="float32")[0].T)[None]
        values = model.encode(audio).values
        scale = values.std((0, 2))[:, None]
        for levels in (1, 2, 3):
            codes = model.encode(audio, num_quantizers=levels).codes
            assert (codes[:, :levels] >= 0).all() and (codes[:, levels:] == -1).all()
            errors[levels - 1] += float(((model.codes_to_values(codes) - values) / scale).abs().mean())
    errors = [error / len(list(tones.rglob("*.wav"))) for error in errors]
    assert errors[0] > max(errors[1:]), errors  # the third level adds little in so short a run
    assert errors[2] < 0.7  # in standard deviations; 0.8 for the mean


@pytest.mark.slow
def test_log_has_the_usage_of_each_level(well_quantized):
    lines = [line for line in read_log(well_quantized / "log.jsonl") if "total" in line]
    assert all(0 < lines[-1][f"metric/in_use_{level}"] <= 1 for level in range(3))
    assert lines[-1]["metric/in_use_0"] >= lines[0]["metric/in_use_0"]
    half = len(lines) // 2
    assert sum(x["loss/latent"] for x in lines[half:]) < 0.95 * sum(x["loss/latent"] for x in lines[:half])


def test_quantizer_checkpoint_loads_as_codec(quantized):
    model = load_codec(checkpoints(quantized / "checkpoints")[-1])
    final = Autoencoder.from_pretrained(quantized / "model")
    audio = torch.randn(1, 2, 1000) * 0.1
    assert torch.equal(model.encode(audio).codes, final.encode(audio).codes)


# ------------------------------------------------------------------ the run


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.9])
def test_resumed_quantizer_run_equals_uninterrupted_run(run, tones, tmp_path, ema):
    whole = quantization(run / "model", ema_decay=ema)
    train(whole, data=tones, output=tmp_path / "whole", progress=False)
    train(override(whole, ["trainer.steps=3"]), data=tones, output=tmp_path / "cut", progress=False)
    torch.manual_seed(99)
    train(whole, data=tones, output=tmp_path / "cut", resume=True, progress=False)
    ends = [tensors_of(checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
def test_resume_on_another_codec(run, tones, tmp_path, config):
    folder = tmp_path / "codec"
    Autoencoder.from_pretrained(run / "model").save_pretrained(folder)
    train(quantization(folder, steps=1), data=tones, output=tmp_path / "run", progress=False)
    torch.manual_seed(3)
    config().model.build().save_pretrained(folder)
    with pytest.raises(PartitaError, match="another codec"):
        train(quantization(folder, steps=2), data=tones, output=tmp_path / "run", resume=True, progress=False)


@pytest.mark.slow
def test_init_from_a_trained_quantizer(run, quantized, tones, tmp_path):
    frozen = override(quantization(run / "model", steps=1), ["trainer.optimizers.generator.lr=0.0"])
    train(frozen, data=tones, output=tmp_path / "run", init_from=quantized / "model", progress=False)
    before, after = (load_codec(folder / "model").quantizer.state_dict() for folder in (quantized, tmp_path / "run"))
    learned = [name for name in before if not {"codebook", "dead"} & set(name.split("."))]  # codebooks follow the data
    assert learned
    for name in learned:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6)


def test_invalid_combinations_of_model_and_codec(run, quantized, tones, tmp_path, config):
    settings = {"data": tones, "output": tmp_path / "run", "progress": False}
    with pytest.raises(PartitaError, match="3 levels"):
        train(quantization(quantized / "model"), **settings)
    with pytest.raises(PartitaError, match="codec=FOLDER"):
        train(replace(quantization("x"), codec=None), **settings)
    with pytest.raises(PartitaError, match="remove codec="):
        train(replace(config(), codec=str(run / "model")), **settings)
    with pytest.raises(PartitaError, match="no quantizer"):
        train(quantization(run / "model"), init_from=run / "model", **settings)
    with pytest.raises(PartitaError, match="tokens"):
        small = override(quantization(run / "model"), ["model.quantizer.codebook_size=1024"])
        train(small, **settings)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ the objective


@pytest.mark.parametrize("quantizer", [ReBottleneckConfig.example(), ResidualVQConfig.example(), FSQConfig((5, 5))])
def test_latents_are_normalized_for_every_quantizer(quantizer):
    codec = rotated()
    it = objective(codec, quantizer)
    it.initialize(batches())
    values = codec.encode(next(batches())["audio"]).values
    scaled = (values - it.mean) / it.std
    assert scaled.mean().abs() < 0.2 and 0.8 < scaled.std() < 1.2
    out = it(next(batches()), TrainState(), "generator")
    expected = it.weights["latent"] * out.losses["latent"] + sum(
        it.weights[name] * out.losses[name] for name in ("adversarial", "feature_matching")
    )
    expected = expected + sum(it.model.loss_weights[name] * out.losses[name] for name in it.model.loss_weights)
    torch.testing.assert_close(out.total.detach(), expected)
    assert out.samples.shape == (2, 4, 16, 60)
    it.frozen_codec.check()


@pytest.mark.parametrize("phase", ["generator", "discriminator"])
def test_quantization_phase_trains_its_own_part(phase):
    it = objective(rotated())
    it.initialize(batches())
    batch = next(batches())
    batch["samples"] = it(batch, TrainState(), "generator").samples
    it(batch, TrainState(), phase).total.backward()
    own = {id(p) for group in it.parameter_groups(phase) for p in group["params"]}
    assert own
    for name, parameter in it.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in own), name
    assert not any("rotation" in name for name, _ in it.named_parameters())


def test_latent_loss_ignores_padding():
    it = objective(rotated(), discriminator=None, weights={"latent": 1.0}).eval()
    batch = next(batches())
    real, fake = it(batch, TrainState(), "generator").samples
    error = (real - fake).abs().mean(1)
    expected = torch.cat([error[:3].flatten(), error[3, : -(-100 // 8)]]).mean()
    torch.testing.assert_close(it(batch, TrainState(), "generator").losses["latent"], expected)


def test_audio_losses_start_late_and_pass_the_frozen_decoder():
    losses = {"mel": MultiScaleMelConfig.example()}
    it = objective(rotated(), losses=losses, discriminator=None, weights={"latent": 0.0, "mel": 1.0})
    it.initialize(batches())
    early = it(next(batches()), TrainState(7, 10), "generator")
    late = it(next(batches()), TrainState(8, 10), "generator")
    assert "mel" not in early.losses and float(late.losses["mel"]) > 0
    it.model.loss_weights = {"commitment": 0.0}
    it(next(batches()), TrainState(8, 10), "generator").total.backward()
    assert float(it.model.decoder.last.weight.grad.abs().sum()) > 0
    assert it.frozen_codec.module.rotation.grad is None
    with pytest.raises(PartitaError, match="the loss 'mel' .*weights.mel"):
        objective(rotated(), losses=losses)


def test_code_usage_is_counted_over_a_thousand_steps():
    it = objective(rotated())
    codes = torch.tensor([[[0, 1], [2, 2], [-1, -1]]])
    found = it.code_usage(codes, 0)
    assert [float(found[f"in_use_{i}"]) for i in range(3)] == pytest.approx([2 / 16, 1 / 16, 0])
    found = it.code_usage(torch.tensor([[[1, 5], [2, 2], [4, 4]]]), 999)
    assert [float(found[f"in_use_{i}"]) for i in range(3)] == pytest.approx([3 / 16, 1 / 16, 1 / 16])
    assert float(it.code_usage(codes[..., :1], 1000)["in_use_0"]) == pytest.approx(3 / 16)
    assert float(it.code_usage(codes[..., :1], 1999)["in_use_0"]) == pytest.approx(1 / 16)


def test_unordered_tokens_need_a_quantizer_without_context():
    codec = rotated()
    codec.latent_spec = replace(codec.latent_spec, ordered=False)
    with pytest.raises(PartitaError, match="no order"):
        objective(codec)
    objective(codec, ResidualVQConfig.example())


# ------------------------------------------------------------------ external codecs with codes


def quantized_foreign() -> QuantizedCodec:
    it = objective(rotated())
    it.initialize(batches())
    codec = attach_quantizer(rotated(), it.model).eval()
    assert isinstance(codec, QuantizedCodec)
    return codec


@pytest.mark.parametrize("check", CODEC_CHECKS)
def test_conformance_of_a_quantized_codec(check):
    def factory() -> Codec:
        torch.manual_seed(0)
        return QuantizedCodecConfig.example().build().eval()

    check(CodecCase(factory))


def test_quantized_codec_is_saved(tmp_path):
    codec = QuantizedCodecConfig.example().build().eval()
    codec.save_pretrained(tmp_path / "model")
    again = load_codec(tmp_path / "model")
    audio = torch.randn(1, 2, 500) * 0.1
    assert torch.equal(again.encode(audio).codes, codec.encode(audio).codes)
    assert (again.space_id, again.codes_id) == (codec.space_id, codec.codes_id)
    assert again.latent_spec == codec.latent_spec
    with pytest.raises(PartitaError, match="Foreign"):
        quantized_foreign().save_pretrained(tmp_path / "other")


@pytest.mark.slow
def test_external_oobleck_is_quantized(foreign, tones, tmp_path):
    foreign("oobleck").save_pretrained(tmp_path / "oobleck")
    base = load_codec(f"hf:{tmp_path / 'oobleck'}")
    config = quantization(f"hf:{tmp_path / 'oobleck'}", steps=3)
    model = train(config, data=tones, output=tmp_path / "run", progress=False)
    codec = load_codec(model)
    assert isinstance(codec, QuantizedCodec) and codec.space_id == base.space_id
    assert codec.latent_spec.mean is not None and len(codec.latent_spec.codebook_sizes) == 3
    audio = torch.randn(1, 2, 1000) * 0.1
    latents = codec.encode(audio)
    assert torch.equal(latents.values, base.encode(audio).values)
    assert torch.equal(codec.decode(latents), base.decode(replace(latents, codes=None)))
    assert codec.decode(latents.only_codes()).shape == audio.shape
    assert "quantizer/rebottleneck" in (model / "README.md").read_text()


# ------------------------------------------------------------------ evaluation and the command line


def test_evaluation_decodes_from_codes_of_all_or_some_levels(quantized):
    model = Autoencoder.from_pretrained(quantized / "model")
    clips = [("a", torch.randn(2, 4000) * 0.1, ChannelLayout.STEREO)]
    rate = float(model.latent_spec.frame_rate)
    found = {q: evaluate({"m": model}, clips, references=False, num_quantizers=q) for q in (None, 0, 1, 3)}
    assert [each.systems[0].bit_rate for each in found.values()] == [12 * rate, None, 4 * rate, 12 * rate]
    scores = {q: each.scores["m"]["log_mel_l1"] for q, each in found.items()}
    assert scores[None] == scores[3] and len(set(scores.values())) == 3
    with pytest.raises(PartitaError, match="3 levels"):
        evaluate({"m": model}, clips, num_quantizers=4)


@pytest.mark.slow
def test_quantize_from_the_command_line(run, tones, tmp_path, capsys, monkeypatch):
    from partita import recipes

    monkeypatch.setitem(recipes.CODEC_RECIPES, "tiny", quantization)
    settings = ["--data", str(tones), "--output", str(tmp_path / "run"), "--recipe", "tiny"]
    assert main(["quantize", str(run / "model"), *settings, "--steps", "2", "model.quantizer.num_quantizers=2"]) == 0
    printed = capsys.readouterr().out
    assert "codes: 2 levels" in printed and "%" in printed
    model = str(tmp_path / "run" / "model")
    evaluated = ["--data", str(tones), "--num-quantizers", "1", "--json", str(tmp_path / "f.json")]
    assert main(["evaluate", model, *evaluated]) == 0
    assert json.loads((tmp_path / "f.json").read_text())["settings"]["num_quantizers"] == 1
    assert main(["quantize", str(tmp_path / "none"), *settings[:3], str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    assert main(["quantize", model, *settings[:3], str(tmp_path / "new"), "--recipe", "tyny"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_latent_discriminator_shapes():
    torch.manual_seed(0)
    it = LatentDiscriminatorConfig.example().build(dim=DIM)
    (output,) = it(torch.randn(2, DIM, 9))
    assert output.logits.shape == (2, 1, 9)
    assert [feature.shape for feature in output.features] == [(2, 4, 9)] * 2
    with pytest.raises(PartitaError, match="kernel is 4"):
        LatentDiscriminatorConfig(kernel=4).build(dim=DIM)
