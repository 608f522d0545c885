import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from partita.recipes import load_run, recipe
from partita_core import Autoencoder, Latents, override
from partita_decoders import Overlap
from partita_testing.dummies import DenoisingConfig, StridedConfig, autoencoder, registered

RATE = 8000


def write(path: Path, samples: int, channels: int = 2, rate: int = RATE) -> Path:
    audio = np.random.default_rng(samples).standard_normal((samples, channels)) * 0.1
    soundfile.write(path, audio, rate, subtype="FLOAT")
    return path


@pytest.fixture
def model(run) -> str:
    return str(run / "model")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 80, 24_800])
def test_encode_decode_keeps_length(model, ok, tmp_path, samples, channels):
    file = write(tmp_path / "in.wav", samples, channels)
    ok("encode", model, file, "-o", tmp_path / "z.safetensors")
    ok("decode", model, tmp_path / "z.safetensors", "-o", tmp_path / "out.wav")
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.frames, info.channels, info.samplerate) == (samples, channels, RATE)


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_other_sample_rate_is_resampled_and_reported(model, ok, tmp_path, rate):
    file = write(tmp_path / "in.wav", rate, rate=rate)
    _, said = ok("reconstruct", model, file, "-o", tmp_path / "out.wav")
    assert f"resampled from {rate} to 8000 Hz" in said
    assert soundfile.info(tmp_path / "out.wav").frames == RATE


def test_reconstruct_equals_encode_and_decode(model, ok, tmp_path):
    file = write(tmp_path / "in.wav", 3000)
    ok("encode", model, file, "-o", tmp_path / "z.safetensors")
    ok("decode", model, tmp_path / "z.safetensors", "-o", tmp_path / "a.wav")
    ok("reconstruct", model, file, "-o", tmp_path / "b.wav")
    # Samples, not bytes: the header holds the time of writing.
    a, b = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert np.array_equal(a, b)


def test_output_layout_can_be_converted_from_stereo_only(model, ok, refused, tmp_path):
    file = write(tmp_path / "in.wav", 3000)
    ok("reconstruct", model, file, "-o", tmp_path / "mono.wav", "--layout", "mono")
    assert soundfile.info(tmp_path / "mono.wav").channels == 1
    line = refused("reconstruct", model, tmp_path / "mono.wav", "-o", tmp_path / "wide.wav", "--layout", "stereo")
    assert "cannot be decoded as stereo" in line


def test_encoded_file_equals_python_api(model, ok, tmp_path):
    file = write(tmp_path / "in.wav", 5000)
    ok("encode", model, file, "-o", tmp_path / "z.safetensors")
    latents = Latents.load(tmp_path / "z.safetensors")
    audio = torch.from_numpy(soundfile.read(file, dtype="float32")[0].T)[None]
    expected = Autoencoder.from_pretrained(model).encode(audio)
    torch.testing.assert_close(latents.values, expected.values, rtol=1e-4, atol=1e-4)
    assert latents.space_id == expected.space_id


def test_bf16_keeps_latent_space(model, ok, refused, tmp_path):
    file = write(tmp_path / "in.wav", 5000)
    for precision in ("float32", "bf16"):
        ok("encode", model, file, "-o", tmp_path / f"{precision}.safetensors", "--precision", precision)
        settings = ("-o", tmp_path / f"{precision}.wav", "--precision", precision)
        ok("decode", model, tmp_path / "float32.safetensors", *settings)
    full, half = (Latents.load(tmp_path / f"{name}.safetensors") for name in ("float32", "bf16"))
    assert half.space_id == full.space_id
    error = (half.values - full.values).square().mean() / full.values.square().mean()
    assert 0 <= error < 1e-3  # 0 on CPUs without bfloat16 products, where weights stay in float32
    full, half = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("float32", "bf16"))
    assert 0 < np.square(full - half).mean() < 1e-3 * np.square(full).mean()
    assert "--precision" in refused("encode", model, file, "-o", tmp_path / "z.safetensors", "--precision", "int3")


def test_encode_folder_to_corpus(model, ok, refused, tmp_path, monkeypatch):
    import datasets
    from partita.data import open_dataset, stored_latents

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in" / "a.wav", 1000)
    write(tmp_path / "in" / "deep" / "b.wav", 500, channels=1)
    (tmp_path / "in" / "broken.wav").write_text("no audio")
    printed, said = ok("encode", model, tmp_path / "in", "-o", tmp_path / "out", "--dtype", "float16")
    assert "2 of 3 files encoded" in printed and "broken.wav: is not audio" in said and "x real time" in said
    dataset = open_dataset(tmp_path / "out")
    assert dataset["file_name"] == ["a.wav", "deep/b.wav"]
    assert [int(latents.audio_lengths) for latents in stored_latents(dataset)] == [1000, 500]
    assert (
        "2 of 3 files encoded" in ok("encode", model, tmp_path / "in", "-o", tmp_path / "out", "--dtype", "float16")[0]
    )
    assert "not float32" in refused("encode", model, tmp_path / "in", "-o", tmp_path / "out")
    assert "produce codes" in refused("encode", model, tmp_path / "in", "-o", tmp_path / "c", "--only", "codes")
    one = refused("encode", model, tmp_path / "in" / "a.wav", "-o", tmp_path / "z.safetensors", "--only", "codes")
    assert "--only" in one and "not a folder" in one


def test_train_from_the_command_line(ok, tones, tmp_path, monkeypatch, config):
    from partita import recipes

    monkeypatch.setitem(recipes.RECIPES, "tiny", config)
    settings = ["--data", tones, "--output", tmp_path / "run", "--steps", 2, "data.batch_size=2"]
    ok("train", "tiny", "model.bottleneck=tanh", *settings)
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert resolved["recipe"] == "tiny" and resolved["config"]["data"]["batch_size"] == 2
    assert resolved["config"]["model"]["bottleneck"]["type"] == "bottleneck/tanh"
    out, _ = ok("info", tmp_path / "run" / "model", "--json")
    assert json.loads(out)["latent_dim"] == 4
    ok("train", "tiny", "model.bottleneck=tanh", *settings[:-3], "--steps", 3, "data.batch_size=2", "--resume")
    assert (tmp_path / "run" / "checkpoints" / "step_00000003").is_dir()


def test_evaluate_prints_table_and_writes_reproducible_json(model, ok, tones, tmp_path):
    out, _ = ok("evaluate", model, "--data", tones, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    ok("evaluate", model, "--data", tones, "--json", tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    for row in ("silence", "matched noise", "linear codec"):
        assert row in out.lower()
    assert len((tmp_path / "a.csv").read_text().splitlines()) > 3


def test_evaluate_named_metrics_and_embedders(model, ok, refused, tones, tmp_path):
    files = [flag for kind in ("json", "csv", "markdown") for flag in (f"--{kind}", tmp_path / f"first.{kind}")]
    command = ("evaluate", model, "--data", tones, "--metrics", "mcd,lsd", "--frechet", f"latents:{model}")
    out, _ = ok(*command, *files)
    ok(*command, "--json", tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    found = json.loads((tmp_path / "first.json").read_text())
    assert [metric["name"] for metric in found["metrics"]] == ["mcd", "lsd"]
    (distances,) = found["frechet"]
    assert distances["embedder"] == "latents:run/model" and (distances["clips"], distances["dim"]) == (3, 4)
    assert "Frechet [latents:run/model] ↓" in out and "3 clips in 4 dimensions" in out
    assert (tmp_path / "first.markdown").read_text() == out[:-1]
    assert "Frechet [latents:run/model]" in (tmp_path / "first.csv").read_text().splitlines()[0]
    line = refused("evaluate", model, "--data", tones, "--metrics", "lsd,si_sdrr")
    assert "unknown metric 'si_sdrr'; did you mean si_sdr?" in line
    assert "embedder 'fad'" in refused("evaluate", model, "--data", tones, "--frechet", "fad")


def test_evaluate_checks_options_before_it_starts(model, refused, tones, tmp_path, monkeypatch):
    monkeypatch.setattr("partita.data.whole_files", lambda *args, **kwargs: iter(lambda: pytest.fail("it began"), 0))
    (tmp_path / "file").write_text("")
    for flag in ("--json", "--csv", "--markdown"):
        assert "is a folder; choose a file in it" in refused("evaluate", model, "--data", tones, flag, tmp_path)
        for place in (tmp_path / "file" / "new" / "x", "/proc/x"):
            assert "cannot write" in refused("evaluate", model, "--data", tones, flag, place)
    for seed in (-1, 10**20, -(10**20)):
        assert "seed" in refused("evaluate", model, "--data", tones, "--seed", seed)
    assert "--seconds: 'inf'" in refused("evaluate", model, "--data", tones, "--seconds", "inf")


def test_output_in_missing_folder_is_writable(tmp_path):
    from partita.cli._files import check_writable

    check_writable(tmp_path / "a" / "b" / "x.json")
    assert not list(tmp_path.iterdir())


def test_table_is_printed_before_a_failed_write(model, tones, tmp_path, capsys, monkeypatch):
    from partita.cli import main
    from partita.evaluation import Evaluation
    from partita_core import PartitaError

    def full(self, path):
        raise PartitaError("the disk is full")

    monkeypatch.setattr(Evaluation, "to_csv", full)
    command = ["evaluate", model, "--data", str(tones), "--metrics", "lsd", "--csv", str(tmp_path / "x.csv")]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "| silence" in printed.out and "the disk is full" in printed.err


@pytest.mark.slow
def test_seed_beyond_64_bits_raises(model, ok, refused, tmp_path):
    file, z = write(tmp_path / "in.wav", 500), tmp_path / "z.safetensors"
    ok("encode", model, file, "-o", z)
    for seed in (2**63, -(2**63) - 1, "9" * 20):
        for command in (("decode", model, z), ("reconstruct", model, file)):
            assert str(seed) in refused(*command, "-o", tmp_path / "x.wav", "--seed", seed)
    for seed in (2**63 - 1, -(2**63)):
        ok("decode", model, z, "-o", tmp_path / "x.wav", "--seed", seed)


@pytest.mark.slow
def test_info_counts_tokens_per_frame(ok):
    assert "latents       8 x 64 x 1.34583 Hz (hop 16384), 689.062 floats/s" in ok("info", "music2latent2_tiny")[0]
    assert "latents       64 x 13.125 Hz (hop 3360), 840 floats/s" in ok("info", "genae_tiny")[0]


def test_info_of_genae_base(ok):
    out, _ = ok("info", "genae_base", "--json")
    found = json.loads(out)
    assert found["sample_rate"] == 44_100 and found["hop"] == 3360 and found["frame_rate"] == 13.125
    assert found["latent_dim"] == 64 and found["frames_60s"] == 788 and found["bit_rate"] is None
    assert found["floats_per_second"] == 840
    # Table 2.2 and section 2.5 of the specification, within 2 %.
    assert found["parameters"]["encoder"] == pytest.approx(35.4e6, rel=0.02)
    assert found["parameters"]["decoder"] == pytest.approx(35.1e6, rel=0.02)
    assert found["macs_per_second"]["encoder"] == pytest.approx(4.10e9, rel=0.02)
    assert found["macs_per_second"]["decoder"] == pytest.approx(25.3e9, rel=0.02)
    assert found["encode_context"] == [110, 110]


def test_genae_tiny_size(ok):
    found = json.loads(ok("info", "genae_tiny", "--json")[0])
    assert found["sample_rate"] == 44_100 and found["hop"] == 3360
    assert found["layouts"] == ["mono", "stereo", "mid_side"]
    assert 1e6 <= found["parameters"]["total"] <= 3e6


@pytest.mark.slow
def test_info_with_overrides(ok, refused):
    mono = ["model.audio.channels=1", 'model.audio.layouts=["mono"]', "model.bottleneck=tanh"]
    found, other = (json.loads(ok("info", "genae_tiny", "--json", *texts)[0]) for texts in (mono, mono[::-1]))
    assert found == other
    assert (found["channels"], found["layouts"]) == (1, ["mono"])
    assert found["parts"] == {"encoder": "encoder/genae", "bottleneck": "bottleneck/tanh", "decoder": "decoder/genae"}
    assert "model.audio: channels is 1" in refused("info", "genae_tiny", "model.audio.channels=1")
    term = ["objective.losses.complex=multi_resolution_stft", "objective.weights.complex=1.0"]
    assert "genae" in ok("info", "genae_tiny", *term)[0]
    assert "'complex'" in refused("info", "genae_tiny", term[1])
    assert "the loss 'complex' has no weight" in refused("info", "genae_tiny", term[0])
    assert "'genae_tin' is not one; did you mean genae_tiny" in refused("info", "genae_tin", *mono)


@pytest.mark.slow
def test_info_prints_a_config_that_can_be_trained(ok, refused, model, tmp_path):
    out, _ = ok("info", "genae_tiny", "--config", "trainer.seed=7")
    (tmp_path / "mine.json").write_text(out)
    config, name = load_run(str(tmp_path / "mine.json"))
    assert name == "genae_tiny" and config == override(recipe(name), ["trainer.seed=7"])
    plain, _ = ok("info", "genae_tiny", "--config")
    assert ok("info", tmp_path / "mine.json", "--config", "trainer.seed=0")[0] == plain
    assert repr(model) in refused("info", model, "--config")


def test_components_of_a_role(ok):
    assert json.loads(ok("components", "loss", "--json")[0]) == json.loads(ok("components", "loss/*", "--json")[0])


def test_components_are_listed(ok):
    out, _ = ok("components")
    for tag in ("encoder/genae", "bottleneck/vae", "quantizer/fsq", "objective/adversarial_reconstruction"):
        assert tag in out
    found = json.loads(ok("components", "bottleneck/*", "--json")[0])
    assert set(found) >= {
        f"bottleneck/{name}" for name in ("identity", "vae", "tanh", "noise_regularized", "sigma_vae", "soft_norm")
    }


def test_synth_writes_a_data_set(ok, tmp_path):
    ok("synth", tmp_path / "music", "--minutes", 0.5)
    assert len(list((tmp_path / "music").rglob("*.flac"))) == 3
    assert "exists" in ok("synth", tmp_path / "music", "--minutes", 0.5)[0]


# ------------------------------------------------------------------ user errors


def test_invalid_audio_arguments(model, refused, tmp_path):
    z = tmp_path / "z.safetensors"
    assert "no such file" in refused("encode", model, tmp_path / "none.wav", "-o", z)
    (tmp_path / "text.wav").write_text("this is no audio")
    assert "text.wav" in refused("encode", model, tmp_path / "text.wav", "-o", z)
    (tmp_path / "empty.wav").write_bytes(b"")
    assert "empty.wav" in refused("encode", model, tmp_path / "empty.wav", "-o", z)
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    assert "none.wav" in refused("encode", model, tmp_path / "none.wav", "-o", z)
    soundfile.write(tmp_path / "nan.wav", np.full((900, 2), np.nan), RATE, subtype="FLOAT")
    assert "NaN" in refused("encode", model, tmp_path / "nan.wav", "-o", z)
    soundfile.write(tmp_path / "seven.wav", np.zeros((900, 7)), RATE)
    assert "7 channels" in refused("encode", model, tmp_path / "seven.wav", "-o", z)


def test_invalid_outputs(model, refused, tmp_path):
    file = write(tmp_path / "in.wav", 500)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.wav", 100)
    assert "folder" in refused("encode", model, tmp_path / "folder", "-o", tmp_path / "x.safetensors")
    assert ".safetensors" in refused("encode", model, file, "-o", tmp_path / "x.wav")
    assert "no folder" in refused("encode", model, file, "-o", tmp_path / "nowhere" / "x.safetensors")
    assert ".wav" in refused("reconstruct", model, file, "-o", tmp_path / "x.png")
    assert "is a folder" in refused("reconstruct", model, file, "-o", _folder(tmp_path / "out.wav"))
    assert "cannot write" in refused("encode", model, file, "-o", "/proc/x.safetensors")


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def test_invalid_models(model, run, refused, tmp_path, tones, config):
    file, z = write(tmp_path / "in.wav", 500), tmp_path / "z.safetensors"
    assert "no model folder" in refused("encode", tmp_path / "none", file, "-o", z)
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").unlink()
    assert "no such file" in refused("encode", broken, file, "-o", z)
    (broken / "model.safetensors").write_bytes(b"\x00" * 7)
    assert "not a safetensors file" in refused("encode", broken, file, "-o", z)
    whole = (Path(model) / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "not a safetensors file" in refused("encode", broken, file, "-o", z)
    torch.manual_seed(0)
    from partita_core import override

    other = override(config().model, ["latent_dim=8"]).build()
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", broken)
    assert "weights of another model" in refused("encode", broken, file, "-o", z)
    settings = json.loads((broken / "config.json").read_text())
    settings["model"]["encoder"]["type"] = "encoder/genea"
    (broken / "config.json").write_text(json.dumps(settings))
    assert "did you mean encoder/genae" in refused("encode", broken, file, "-o", z)
    (broken / "config.json").write_text("{")
    assert "not JSON" in refused("encode", broken, file, "-o", z)


def test_invalid_latents(model, ok, refused, tmp_path, config):
    file, z = write(tmp_path / "in.wav", 500), tmp_path / "z.safetensors"
    ok("encode", model, file, "-o", z)
    torch.manual_seed(5)
    config().model.build().save_pretrained(tmp_path / "other")
    assert "space_id" in refused("decode", tmp_path / "other", z, "-o", tmp_path / "out.wav")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(z.read_bytes()[:-20])
    assert "damaged" in refused("decode", model, damaged, "-o", tmp_path / "out.wav")
    assert "does not hold latents" in refused(
        "decode", model, Path(model) / "model.safetensors", "-o", tmp_path / "out.wav"
    )
    assert "takes no sampler" in refused("decode", model, z, "-o", tmp_path / "out.wav", "--sampler", "two_step")


def test_sampler_names_with_settings(ok, refused, tmp_path):
    file, z, out = write(tmp_path / "in.wav", 500), tmp_path / "z.safetensors", tmp_path / "out.wav"
    with registered():
        torch.manual_seed(0)
        codec = autoencoder(encoder=StridedConfig(1), decoder=DenoisingConfig())
        codec.save_pretrained(tmp_path / "denoising")
        heard = {}
        ok("encode", tmp_path / "denoising", file, "-o", z)
        for name in ("two_step", "two_step:refine=false", "autoregressive:steps=1", "sampler/overlap:sigma=0.5"):
            ok("decode", tmp_path / "denoising", z, "-o", out, "--sampler", name, "--seed", 2)
            heard[name] = soundfile.read(out)[0]
        latents = Latents.load(z)
        expected = codec.decode(latents, sampler=Overlap(sigma=0.5), seed=2)[0].T.numpy()
        out.unlink()
        line = refused("decode", tmp_path / "denoising", z, "-o", out, "--sampler", "two_step:steps=3")
        assert "unknown key 'steps'; " in line
    first, second, third, fourth = heard.values()
    assert np.array_equal(second, third) and not np.allclose(first, second)
    assert np.allclose(fourth, expected, atol=1e-4)


def test_invalid_samplers(model, ok, refused, tmp_path):
    file, out = write(tmp_path / "in.wav", 500), tmp_path / "out.wav"
    for name, complaint in (
        ("two_stpe", "unknown sampler 'two_stpe'; did you mean two_step"),
        ("two_step:refine", "'refine' is not an override"),
        ("two_step:refine=maybe", "expected bool"),
        ("two_step:sigma_context=-1", "sigma_context is -1.0"),
        ("overlap", "GenAEDecoder takes no sampler, but got Overlap(sigma=0.965)"),
    ):
        assert complaint in refused("reconstruct", model, file, "-o", out, "--sampler", name)


def test_invalid_training_arguments(refused, tones, tmp_path):
    settings = ["--data", tones, "--output", tmp_path / "run"]
    assert "did you mean genae_tiny" in refused("train", "genae_tinny", *settings)
    assert "did you mean bottleneck" in refused("train", "genae_tiny", *settings, "model.botleneck=tanh")
    assert "did you mean tanh" in refused("train", "genae_tiny", *settings, "model.bottleneck=tahn")
    assert "expected int" in refused("train", "genae_tiny", *settings, "trainer.steps=many")
    assert "not an override" in refused("train", "genae_tiny", *settings, "steps")
    assert "unrecognized" in refused("train", "genae_tiny", *settings, "--stepz", "3")
    for minutes in ("-1", "nan", "inf"):
        assert f"--minutes: {minutes!r}" in refused("train", "genae_tiny", *settings, "--minutes", minutes)
    both = refused("train", "genae_tiny", *settings, "--minutes", 1, "--cpu-minutes", 1)
    assert "--cpu-minutes" in both and "--minutes" in both
    for change, complaint in (
        ("trainer.optimizers.generator.betas=[2,3]", "betas[0] is 2.0"),
        ("trainer.optimizers.generator.betas=[0.9,1]", "betas[1] is 1.0"),
        ("trainer.optimizers.generator.lr=-1", "lr is -1.0"),
        ("trainer.optimizers.generator.lr=1e39", "lr is 1e+39"),
        ("trainer.optimizers.discriminator.schedule.decay_steps=0", "decay_steps is 0"),
        ("trainer.optimizers.generator.schedule.warmup_steps=-1", "warmup_steps is -1"),
        ("trainer.optimizers.generator.weight_decay=-1", "weight_decay is -1.0"),
        ("trainer.optimizers.generator.clip=0", "clip is 0.0"),
        ("trainer.statistics_seconds=0", "statistics_seconds is 0.0"),
        ("trainer.evaluate_seconds=-1", "evaluate_seconds is -1.0"),
        ("data.crop_seconds=1e300", "crop_seconds is 1e+300"),
        ("data.crop_seconds=1e7", "3600"),
        ("data.silence_db=1e9", "silence_db is 1000000000.0"),
    ):
        assert complaint in refused("train", "genae_tiny", *settings, change)
    silent = tmp_path / "silent"
    silent.mkdir()
    assert "no audio" in refused("train", "genae_tiny", "--data", silent, "--output", tmp_path / "run")
    line = refused("train", "genae_tiny", "--data", tmp_path / "none", "--output", tmp_path / "run")
    assert "no such" in line.lower()
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("train", "genae_tiny", "--data", tones, "--output", tmp_path / "file")
    assert "cannot" in refused("train", "genae_tiny", "--data", tones, "--output", "/proc/run")


def test_unknown_names(refused):
    assert "did you mean genae_base" in refused("info", "genae_bas")
    assert "no component matches" in refused("components", "bottleneck/none")
    assert "invalid choice" in refused("encoed")


@pytest.mark.slow
def test_program_starts_without_torch(model, tmp_path):
    """In a real process: one line, no traceback, exit code 2; and help without loading torch."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    arguments = ["encode", model, str(tmp_path / "none.wav"), "-o", str(tmp_path / "z.safetensors")]
    command = [sys.executable, "-m", "partita", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and "Traceback" not in ended.stderr
    watched = "import sys, partita.cli\ntry: partita.cli.main(['--help'])\n"
    watched += "except SystemExit: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", watched], check=True, capture_output=True, env=environment)
