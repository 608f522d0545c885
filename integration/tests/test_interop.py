"""Adapters of other libraries' codecs: equal output, loading by name, and use on the command line."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from partita.cli import main
from partita.interop import (
    ChunkedEncodecCodec,
    DacCodec,
    EncodecCodec,
    MimiCodec,
    OobleckCodec,
    TransformersCodecConfig,
    from_huggingface,
)
from partita.model_loading import load_codec
from partita_core import ChannelLayout, Latents, PartitaError, StreamEncoder, measure_latents
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils import _device
from transformers.initialization import meta_device_safe_creation_ops

MONO, STEREO = ChannelLayout.MONO, ChannelLayout.STEREO
CLASSES = {
    "oobleck": OobleckCodec,
    "dac": DacCodec,
    "encodec": EncodecCodec,
    "encodec in chunks": ChunkedEncodecCodec,
    "mimi": MimiCodec,
}
QUANTIZED = list(CLASSES)[1:]


def noise(codec, frames=9, batch=2):
    generator = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(batch, codec.audio_spec.channels, frames * codec.latent_spec.hop, generator=generator)


@torch.no_grad()
def there(model, name, audio, levels=None):
    """Output of the library itself for complete frames of audio, with all levels of codes or some."""
    count = len(from_huggingface(model).latent_spec.codebook_sizes)
    match name:
        case "oobleck":
            return model(audio).sample
        case "dac":
            return model(audio, n_quantizers=levels).audio_values.unsqueeze(1)
        case "mimi":
            return model(audio, num_quantizers=levels).audio_values
        case "encodec":
            return model(audio, bandwidth=4.0 * (levels or count)).audio_values
        case _:  # its feature extractor fills the last chunk with zeros
            whole = F.pad(audio, (0, model.config.chunk_length - model.config.chunk_stride))
            return model(whole, bandwidth=4.0 * (levels or count)).audio_values[..., : audio.shape[-1]]


@pytest.fixture
def folder(foreign, tmp_path):
    """Save a model with its library, and return the folder."""

    def save(name: str, **changes) -> Path:
        path = tmp_path / name.replace(" ", "_")
        foreign(name, **changes).save_pretrained(path)
        return path

    return save


# ------------------------------------------------------------------ equal to what they are there


@pytest.mark.parametrize("name", CLASSES)
def test_audio_equals_the_original(foreign, name):
    model = foreign(name)
    codec = from_huggingface(model)
    assert type(codec) is CLASSES[name]
    audio = noise(codec)
    expected = there(model, name, audio)
    decoded = codec.decode(codec.encode(audio))
    assert decoded.shape == audio.shape
    # DAC computes its values with a straight-through detour, and for odd strides returns some samples less.
    assert torch.allclose(decoded[..., : expected.shape[-1]], expected, rtol=0, atol=1e-5)
    assert not decoded[..., expected.shape[-1] :].any() and expected.square().mean() > 1e-3


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("levels", [1, 2])
def test_audio_from_fewer_levels_equals_the_original(foreign, name, levels):
    model = foreign(name)
    codec = from_huggingface(model)
    audio = noise(codec)
    expected = there(model, name, audio, levels)
    latents = codec.encode(audio, num_quantizers=levels)
    assert (latents.codes[:, levels:] == -1).all() and (latents.codes[:, :levels] >= 0).all()
    assert torch.equal(latents.values, codec.codes_to_values(latents.codes))
    for record in (latents, latents.only_codes()):
        assert torch.allclose(codec.decode(record)[..., : expected.shape[-1]], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_level_of_codes_changes_the_audio(foreign, name):
    codec = from_huggingface(foreign(name))
    codes = codec.encode(noise(codec)).codes
    assert all(len(level.unique()) > 2 for level in codes.unbind(1))


def test_oobleck_latents_are_the_posterior_mean(foreign):
    model = foreign("oobleck")
    codec = from_huggingface(model)
    audio = noise(codec)
    assert torch.equal(codec.encode(audio).values, model.encode(audio).latent_dist.mode())


def test_scales_are_those_of_encodec(foreign):
    model = foreign("encodec in chunks")
    codec = from_huggingface(model)
    audio = noise(codec) * torch.linspace(0.1, 3, 9 * codec.latent_spec.hop)
    whole = F.pad(audio, (0, model.config.chunk_length - model.config.chunk_stride))
    scales = torch.cat(model.encode(whole).audio_scales[:9], dim=1)
    gain = codec.encode(audio).gain
    assert gain.shape == (2, 9) and torch.allclose(gain, scales, rtol=1e-6)
    with pytest.raises(PartitaError, match="no gain.*gain per frame"):
        codec.decode(replace(codec.encode(audio), gain=None))


SPECS = {  # sample rate, layouts, dim, hop, tokens a frame, codebooks, contexts
    "oobleck": (8000, (STEREO,), 4, 32, 1, (), (6, 6), (8, 8)),
    "dac": (8000, (MONO,), 16, 30, 1, (16,) * 3, (6, 6), (8, 8)),
    "encodec": (8000, (MONO,), 8, 8, 1, (16,) * 3, (None, None), (None, None)),
    "encodec in chunks": (8000, (STEREO,), 8, 80, 12, (16,) * 3, (0, 1), (1, 0)),
    "mimi": (8000, (MONO,), 16, 16, 1, (16,) * 4, (6, 0), (8, 0)),
}


@pytest.mark.parametrize("name", CLASSES)
def test_specs(foreign, name):
    codec = from_huggingface(foreign(name))
    audio, spec = codec.audio_spec, codec.latent_spec
    found = (audio.sample_rate, audio.layouts, spec.dim, spec.hop, spec.tokens_per_frame, spec.codebook_sizes)
    assert (*found, codec.encode_context, codec.decode_context) == SPECS[name]
    assert not codec.training


@torch.no_grad()
@pytest.mark.parametrize("name", ["oobleck", "dac", "mimi"])
@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_contexts_equal_the_measured_ones(foreign, name, direction):
    codec = from_huggingface(foreign(name)).double()
    hop, at, layout = codec.latent_spec.hop, 30, torch.zeros(1, dtype=torch.int64)

    def encode(audio):
        hidden = codec.encoder(audio)
        return hidden.latents if name == "mimi" else hidden

    def decode(values):
        return codec.decode_frames(values, None, layout, None, None)

    if direction == "encode":
        run, x, part = encode, noise(codec, frames=2 * at, batch=1).double(), slice(at * hop, (at + 1) * hop)
    else:
        run, x, part = decode, torch.randn(1, codec.latent_spec.dim, 2 * at).double(), slice(at, at + 1)
    touched = x.clone()
    touched[..., part] += 1
    change = (run(touched) - run(x)).abs().amax(1)[0]
    frames = change.unflatten(0, (2 * at, -1)).amax(1).nonzero().flatten().tolist()
    left, right = getattr(codec, f"{direction}_context")
    assert (frames[-1] - at, at - frames[0]) == (left, right)


def test_encodec_streams_with_little_latency(foreign):
    codec = from_huggingface(foreign("encodec"))
    assert StreamEncoder(codec, layout="mono").latency < 20 * codec.latent_spec.hop


def test_space_id_depends_on_encoder_and_not_decoder(foreign):
    codec, tuned, other = (from_huggingface(foreign("dac")) for _ in range(3))
    with torch.no_grad():
        next(tuned.decoder.parameters()).add_(1)
        next(other.encoder.parameters()).add_(1)
    assert codec.space_id == tuned.space_id != other.space_id


def test_mimi_codebooks_follow_loaded_weights(foreign):
    codec = from_huggingface(foreign("mimi"))
    codes = codec.encode(noise(codec)).codes
    state = {name: 2 * tensor if name.endswith("embed_sum") else tensor for name, tensor in codec.state_dict().items()}
    before = codec.codes_to_values(codes)
    codec.load_state_dict(state)
    assert torch.allclose(codec.codes_to_values(codes), 2 * before, rtol=1e-5)


# ------------------------------------------------------------------ by name


@pytest.mark.parametrize("name", CLASSES)
def test_from_a_folder(foreign, folder, name):
    codec, built = load_codec(f"hf:{folder(name)}"), from_huggingface(foreign(name))
    assert type(codec) is CLASSES[name] and not codec.training
    assert codec.space_id == built.space_id
    audio = noise(codec)
    assert torch.equal(codec.decode(codec.encode(audio)), built.decode(built.encode(audio)))


def test_half_precision_weights_are_loaded_as_float32(foreign, tmp_path):
    foreign("dac").half().save_pretrained(tmp_path / "half")
    codec = from_huggingface(tmp_path / "half")
    assert {tensor.dtype for tensor in codec.parameters()} == {torch.float32}


def edit_config(path: Path, **changes) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))
    return path


def test_native_models_can_be_built_after_transformers_loaded_one(config, tmp_path):
    """Torch caches its tensor constructors at first use, after transformers has replaced linspace."""
    config().model.build().eval().save_pretrained(tmp_path)
    _device._device_constructors.cache_clear()
    try:
        with meta_device_safe_creation_ops(), torch.device("meta"):
            torch.empty(0)
        assert load_codec(tmp_path).audio_spec.sample_rate == 8000
    finally:
        _device._device_constructors.cache_clear()


@pytest.mark.parametrize(
    "name, library, install", [("oobleck", "diffusers", "AutoencoderOobleck"), ("mimi", "transformers", "MimiModel")]
)
def test_missing_library_is_named(folder, monkeypatch, name, library, install):
    path = folder(name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PartitaError, match=rf"is a {install}, .*pip install 'partita\[interop\]'"):
        from_huggingface(path)


def test_missing_weights_are_an_error(folder):
    path = folder("dac")
    weights = load_file(path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "decoder.conv2" not in name}, path / "model.safetensors"
    )
    with pytest.raises(PartitaError, match=r"lacks 2 weights of a DacModel, first decoder\.conv2\.bias"):
        from_huggingface(path)


def test_damaged_weights_are_an_error_of_one_line(folder):
    path = folder("encodec")
    (path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(PartitaError, match=r"encodec could not be loaded: ") as caught:
        from_huggingface(path)
    assert "\n" not in str(caught.value)


def test_unsupported_models(folder, tmp_path):
    with pytest.raises(PartitaError, match="is a moshi; did you mean|is a moshi; valid"):
        from_huggingface(edit_config(folder("mimi"), model_type="moshi"))
    with pytest.raises(PartitaError, match="Linear.*AutoencoderOobleck, Dac"):
        from_huggingface(torch.nn.Linear(1, 1))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(PartitaError, match="is a model without a type; valid: AutoencoderOobleck, dac, encodec, mimi"):
        from_huggingface(tmp_path)
    for name in ("nowhere", "./no/where", str(tmp_path / "nowhere")):
        with pytest.raises(PartitaError, match="no model folder .*"):
            from_huggingface(name)


def test_models_with_unsupported_settings(foreign):
    with pytest.raises(PartitaError, match="8 .* 3 latent channels need 6"):
        from_huggingface(foreign("oobleck", decoder_input_channels=3))
    with pytest.raises(PartitaError, match="normalize=True.*chunk_length_s"):
        from_huggingface(foreign("encodec", normalize=True))
    half = foreign("mimi")
    half.decoder = None
    with pytest.raises(PartitaError, match="MimiModel.*encoder or decoder.*transformers>=5.23"):
        from_huggingface(half)


CACHED = """
import sys
from partita.interop import from_huggingface
for name in sys.argv[1:]:
    try:
        print(from_huggingface(name).space_id)
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_loading_from_the_hub_cache_offline(foreign, folder, tmp_path):
    hub = tmp_path / "home" / "hub"
    for repository, path, inner in (("one/dac", folder("dac"), ""), ("one/pipeline", folder("oobleck"), "vae")):
        cached = hub / f"models--{repository.replace('/', '--')}"
        shutil.copytree(path, cached / "snapshots" / ("0" * 40) / inner)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", CACHED, "one/dac", "one/pipeline/vae", "one/nothing"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    *names, refusal = found.stdout.splitlines()
    assert names == [from_huggingface(foreign(name)).space_id for name in ("dac", "oobleck")]
    assert refusal.startswith("no model folder 'one/nothing'")


# ------------------------------------------------------------------ the commands


# ------------------------------------------------------------------ saved as ours


@pytest.mark.parametrize("name", CLASSES)
def test_adapted_codec_save_and_load(foreign, name, tmp_path):
    codec = from_huggingface(foreign(name))
    audio = noise(codec)
    latents = codec.encode(audio)
    codec.latent_spec = measure_latents(codec, [latents])
    codec.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    back = load_codec(tmp_path / "model")
    assert type(back) is CLASSES[name] and not back.training
    assert (back.space_id, back.codes_id, back.latent_spec) == (codec.space_id, codec.codes_id, codec.latent_spec)
    assert (back.encode_context, back.decode_context) == (codec.encode_context, codec.decode_context)
    again = back.encode(audio)
    assert torch.equal(again.values, latents.values) and back.config == codec.config
    assert torch.equal(back.decode(latents), codec.decode(latents))


def test_space_id_depends_on_the_quantizer(foreign, tmp_path):
    codec = from_huggingface(foreign("mimi"))
    before = codec.space_id
    with torch.no_grad():
        codec.quantizer.semantic_residual_vector_quantizer.layers[0].codebook.embed_sum.add_(1)
    codec.save_pretrained(tmp_path / "model")
    assert load_codec(tmp_path / "model").space_id == codec.space_id != before


@pytest.mark.parametrize("settings", [{}, {"model_type": "llama"}])
def test_settings_of_unsupported_models(settings):
    with pytest.raises(PartitaError, match="(None|llama) model"):
        TransformersCodecConfig(settings).build()


def test_example_config_builds_a_codec():
    codec = TransformersCodecConfig.example().build().eval()
    assert (type(codec), codec.latent_spec.hop) == (DacCodec, 30)
    assert codec.decode(codec.encode(noise(codec, batch=1))).shape == (1, 1, 270)


@pytest.fixture
def run(capsys):
    def command(*arguments: object) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return command


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.slow
def test_adapted_codecs_on_the_command_line(folder, run, tmp_path, name):
    model = f"hf:{folder(name)}"
    codec = load_codec(model)
    channels, samples = codec.audio_spec.channels, 3001
    audio = 0.1 * np.random.default_rng(0).standard_normal((samples, channels))
    soundfile.write(tmp_path / "in.wav", audio, 8000, subtype="FLOAT")

    run("encode", model, tmp_path / "in.wav", "-o", tmp_path / "latents.safetensors")
    latents = Latents.load(tmp_path / "latents.safetensors")
    assert (latents.gain is None) == (name != "encodec in chunks")
    run("decode", model, tmp_path / "latents.safetensors", "-o", tmp_path / "decoded.wav")
    run("reconstruct", model, tmp_path / "in.wav", "-o", tmp_path / "values.wav", "--num-quantizers", 0)
    run("reconstruct", model, tmp_path / "in.wav", "-o", tmp_path / "codes.wav")
    decoded, rate = soundfile.read(tmp_path / "decoded.wav", always_2d=True)
    assert decoded.shape == (samples, channels) and rate == 8000
    assert np.array_equal(decoded, soundfile.read(tmp_path / "values.wav", always_2d=True)[0])
    heard = codec.decode(latents if latents.codes is None else latents.only_codes())[0].T
    assert np.array_equal(heard.numpy(), soundfile.read(tmp_path / "codes.wav", dtype="float32", always_2d=True)[0])

    found = json.loads(run("info", model, "--json"))
    assert found["macs_per_second"] is None and found["sample_rate"] == 8000
    assert found["parameters"]["encoder"] == sum(p.numel() for p in codec.encoder.parameters()) > 0
    assert f"{codec.latent_spec.dim} x" in run("info", model)


def test_evaluation_of_several_adapted_codecs(folder, run, tones, tmp_path):
    models = [f"hf:{folder(name)}" for name in ("oobleck", "encodec in chunks")]
    table = run("evaluate", *models, "--data", tones, "--json", tmp_path / "found.json")
    assert "oobleck" in table and "encodec_in_chunks" in table


def test_sampler_is_an_error(folder, capsys, tmp_path):
    model = f"hf:{folder('mimi')}"
    codec = load_codec(model)
    codec.encode(noise(codec, batch=1)).save(tmp_path / "latents.safetensors")
    out = tmp_path / "out.wav"
    assert main(["decode", model, str(tmp_path / "latents.safetensors"), "-o", str(out), "--sampler", "two_step"]) == 2
    assert "MimiCodec takes no sampler" in capsys.readouterr().err
    assert not out.exists()
