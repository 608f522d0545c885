"""Representation models: on any codec, in any batch, saved with the codec in their folder, and asked in words."""

import shutil
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from partita.interop import from_huggingface
from partita.model_loading import load_codec, load_model, load_representation
from partita_bottlenecks import TanhConfig, VAEConfig
from partita_core import (
    AudioSpec,
    AutoencoderConfig,
    ChannelLayout,
    Codec,
    LatentSpec,
    PartitaError,
    QuantizedCodecConfig,
    measure_latents,
    override,
    read_json,
    read_tensors,
    write_json,
)
from partita_decoders import ConsistencyDecoderConfig, GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig, SummaryEncoderConfig
from partita_representation import (
    CausalRepresentationConfig,
    FrozenLanguageModel,
    FrozenLLM,
    RepresentationModel,
    RepresentationModelConfig,
    SupervisionInput,
    SwiGLUAdapterConfig,
)
from partita_representation import model as representation
from partita_testing.dummies import AveragingConfig, NeighboringConfig, blocks

STEREO = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
ENCODER = CausalRepresentationConfig.example()
WHOLE_PAST = replace(ENCODER, window=None)


def genae(measured=True) -> Codec:
    torch.manual_seed(0)
    config = AutoencoderConfig(STEREO, 4, GenAEEncoderConfig.example(), VAEConfig(), GenAEDecoderConfig.example())
    codec = config.build().eval()
    if measured:
        codec.latent_spec = measure_latents(codec, [codec.encode(noise(codec, 60, batch=1))])
    return codec


def another(codec: Codec) -> Codec:
    """The codec with other weights."""
    codec.train()
    with torch.no_grad():
        next(codec.encoder.parameters()).add_(1)
    return codec.eval()


def sets() -> Codec:
    """Sets of vectors, bounded, as Music2Latent2 makes them."""
    torch.manual_seed(0)
    encoder, decoder = SummaryEncoderConfig.example(), ConsistencyDecoderConfig.example()
    codec = AutoencoderConfig(STEREO, 4, encoder, TanhConfig(), decoder).build().eval()
    codec.latent_spec = measure_latents(codec, [codec.encode(noise(codec, 20, batch=1))])
    return codec


CODECS = {
    "genae": lambda foreign: genae(),
    "sets": lambda foreign: sets(),
    "quantized": lambda foreign: QuantizedCodecConfig.example().build().eval(),
    "oobleck": lambda foreign: from_huggingface(foreign("oobleck")),
    "dac": lambda foreign: from_huggingface(foreign("dac")),
    "encodec": lambda foreign: from_huggingface(foreign("encodec")),
    "encodec in chunks": lambda foreign: from_huggingface(foreign("encodec in chunks")),
    "mimi": lambda foreign: from_huggingface(foreign("mimi")),
}


def noise(codec, frames, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, codec.audio_spec.channels, frames * codec.latent_spec.hop)
    return 0.3 * torch.randn(shape, generator=generator)


def built(codec, **settings) -> RepresentationModel:
    torch.manual_seed(1)
    return RepresentationModelConfig(**{"encoder": WHOLE_PAST} | settings).build(codec=codec).eval()


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """The folder of a tiny language model of bytes, with random weights."""
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("lm")
    sizes = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=384, initializer_range=0.5, eos_token_id=1, pad_token_id=0, **sizes)
        LlamaForCausalLM(config).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def asked(lm):
    """A model with an adapter to the language model."""
    return built(genae(), adapter=SwiGLUAdapterConfig.example(), language_model=str(lm))


# ------------------------------------------------------------------ features


@pytest.mark.parametrize("name", CODECS)
def test_features_of_any_codec_come_back_with_it(foreign, name, tmp_path):
    codec = CODECS[name](foreign)
    model = built(codec)
    audio = noise(codec, 9)
    lengths = torch.tensor([audio.shape[-1], codec.latent_spec.hop * 4 + 1])
    features = model.represent(audio, lengths=lengths)
    assert features.values.shape == (2, 9, 16) and features.values.dtype == torch.float32
    assert features.frames.tolist() == [9, 5] and not features.values[1, 5:].any()
    assert features.frame_rate == Fraction(codec.latent_spec.sample_rate, codec.latent_spec.hop)
    assert features.values.std() > 0.1 and not features.values.requires_grad

    model.save_pretrained(tmp_path / "model")
    back = load_representation(tmp_path / "model")
    assert type(back.codec) is type(codec) and not back.training
    assert (back.codec.space_id, back.codec.latent_spec) == (codec.space_id, codec.latent_spec)
    assert torch.equal(back.represent(audio, lengths=lengths).values, features.values)
    # The folder within is a codec as any other.
    within = load_codec(tmp_path / "model" / "codec")
    assert torch.equal(within.encode(audio).values, codec.encode(audio).values)


def test_features_are_the_encoders_of_normalised_latents():
    codec = genae()
    model = built(codec)
    latents = codec.encode(noise(codec, 9))
    expected = model.encoder(latents.normalize().values)
    for given in (latents, latents.normalize()):
        torch.testing.assert_close(model.represent(given).values, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(model.normalize(latents.values)), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.normalize(latents.values), latents.normalize().values, rtol=1e-5, atol=1e-6)
    unknown = built(genae(measured=False))
    assert torch.equal(unknown.represent(latents).values, unknown.encoder(latents.values))
    bounded = built(sets())
    latents = bounded.codec.encode(noise(bounded.codec, 3))
    torch.testing.assert_close(bounded.normalize(latents.values), latents.normalize().values, rtol=1e-4, atol=1e-5)


def test_codes_alone_are_enough(foreign):
    codec = from_huggingface(foreign("mimi"))
    model = built(codec)
    latents = codec.encode(noise(codec, 9))
    assert torch.equal(model.represent(latents.only_codes()).values, model.represent(latents).values)


@pytest.mark.parametrize("encoder", [WHOLE_PAST, ENCODER, NeighboringConfig()])
def test_results_do_not_depend_on_the_batch(encoder):
    codec = genae()
    model = built(codec, encoder=encoder).double()
    codec.double()
    audio = noise(codec, 12, batch=5).double()
    lengths = torch.tensor([12, 3, 12, 7, 3]) * codec.latent_spec.hop
    together = model.represent(audio, lengths=lengths)
    assert together.values.dtype == torch.float64
    for i, length in enumerate(lengths.tolist()):
        alone = model.represent(audio[i : i + 1, :, :length]).values[0]
        torch.testing.assert_close(together.values[i, : len(alone)], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("encoder", [WHOLE_PAST, ENCODER, NeighboringConfig(), AveragingConfig()])
def test_long_recordings_go_through_in_pieces(encoder, monkeypatch):
    codec = sets()
    codec.double()
    model = built(codec, encoder=encoder).double()
    latents = codec.encode(noise(codec, 23).double())
    whole = model.represent(latents).values
    monkeypatch.setattr(representation, "_TILE", 4)
    taken = []
    method = "step" if hasattr(model.encoder, "step") else "forward"
    plain = getattr(model.encoder, method)
    monkeypatch.setattr(model.encoder, method, lambda x, *a, **k: (taken.append(x.shape[-1]), plain(x, *a, **k))[1])
    torch.testing.assert_close(model.represent(latents).values, whole, rtol=0, atol=1e-9)
    context = 0 if method == "step" else sum(model.encoder.context)
    assert len(taken) == 6 and max(taken) <= (4 + context) * codec.latent_spec.tokens_per_frame


def test_an_encoder_that_cannot_be_cut_takes_the_whole(monkeypatch):
    codec = genae()
    model = built(codec, encoder=NeighboringConfig())
    whole = model.represent(noise(codec, 9)).values
    monkeypatch.setattr(representation, "_TILE", 4)
    model.encoder.context = (None, None)
    assert torch.equal(model.represent(noise(codec, 9)).values, whole)


def test_latents_of_another_space_are_refused():
    model, other = built(genae()), another(genae())
    latents = other.encode(noise(other, 3))
    with pytest.raises(PartitaError, match="these latents have space_id"):
        model.represent(latents)
    with pytest.raises(PartitaError, match="latents know their lengths and layouts"):
        model.represent(model.codec.encode(noise(other, 3)), lengths=[1, 1])


def test_autocast_around_it_changes_nothing():
    model = built(genae())
    audio = noise(model.codec, 9)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.represent(audio).values
    assert torch.equal(found, model.represent(audio).values)


def test_optimized_it_makes_the_same_features():
    model, audio = built(genae()), noise(genae(), 9)
    expected = model.represent(audio).values
    torch.testing.assert_close(model.optimize().represent(audio).values, expected, rtol=0, atol=1e-4)
    with pytest.raises(PartitaError, match="an optimized model cannot be saved"):
        model.saved_config()
    low = built(genae()).optimize(precision="bf16").represent(audio).values
    assert low.dtype == torch.float32 and (low - expected).square().mean() < 1e-2


# ------------------------------------------------------------------ parts and saving


def test_only_what_is_learned_is_in_its_weights(asked, tmp_path):
    asked.save_pretrained(tmp_path / "model")
    names = {path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*")}
    own = {"README.md", "config.json", "model.safetensors"}
    assert names == own | {"codec"} | {f"codec/{name}" for name in own}
    tensors, _ = read_tensors(tmp_path / "model" / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"encoder", "adapter"}
    assert {name.split(".")[0] for name, _ in asked.named_parameters()} == {"encoder", "adapter"}
    facts = read_json(tmp_path / "model" / "config.json")
    assert facts["nested"] == ["codec"] and facts["space_id"] == asked.codec.space_id
    assert facts["model"]["language_model_sha256"] == asked.language_model.sha256
    assert facts["model"]["language_model_width"] == 12
    before = asked.codec.space_id
    asked.train()
    assert not asked.codec.training and asked.codec.space_id == before


def test_a_codec_is_carried_as_it_was_measured(tmp_path):
    codec = genae()
    built(codec).save_pretrained(tmp_path / "model")
    assert load_representation(tmp_path / "model").codec.latent_spec.mean == codec.latent_spec.mean


def test_another_codec_in_the_folder_is_refused(tmp_path):
    built(genae()).save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "codec")
    another(genae()).save_pretrained(tmp_path / "model" / "codec")
    with pytest.raises(PartitaError, match="was trained on the latent space .*, its codec's is"):
        load_model(tmp_path / "model")


def test_kinds_are_told_apart(tmp_path):
    codec = genae()
    codec.save_pretrained(tmp_path / "codec")
    built(codec).save_pretrained(tmp_path / "model")
    assert isinstance(load_model(tmp_path / "model"), RepresentationModel)
    with pytest.raises(PartitaError, match="model holds a RepresentationModel, which is not a codec"):
        load_codec(tmp_path / "model")
    with pytest.raises(PartitaError, match="codec holds a Autoencoder, which is not a representation model"):
        load_representation(tmp_path / "codec")
    with pytest.raises(PartitaError, match="a representation is built on a codec; a RepresentationModel is none"):
        RepresentationModelConfig.example().build(codec=load_model(tmp_path / "model"))


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(PartitaError, match="a representation on a BlockCodec, which cannot be saved, cannot either"):
        built(blocks()).save_pretrained(tmp_path / "model")
    codec = genae()
    spare = RepresentationModel(codec, ENCODER.build(latent_spec=codec.latent_spec))
    with pytest.raises(PartitaError, match="not built from a registered Config cannot be saved"):
        spare.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_are_refused():
    codec = genae()
    with pytest.raises(PartitaError, match="the encoder takes latents of dim 5, the codec's have 4"):
        RepresentationModel(codec, ENCODER.build(latent_spec=LatentSpec(5, 8000, 16)))
    with pytest.raises(PartitaError, match="has the part adapter and no language_model; it takes both, or neither"):
        RepresentationModelConfig(adapter=SwiGLUAdapterConfig()).build(codec=codec)
    alone = override(RepresentationModelConfig(), ["language_model=somewhere"])
    with pytest.raises(PartitaError, match="has the part language_model and no adapter; it takes both, or neither"):
        alone.build(codec=codec)
    with pytest.raises(PartitaError, match="the language model 'somewhere' could not be loaded: "):
        override(alone, ["adapter=swiglu"]).build(codec=codec)


# ------------------------------------------------------------------ the language model


def test_it_is_asked_in_words(asked, lm, tmp_path):
    audio = noise(asked.codec, 9, batch=3)
    lengths = torch.tensor([9, 4, 7]) * asked.codec.latent_spec.hop
    texts = asked.answer(audio, "what is this? ", max_new_tokens=10, lengths=lengths)
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts) and any(texts)
    latents = asked.codec.encode(audio, lengths=lengths)
    assert asked.answer(latents, "what is this? ", max_new_tokens=10) == texts
    assert [asked.answer(latents[i], "what is this? ", max_new_tokens=10)[0] for i in range(3)] == texts
    with torch.autocast("cpu", torch.bfloat16):
        assert asked.answer(latents, "what is this? ", max_new_tokens=10) == texts
    asked.save_pretrained(tmp_path / "model")
    assert load_representation(tmp_path / "model").answer(latents, "what is this? ", max_new_tokens=10) == texts


def test_its_surprise_at_texts_is_the_loss_of_each(asked):
    """Item by item what training sums over the tokens of all, each with the end of its text."""
    features, texts = asked.represent(noise(asked.codec, 9, batch=2)), ["a tone", "noise, noise"]
    found = asked.surprise(features, "what is this? ", texts)
    supervision = FrozenLLM(adapter=asked.adapter, language_model=asked.language_model)
    values = features.values.to(next(asked.parameters()))
    batch = SupervisionInput(values, torch.zeros(2, 0, 0), features.frames, ["what is this? "] * 2, texts)
    with torch.no_grad():
        together = supervision(batch).loss
    tokens = torch.tensor([len(text) + 1.0 for text in texts])
    torch.testing.assert_close((found * tokens).sum() / tokens.sum(), together)
    assert found.shape == (2,) and abs(float(found[0] - found[1])) > 1e-4


def test_it_is_loaded_when_it_is_asked(asked, lm, tmp_path, monkeypatch):
    asked.save_pretrained(tmp_path / "model")
    loaded = []
    plain = FrozenLanguageModel.__init__
    monkeypatch.setattr(
        FrozenLanguageModel, "__init__", lambda self, *a, **k: (loaded.append(a), plain(self, *a, **k))[1]
    )
    back = load_representation(tmp_path / "model")
    audio = noise(back.codec, 3)
    back.represent(audio)
    assert not loaded
    assert back.language_model is back.language_model
    assert loaded == [(str(lm), asked.language_model.sha256)]
    back.save_pretrained(tmp_path / "again")
    assert read_json(tmp_path / "again" / "config.json") == read_json(tmp_path / "model" / "config.json")


def test_another_language_model_is_refused(asked, tmp_path):
    asked.save_pretrained(tmp_path / "model")
    facts = read_json(tmp_path / "model" / "config.json")
    facts["model"]["language_model_sha256"] = "0123456789abcdef"
    write_json(tmp_path / "model" / "config.json", facts)
    model = load_representation(tmp_path / "model")
    with pytest.raises(PartitaError, match="0123456789abcdef"):
        model.answer(noise(model.codec, 3), "?")


def test_without_a_language_model_nobody_can_be_asked():
    model = built(genae())
    assert model.language_model is None and model.adapter is None
    with pytest.raises(PartitaError, match="trained without a language model; there is nobody to ask"):
        model.answer(noise(model.codec, 3), "?")
    with pytest.raises(PartitaError, match="trained without a language model; there is nobody to ask"):
        model.surprise(model.represent(noise(model.codec, 3)), "?", ["a"])
