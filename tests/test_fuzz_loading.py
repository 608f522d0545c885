"""Loading of mutated configs, weights, latents, tokens and audio: it succeeds, or raises an error of one line.

The draws are the same in every run. Tests marked `endurance` have more draws, which take minutes.
"""

import copy
import json
import shutil
import struct
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from partita.cli import main
from partita.data import audio_info, encode_source, read_audio
from partita.data.audio.resampling import AudioReader
from partita.model_loading import load_model
from partita_bottlenecks import TanhConfig, VAEConfig
from partita_core import (
    AudioSpec,
    AutoencoderConfig,
    ChannelLayout,
    Latents,
    PartitaError,
    read_json,
    read_tensors,
    write_tensors,
)
from partita_decoders import GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig
from partita_quantizers import ResidualVQConfig, Tokens

RATE = 8000

VALUES = st.sampled_from(
    [None, True, False, 0, 1, -1, 2, 3, 5, 255, 10**5, 2**31, 2**63, 10**12, 10**40, 0.0, -0.5, 0.3, 1e-300, 1e300]
    + ["", "x", "../../x", "/etc", "\ud800", "a\nb", "x" * 5000, "mono", "encoder/oobleck", "autoencoder"]
    + [[], {}, [0], [1, 1], [10**9], {"type": "bottleneck/tanh"}, {"type": "nothing/such"}, {"a": [[]]}]
    + [[[], []], json.loads("[" * 400 + "]" * 400)]
).map(copy.deepcopy)


def fuzz(count):
    """Run a test on `count` draws that are the same in every run."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    chosen = settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=checks)
    return lambda test: chosen(given(data=st.data())(test))


def outcome(action):
    """Result of `action`, or its error, which must be a `PartitaError` with one line of limited length."""
    try:
        return action()
    except PartitaError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, str(error)
        return error


def command(capsys, *arguments):
    """The error message, of one line, of a command with exit code 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("partita ") and error.count("\n") == 1, error
    return error


# ------------------------------------------------------------------ mutations


def paths(tree, path=()):
    """Paths of all values in a tree of dicts and lists."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from paths(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def mutated_tree(draw, tree):
    """The tree with one to three values replaced, removed, duplicated, exchanged or extended."""
    tree = {"root": copy.deepcopy(tree)}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in paths(tree) if path]))
        holder, key = at(tree, path[:-1]), path[-1]
        match draw(st.sampled_from(["replace", "replace", "replace", "scale", "remove", "exchange", "add"])):
            case "replace":
                holder[key] = draw(VALUES)
            case "scale":
                if isinstance(holder[key], int | float):
                    holder[key] *= draw(st.sampled_from([2, -1, 1000, 10**6]))
            case "remove" if path != ("root",):
                del holder[key]
            case "exchange":
                holder[key] = copy.deepcopy(at(tree, draw(st.sampled_from(list(paths(tree))))))
            case _:
                if isinstance(holder[key], dict):
                    holder[key][draw(st.sampled_from(["type", "x", "", "../x", "dim"]))] = draw(VALUES)
                elif isinstance(holder[key], list):
                    holder[key] += [draw(VALUES)]
    return tree["root"]


def mutated_bytes(draw, data, *, head=0):
    """The bytes after one to four changes, most of them in the first `head` bytes if `head` is given."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        end = head if head and draw(st.booleans()) else len(data)
        position = draw(st.integers(0, max(0, min(end, len(data)) - 1)))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(["set", "set", "cut", "remove", "fill", "double", "number"])):
            case "set":
                data[position : position + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del data[position:]
            case "remove":
                del data[position : position + length]
            case "fill":
                data[position : position + length] = bytes([draw(st.sampled_from([0, 255]))]) * length
            case "double":
                data[position:position] = data[position : position + length]
            case _:
                number = draw(st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1]))
                data[position : position + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
    return bytes(data)


def mutated_tensors(draw, tensors):
    """The tensors with another value, type or shape of one of them, with one missing, or with an additional one."""
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name]
    cut = tensor if tensor.dim() else tensor[None]
    match draw(st.sampled_from(["number", "number", "type", "shape", "cut", "remove", "add"])):
        case "number":
            position = draw(st.integers(0, tensor.numel() - 1))
            if tensor.is_floating_point():
                value = draw(st.sampled_from([float("nan"), float("inf"), -1e30, 2.0]))
            else:
                value = draw(st.sampled_from([-2, -1, 0, 1, 2, 7, 100, 10**6, 2**62, -(2**63)]))
            tensor.view(-1)[position] = value
        case "type":
            kinds = [torch.float16, torch.float64, torch.int32, torch.int64, torch.bool, torch.bfloat16, torch.uint8]
            tensors[name] = tensor.to(draw(st.sampled_from(kinds)))
        case "shape":
            tensors[name] = draw(st.sampled_from([tensor[None], tensor.flatten(), cut[:0], tensor.flatten()[0]]))
        case "cut":
            tensors[name] = cut[..., :-1]
        case "remove":
            del tensors[name]
        case _:
            tensors[draw(st.sampled_from(["values", "codes", "gain", "x", ""]))] = torch.zeros(draw(st.integers(0, 3)))
    return tensors


def mutated_safetensors(draw, path, out):
    """Write the file with a mutation of its bytes, tensors, metadata or header."""
    kind = draw(st.sampled_from(["bytes", "tensors", "metadata", "header"]))
    tensors, metadata = read_tensors(path)
    key = next(iter(metadata), "")
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    if kind == "bytes":
        out.write_bytes(mutated_bytes(draw, raw, head=8 + size))
    elif kind == "tensors" or not key:
        write_tensors(out, mutated_tensors(draw, tensors), metadata, finite=False)
    elif kind == "metadata":
        text = json.dumps(mutated_tree(draw, json.loads(metadata[key])))
        text = mutated_bytes(draw, text.encode()).decode(errors="replace") if draw(st.integers(0, 4)) == 0 else text
        write_tensors(out, tensors, {key: text}, finite=False)
    else:
        header = json.dumps(mutated_tree(draw, json.loads(raw[8 : 8 + size]))).encode()
        out.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size :])


# ------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two tiny models: one with continuous latents and codes, and one with bounded latents."""
    folder = tmp_path_factory.mktemp("models")
    audio = AudioSpec(RATE, 2, (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE))
    parts = {"encoder": GenAEEncoderConfig.example(), "decoder": GenAEDecoderConfig.example()}
    torch.manual_seed(0)
    configs = {
        "codes": AutoencoderConfig(audio, 4, bottleneck=VAEConfig(), quantizer=ResidualVQConfig.example(), **parts),
        "bounded": AutoencoderConfig(audio, 4, bottleneck=TanhConfig(), **parts),
    }
    for name, config in configs.items():
        config.build().eval().save_pretrained(folder / name)
    return {name: folder / name for name in configs}


@pytest.fixture(scope="module")
def codec(models):
    return load_model(models["codes"])


@pytest.fixture(scope="module")
def records(models, codec, tmp_path_factory):
    """Folders with files of latents and of tokens of every kind."""
    folder = tmp_path_factory.mktemp("records")
    audio, lengths = torch.rand(2, 2, 300, generator=torch.Generator().manual_seed(0)) - 0.5, [300, 70]
    made = codec.encode(audio, lengths=lengths)
    found = {"both": made, "codes": made.only_codes()}
    found["bounded"] = load_model(models["bounded"]).encode(audio, lengths=lengths)
    for name, record in found.items():
        record.save(folder / "latents" / f"{name}.safetensors")
    for layout in ("flat", "delay"):
        for levels in (None, 2):
            record = Tokens.from_latents(made, layout=layout, num_quantizers=levels)
            record.save(folder / "tokens" / f"{layout}_{levels}.safetensors")
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def configs(models, scratch, data):
    folder = models[data.draw(st.sampled_from(sorted(models)))]
    facts = mutated_tree(data.draw, read_json(folder / "config.json"))
    target = scratch / "model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    text = json.dumps(facts)
    if data.draw(st.integers(0, 5)) == 0:
        (target / "config.json").write_bytes(mutated_bytes(data.draw, text.encode()))
    else:
        (target / "config.json").write_text(text)
    return target


def weights(models, scratch, data):
    folder = models[data.draw(st.sampled_from(sorted(models)))]
    target = scratch / "weights"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    mutated_safetensors(data.draw, folder / "model.safetensors", target / "model.safetensors")
    return target


def record(kind, records, scratch, data):
    source = data.draw(st.sampled_from(sorted((records / kind).iterdir())))
    mutated_safetensors(data.draw, source, scratch / f"{kind}.safetensors")
    return scratch / f"{kind}.safetensors"


FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_24"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
}


def written(name):
    tone = np.sin(np.arange(2400) / 5)[:, None] * [0.5, 0.3]
    file, (container, coding) = BytesIO(), FORMATS[name]
    soundfile.write(file, tone, RATE, format=container, subtype=coding)
    return file.getvalue()


def audio(scratch, data):
    name = data.draw(st.sampled_from(sorted(FORMATS)))
    kind = data.draw(st.sampled_from(["mutated", "mutated", "mutated", "mislabelled", "random"]))
    if kind == "random":
        content = data.draw(st.binary(max_size=300))
        content = written(name)[: data.draw(st.integers(0, 64))] + content
    else:
        content = mutated_bytes(data.draw, written(name), head=128)
    suffix = data.draw(st.sampled_from(sorted(FORMATS))) if kind == "mislabelled" else name
    out = scratch / f"audio.{suffix.split('.')[-1]}"
    out.write_bytes(content)
    return out


# ------------------------------------------------------------------ the tests


def load_config(models, scratch, data):
    outcome(lambda: load_model(configs(models, scratch, data)))


def load_weights(models, scratch, data):
    outcome(lambda: load_model(weights(models, scratch, data)))


def load_latents(codec, records, scratch, data):
    path = record("latents", records, scratch, data)
    found = outcome(lambda: Latents.load(path))
    if isinstance(found, Latents):
        outcome(lambda: codec.decode(found))
        outcome(found.normalize)


def load_tokens(codec, records, scratch, data):
    path = record("tokens", records, scratch, data)
    found = outcome(lambda: Tokens.load(path))
    if isinstance(found, Tokens):
        outcome(lambda: codec.decode(found.to_latents()))


def load_audio(codec, scratch, data):
    path = audio(scratch, data)
    outcome(lambda: audio_info(path))
    outcome(lambda: read_audio(path))
    outcome(lambda: list(AudioReader(path, 11025)))
    outcome(lambda: encode_source(codec, path))


def load_in_commands(models, codec, records, scratch, data, capsys):
    """Commands that load a file which cannot be loaded print one line and exit with code 2."""
    match data.draw(st.sampled_from(["config", "latents", "tokens", "audio"])):
        case "config":
            path = configs(models, scratch, data)
            if isinstance(outcome(lambda: load_model(path)), PartitaError):
                command(capsys, "info", path)
        case "latents":
            path = record("latents", records, scratch, data)
            if isinstance(outcome(lambda: Latents.load(path)), PartitaError):
                command(capsys, "decode", models["codes"], path, "-o", scratch / "out.wav")
        case "tokens":
            path = record("tokens", records, scratch, data)
            if isinstance(outcome(lambda: Tokens.load(path)), PartitaError):
                command(capsys, "detokenize", models["codes"], path, "-o", scratch / "out.wav")
        case _:
            path = audio(scratch, data)
            if isinstance(outcome(lambda: encode_source(codec, path)), PartitaError):
                command(capsys, "encode", models["codes"], path, "-o", scratch / "out.safetensors")
    assert not any(scratch.glob("out.*"))


test_configs = fuzz(40)(load_config)
test_more_configs = pytest.mark.slow(fuzz(140)(load_config))
test_weights = fuzz(40)(load_weights)
test_latents = fuzz(150)(load_latents)
test_tokens = fuzz(120)(load_tokens)
test_audio = fuzz(150)(load_audio)
test_commands = fuzz(20)(load_in_commands)

test_many_configs = pytest.mark.endurance(fuzz(5000)(load_config))
test_many_weights = pytest.mark.endurance(fuzz(2000)(load_weights))
test_many_latents = pytest.mark.endurance(fuzz(5000)(load_latents))
test_many_tokens = pytest.mark.endurance(fuzz(5000)(load_tokens))
test_many_audio_files = pytest.mark.endurance(fuzz(10_000)(load_audio))
