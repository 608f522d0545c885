import json
import math

import pytest
import torch
from partita.evaluation.embedders import open_embedder
from partita.model_loading import load_codec
from partita_core import ChannelLayout, PartitaError
from partita_representation import RepresentationModelConfig
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    EncodecFeatureExtractor,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

RATE = 8000
WIDTH = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
FRONT = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
FRONT |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}


def wav2vec2():
    return Wav2Vec2Model(Wav2Vec2Config(**WIDTH, **FRONT)), Wav2Vec2FeatureExtractor(sampling_rate=RATE)


def hubert():
    return HubertModel(HubertConfig(**WIDTH, **FRONT)), Wav2Vec2FeatureExtractor(sampling_rate=RATE)


def clap():
    text = {**WIDTH, "vocab_size": 20, "max_position_embeddings": 16}
    audio = {"spec_size": 32, "num_mel_bins": 8, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4}
    audio |= {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16}
    config = ClapConfig(text_config=text, audio_config=audio | {"projection_dim": 12}, projection_dim=12)
    frames = {"hop_length": 64, "fft_window_size": 256, "frequency_max": 4000}
    # Longer audio would be cut at random: one second at a time.
    extractor = ClapFeatureExtractor(
        feature_size=8, sampling_rate=RATE, max_length_s=1, truncation="rand_trunc", **frames
    )
    return ClapModel(config), extractor


def whisper():
    half = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}
    halves = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in half.items()}
    tokens = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(d_model=16, num_mel_bins=4, max_source_positions=50, **halves, **tokens)
    extractor = WhisperFeatureExtractor(feature_size=4, sampling_rate=RATE, hop_length=80, chunk_length=1, n_fft=200)
    return WhisperModel(config), extractor


MODELS = {"wav2vec2": (wav2vec2, 16), "hubert": (hubert, 16), "clap": (clap, 12), "whisper": (whisper, 16)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of the model of transformers with this name."""

    def save(name):
        folder = tmp_path_factory.getbasetemp() / "embedders" / name
        if not folder.is_dir():
            torch.manual_seed(0)
            for part in MODELS[name][0]():
                part.save_pretrained(folder)
        return folder

    return save


def sound(seconds, channels=1, rate=RATE):
    time = torch.arange(int(seconds * rate)) / rate
    tones = [torch.sin(2 * math.pi * 440 * (k + 1) * time) * torch.exp(-time) for k in range(channels)]
    return 0.3 * torch.stack(tones)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_audio_models_of_transformers_embed_audio_of_any_rate_length_and_layout(name, saved):
    embed = open_embedder(f"hf:{saved(name)}")
    found = embed(sound(1.5), RATE, ChannelLayout.MONO)
    assert found.shape == (MODELS[name][1],) and found.dtype == torch.float32
    assert torch.isfinite(found).all() and torch.equal(found, embed(sound(1.5), RATE, ChannelLayout.MONO))
    other = embed(sound(1.5, rate=22_050), 22_050, ChannelLayout.MONO)
    stereo = sound(1.5, 2)
    assert (other - found).norm() < 0.3 * (embed(0.1 * stereo.flip(1), RATE, ChannelLayout.STEREO) - found).norm()
    mid_side = torch.stack([stereo.mean(0), (stereo[0] - stereo[1]) / 2])
    both = [embed(stereo, RATE, ChannelLayout.STEREO), embed(mid_side, RATE, ChannelLayout.MID_SIDE)]
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(embed(sound(1.5)[:, :1], RATE, ChannelLayout.MONO)).all()


def test_embedding_is_the_mean_of_the_last_hidden_state(saved):
    model, extractor = wav2vec2()
    model = type(model).from_pretrained(saved("wav2vec2")).eval()
    inputs = extractor(sound(1)[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.mean((0, 1))
    found = open_embedder(f"hf:{saved('wav2vec2')}")(sound(1), RATE, ChannelLayout.MONO)
    torch.testing.assert_close(found, expected)


def test_short_clips_are_repeated(saved):
    """Whisper's input has a fixed length: padding a short tone with silence would dominate the mean."""
    embed = open_embedder(f"hf:{saved('whisper')}")
    steady = [0.3 * torch.sin(2 * math.pi * f * torch.arange(RATE) / RATE)[None] for f in (400, 1200)]
    (low, high), (short, other) = (
        [embed(tone[:, :n], RATE, ChannelLayout.MONO) for tone in steady] for n in (RATE, RATE // 4)
    )
    assert (short - low).norm() < 0.1 * (high - low).norm()
    assert (short - other).norm() > 0.9 * (high - low).norm()


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_one_sample_at_a_higher_sample_rate_is_embedded(name, saved, run):
    for embedder in (f"hf:{saved(name)}", f"latents:{run / 'model'}"):
        found = open_embedder(embedder)(torch.full((2, 1), 0.5), 44_100, ChannelLayout.STEREO)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize(("name", "longest"), [("clap", 1), ("whisper", 1), ("hubert", 10)])
def test_long_clips_are_embedded_in_equal_pieces(name, longest, saved):
    embed = open_embedder(f"hf:{saved(name)}")
    whole = sound(1.2 * longest)
    halves = [embed(half, RATE, ChannelLayout.MONO) for half in whole.chunk(2, dim=-1)]
    torch.testing.assert_close(embed(whole, RATE, ChannelLayout.MONO), torch.stack(halves).mean(0))


def test_embedders_of_codec_latents_and_representation_features(run, tmp_path):
    codec = load_codec(run / "model")
    audio = sound(0.6, 2)
    latents = codec.encode(audio[None], layout="stereo").normalize()
    found = open_embedder(f"latents:{run / 'model'}")(audio, RATE, ChannelLayout.STEREO)
    torch.testing.assert_close(found, latents.values[0].mean(-1))
    model = RepresentationModelConfig.example().build(codec=codec).eval()
    model.save_pretrained(tmp_path / "representation")
    features = open_embedder(f"features:{tmp_path / 'representation'}")(audio, RATE, ChannelLayout.STEREO)
    torch.testing.assert_close(features, model.represent(latents).values[0].mean(0))
    below = open_embedder(f"latents:{tmp_path / 'representation'}")(audio, RATE, ChannelLayout.STEREO)
    torch.testing.assert_close(below, found)


def test_embedder_of_a_transformers_codec_is_its_latents(foreign, tmp_path):
    foreign("encodec").save_pretrained(tmp_path)
    EncodecFeatureExtractor(sampling_rate=RATE).save_pretrained(tmp_path)
    audio = sound(0.5)
    found = [open_embedder(f"{kind}:{tmp_path}")(audio, RATE, ChannelLayout.MONO) for kind in ("hf", "latents:hf")]
    assert torch.equal(*found) and found[0].shape == (8,)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_remote_code_of_a_model_is_never_run(file, tmp_path, monkeypatch):
    for part in wav2vec2():
        part.save_pretrained(tmp_path)
    kinds = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoFeatureExtractor")}
    settings = json.loads((tmp_path / file).read_text())
    kind = {"model_type": "evil"} if file == "config.json" else {"feature_extractor_type": "Evil"}
    (tmp_path / file).write_text(json.dumps(settings | kind | {"auto_map": kinds}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("a question was asked"))
    with pytest.raises(PartitaError) as caught:
        open_embedder(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_invalid_embedders(run, saved, tmp_path):
    for name in ("fad", "clap:x", "latents:", "latents"):
        with pytest.raises(PartitaError, match="latents:MODEL, features:MODEL or hf:NAME"):
            open_embedder(name)
    with pytest.raises(PartitaError, match="not a representation model"):
        open_embedder(f"features:{run / 'model'}")
    with pytest.raises(PartitaError, match="no model folder"):
        open_embedder("hf:nowhere")
    wav2vec2()[0].save_pretrained(tmp_path / "alone")
    with pytest.raises(PartitaError, match="cannot embed audio"):
        open_embedder(f"hf:{tmp_path / 'alone'}")
    (tmp_path / "alone" / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(PartitaError, match="alone"):
        open_embedder(f"hf:{tmp_path / 'alone'}")
