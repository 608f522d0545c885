"""Generators on every kind of latents: shapes, randomness, conditions and saving."""

from fractions import Fraction

import pytest
import torch
from partita.generation import (
    FlowHeadConfig,
    Generator,
    GeneratorConfig,
    LlamaBackboneConfig,
    PretrainedBackboneConfig,
    TokenHeadConfig,
)
from partita.objectives import LatentGenerationConfig, TrainState
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, Frozen, PartitaError
from partita_core.loading import build_for
from partita_quantizers import ResidualVQConfig, Tokens
from partita_representation import CausalRepresentationConfig, RepresentationModelConfig
from partita_testing.dummies import (
    AveragingConfig,
    NoisyConfig,
    RoundingConfig,
    StridedConfig,
    TransposedConfig,
    autoencoder,
    blocks,
    registered,
)

SECONDS = 0.02  # 160 samples, 10 frames
# In float64: an untrained model magnifies what rounding there is from step to step.
TOLERANCE = 1e-9
KINDS = ("ordered", "sets", "represented", "flat", "delay", "attached")


def codec_of(kind: str):
    """Ordered latents, sets of two vectors, codes of a bottleneck, or codes next to continuous latents."""
    if kind in ("flat", "delay"):
        return autoencoder(ChannelLayout.MONO, bottleneck=RoundingConfig())
    if kind == "attached":
        return autoencoder(quantizer=ResidualVQConfig.example())
    if kind == "sets":
        encoder, decoder = StridedConfig(tokens_per_frame=2), TransposedConfig()
        return autoencoder(ChannelLayout.STEREO, encoder=encoder, decoder=decoder)
    return autoencoder()


def base_of(kind: str):
    codec = codec_of(kind)
    if kind != "represented":
        return codec
    torch.manual_seed(3)
    return RepresentationModelConfig(AveragingConfig()).build(codec=codec).eval()


def generator(kind: str = "ordered", *, stop: bool = True, base=None) -> Generator:
    """An untrained generator without zero-initialized layers."""
    base = base_of(kind) if base is None else base
    codes = kind in ("flat", "delay", "attached")
    head = TokenHeadConfig(layout="flat" if kind == "flat" else "delay") if codes else FlowHeadConfig.example()
    torch.manual_seed(1)
    model = GeneratorConfig(head, LlamaBackboneConfig.example(), stop=stop).build(codec=base)
    for name, parameter in model.named_parameters():
        if not parameter.any() or (name.startswith("backbone") and parameter.dim() == 2):
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def content(latents):
    return latents.codes if latents.values is None else latents.values


# ------------------------------------------------------------------ what is generated


@pytest.mark.parametrize("kind", KINDS)
def test_latents_of_every_kind_are_generated_and_decoded(kind):
    model = generator(kind)
    codec = model.codec
    for samples in (1, 16, 17, 400):
        latents = model.generate(["a dog", ""], samples / 8000)
        assert latents.audio_lengths.tolist() == [samples, samples]
        assert content(latents).shape[-1] == codec.latent_spec.frames(samples) * codec.latent_spec.tokens_per_frame
        audio = codec.decode(latents)
        assert audio.shape == (2, codec.audio_spec.channels, samples) and torch.isfinite(audio).all()
    usual = ChannelLayout.MONO if codec.audio_spec.channels == 1 else ChannelLayout.STEREO
    assert latents.space_id == codec.space_id and latents.layouts() == [usual] * 2
    if latents.values is None:
        assert (latents.codes >= 0).all() and Tokens.from_latents(latents).to_latents().codes.equal(latents.codes)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_batch_independent(kind):
    # A frozen base keeps its dtype: of a model in float64 it must be float64, too.
    model = generator(kind, base=base_of(kind).double()).double()
    prompts = ["a long prompt about rain", "x", "", "x"]
    together = content(model.generate(prompts, SECONDS, seed=[1, 2, 3, 4]))
    for item, prompt in enumerate(prompts):
        alone = content(model.generate([prompt], SECONDS, seed=item + 1))[0]
        torch.testing.assert_close(alone, together[item], atol=TOLERANCE, rtol=0)
    assert not torch.allclose(together[1].double(), together[3].double())  # by the seed
    again = content(model.generate(prompts[:2], SECONDS, seed=2))
    torch.testing.assert_close(again[1], together[1], atol=TOLERANCE, rtol=0)
    assert not torch.allclose(again[0].double(), again[1].double())  # by the prompt
    assert not torch.allclose(again[0].double(), together[0].double())


@pytest.mark.parametrize("kind", KINDS)
def test_generation_states_equal_training_states(kind):
    """Sampling with a cache has the same states as one forward pass over the sampled latents."""
    model = generator(kind)
    seen = []
    rollout = model.head.rollout

    def watched(*arguments):
        it = rollout(*arguments)
        push = it.push
        it.push = lambda states, free: seen.append(states) or push(states, free)
        return it

    model.head.rollout = watched
    latents = model.generate(["a dog", "rain on a roof"], SECONDS, guidance=1.0)
    target = content(latents)
    output = model(target, latents.frames, ["a dog", "rain on a roof"], latents.layout)
    torch.testing.assert_close(torch.stack(seen, dim=1), output.states, atol=2e-4, rtol=1e-4)


def test_guidance_changes_only_items_with_a_prompt():
    model = generator()
    plain, led = (model.generate(["a dog", ""], SECONDS, guidance=g).values for g in (1.0, 3.0))
    assert (plain[0] - led[0]).abs().max() > 1e-2
    torch.testing.assert_close(plain[1], led[1], atol=1e-4, rtol=1e-4)


def test_layouts_condition_the_output():
    model = generator()
    latents = model.generate(["x"] * 3, SECONDS, layout=["mono", "stereo", "mid_side"])
    assert latents.layout.tolist() == [0, 1, 2]
    assert (latents.values[0] - latents.values[1]).abs().max() > 1e-3
    assert model.codec.decode(model.generate(["x"], SECONDS, layout="mono")).shape == (1, 1, 160)


def test_stop_ends_items_early():
    model = generator()
    with torch.no_grad():
        model.stop.weight.zero_()
        model.stop.bias.fill_(1.0)
    assert model.generate(["a", "b"], SECONDS).audio_lengths.tolist() == [160, 160]
    latents = model.generate(["a", "b"], SECONDS, stop=True)
    assert latents.audio_lengths.tolist() == [32, 32]  # a patch of two frames, at least
    with torch.no_grad():
        model.stop.bias.fill_(-1.0)
    assert model.generate(["a"], SECONDS, stop=True).audio_lengths.tolist() == [160]
    # Each item ends by itself, and is zero from there.
    model.stop.register_forward_hook(lambda module, inputs, output: output * 0 + torch.tensor([[1.0], [-1.0]]))
    latents = model.generate(["a", "rain"], SECONDS, stop=True)
    assert latents.audio_lengths.tolist() == [32, 160]
    assert (latents.values[0, :, 2:] == 0).all() and (latents.values[1] != 0).any(0).all()


def test_invalid_generation_arguments():
    model = generator("flat", stop=False)
    cases = [
        ((["x"], 0.0), {}, "1 prompts and 0.0 seconds"),
        (([], 1.0), {}, "0 prompts and 1.0 seconds"),
        ((["x"], torch.nan), {}, "seconds is nan"),
        ((["x"], torch.inf), {}, "seconds is inf"),
        ((["x"], 1e12), {}, "1e.12 seconds .* 32768 positions"),
        ((["x"], 1.0), {"seed": 10**20}, "seed is 1000"),
        ((["x"], 1.0), {"seed": -(10**20)}, "seed is -1000"),
        ((["x"], 1.0), {"stop": True}, "model.stop=true"),
        ((["x"], 1.0), {"steps": 3}, "steps"),
        ((["x"], 1.0), {"layout": "stereo"}, "stereo.* mono"),
        ((["x"], 1.0), {"seed": [1, 2]}, "2 seeds for 1 items"),
    ]
    for arguments, settings, reason in cases:
        with pytest.raises(PartitaError, match=reason):
            model.generate(*arguments, **settings)
    with pytest.raises(PartitaError, match="no codes"):
        GeneratorConfig(TokenHeadConfig(), LlamaBackboneConfig.example()).build(codec=autoencoder())
    with pytest.raises(PartitaError, match="multiple of 8"):
        LlamaBackboneConfig(width=20, heads=4)


def test_prompt_and_audio_share_the_positions():
    model = generator("flat")
    codec = model.codec
    model.backbone.positions = 4 + model.head.steps(
        codec.latent_spec.frames(round(SECONDS * codec.latent_spec.sample_rate))
    )
    assert len(model.generate(["abc"], SECONDS)) == 1  # three bytes and the start
    with pytest.raises(PartitaError, match="with the prompt"):
        model.generate(["abcd"], SECONDS)


def test_codecs_with_a_gain_raise():
    codec = autoencoder()
    codec.has_gain = True
    with pytest.raises(PartitaError, match="gain per frame"):
        GeneratorConfig.example().build(codec=codec)


# ------------------------------------------------------------------ the whole path


def test_shapes_from_latents_to_features_to_states_to_audio():
    """25 frames and 12.5 steps per second, two frames per patch."""
    parts = {"encoder": StridedConfig(), "bottleneck": NoisyConfig(), "decoder": TransposedConfig()}
    torch.manual_seed(0)
    codec = AutoencoderConfig(AudioSpec(400, 1, (ChannelLayout.MONO,)), 4, **parts).build().eval()
    base = RepresentationModelConfig(CausalRepresentationConfig.example()).build(codec=codec).eval()
    encoder, model = base.encoder, generator(base=base)
    spec, head = codec.latent_spec, model.head
    assert spec.frame_rate == 25 and head.patch == 2 and Fraction(spec.frame_rate) / head.patch == Fraction(25, 2)

    values = codec.encode(torch.randn(1, 1, 800) * 0.1).values  # two seconds
    features = base(base.normalize(values))
    assert values.shape == (1, 4, 50) and features.shape == (1, 50, encoder.width)
    heard = head.inputs(values, model.backbone)
    assert heard.shape == (1, 25, model.backbone.width)
    states = model(values, torch.tensor([50]), ["x"], torch.tensor([0])).states
    assert states.shape == (1, 25, model.backbone.width)

    latents = model.generate(["x"], 2.0)
    assert latents.values.shape == (1, 4, 50)
    audio = codec.decode(latents)
    assert audio.shape == (1, 1, 800) and torch.isfinite(audio).all()
    # What was generated goes round again: features of it, and what the model hears of them.
    assert base.represent(audio).values.shape == features.shape
    assert not any("codec" in name or "encoder" in name for name in model.state_dict())


# ------------------------------------------------------------------ training


def batch(codec) -> dict:
    generator = torch.Generator().manual_seed(0)
    audio = 0.3 * torch.randn(3, codec.audio_spec.channels, 16 * 9, generator=generator)
    layouts = torch.tensor([int(codec.audio_spec.layouts[0])] * 3)
    return {
        "audio": audio,
        "audio_lengths": torch.tensor([144, 50, 16]),
        "layout": layouts,
        "answer": ["a dog", "rain", ""],
        "index": torch.arange(3),
    }


def objective(model: Generator, **changes):
    return LatentGenerationConfig(**changes).build(model=model, codec=model.base)


@pytest.mark.parametrize("kind", KINDS)
def test_trained_parameters_get_gradients_and_frozen_ones_none(kind):
    it = objective(generator(kind)).train()
    output = it(batch(it.codec), TrainState(), "generator")
    torch.testing.assert_close(output.total.detach(), output.losses["latents"] + output.losses["stop"])
    output.total.backward()
    for name, parameter in it.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert all(parameter.grad is None for parameter in it.codec.parameters())
    assert len(it.parameter_groups("generator")[0]["params"]) == len(list(it.parameters()))
    it.model.base.check()


def test_stored_codes_give_the_loss_of_the_audio_without_padding():
    it = objective(generator("delay")).eval()
    given = batch(it.codec)
    codes = it.codec.encode(given["audio"], lengths=given["audio_lengths"], layout=given["layout"]).codes
    longer = torch.nn.functional.pad(codes, (0, 5), value=-1)
    found = []
    for stored in ({}, {"codes": codes}, {"codes": longer}):
        one = {name: value for name, value in (given | stored).items() if not stored or name != "audio"}
        it.check_batch(one)
        found.append(it(one, TrainState(), "generator").losses)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2]["latents"], found[0]["latents"])
    # The longest item's end is within the longer crop: one more that is known.
    assert not torch.isclose(found[2]["stop"], found[0]["stop"])


def test_stop_loss_is_on_detached_states():
    it = objective(generator(), weights={"latents": 0.0, "stop": 1.0}).train()
    it(batch(it.codec), TrainState(), "generator").total.backward()
    for name, parameter in it.model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == name.startswith("stop"), name


def test_texts_are_dropped_in_training_only():
    it = objective(generator(stop=False), drop=0.5)
    assert set(it.weights) == {"latents"}
    texts = {"answer": ["a", "b", "c"] * 200}
    torch.manual_seed(0)
    assert list(it.eval()._texts(texts, 600)) == texts["answer"]
    kept = it.train()._texts(texts, 600)
    assert 250 < sum(text == "" for text in kept) < 350
    assert all(text in ("", given) for text, given in zip(kept, texts["answer"]))
    assert list(it.eval()._texts({}, 2)) == ["", ""]


def test_objective_needs_the_codec_of_the_model():
    model = generator()
    with pytest.raises(PartitaError, match="another codec"):
        LatentGenerationConfig().build(model=model, codec=Frozen(autoencoder()))
    with pytest.raises(PartitaError, match="unclaimed|belongs to no loss"):
        LatentGenerationConfig(weights={"latents": 1.0, "stop": 1.0, "mel": 1.0}).build(model=model, codec=model.base)
    assert objective(model).requires == {"audio|latents", "audio_lengths", "layout"}
    assert objective(generator("flat")).requires == {"audio|codes", "audio_lengths", "layout"}


@pytest.mark.parametrize("kind", ["ordered", "delay"])
def test_text_condition_is_learned(kind):
    """Two texts with two constant latents, learned in a few steps."""
    it = objective(generator(kind, stop=False), drop=0.0).train()
    dims, frames = it.codec.latent_spec.dim, 6
    values = torch.stack([torch.full((dims, frames), x) for x in (0.8, -0.8)])
    codes = torch.stack([torch.full((dims, frames), x) for x in (4, 1)])
    one = {"codes": codes} if kind == "delay" else {"latents": values}
    one |= {"audio_lengths": torch.tensor([96, 96]), "layout": torch.tensor([0, 0]), "answer": ["high", "low"]}
    optimizer = torch.optim.Adam(it.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        it(one, TrainState(), "generator").total.backward()
        optimizer.step()
    found = content(it.model.eval().generate(["high", "low"] * 4, 96 / 8000, seed=list(range(8)), guidance=1.0))
    means = found.double().mean((1, 2))
    assert means[::2].min() > means[1::2].max()


def test_training_runs_in_half_precision():
    it = objective(generator("represented")).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = it(batch(it.codec), TrainState(), "generator")
    assert output.total.dtype == torch.float32 and torch.isfinite(output.total)
    output.total.backward()


# ------------------------------------------------------------------ saving


@pytest.mark.parametrize("kind", ["ordered", "sets", "represented", "flat"])
def test_generator_is_saved_with_its_codec(kind, tmp_path):
    with registered():
        model = generator(kind)
        model.save_pretrained(tmp_path / "model")
        assert (tmp_path / "model" / "codec" / "model.safetensors").is_file()
        again = Generator.from_pretrained(tmp_path / "model")
    assert again.stop is not None and again.codec.space_id == model.codec.space_id
    one, other = (content(it.generate(["a dog"], SECONDS, seed=5)) for it in (model, again))
    assert torch.equal(one, other)


def test_generator_on_an_unsavable_codec():
    model = GeneratorConfig(TokenHeadConfig(), LlamaBackboneConfig.example()).build(codec=blocks())
    with pytest.raises(PartitaError, match="BlockCodec"):
        model.saved_config()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("head", ["delay", "ordered"])
@pytest.mark.slow
def test_remote_code_of_a_language_model_is_never_run(head, nested, tmp_path, monkeypatch):
    (tmp_path / "modeling_evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Evil: pass\n")
    kinds = {name: "modeling_evil.Evil" for name in ("AutoModel", "AutoModelForCausalLM")}
    evil = {"model_type": "vision-encoder-decoder", "auto_map": kinds, "_name_or_path": str(tmp_path)}
    parts = {name: {"model_type": "vit", "hidden_size": 8, "num_attention_heads": 1} for name in ("encoder", "decoder")}
    settings = evil | parts
    if nested:
        settings = {
            "model_type": "llava",
            "text_config": settings,
            "vision_config": {"model_type": "clip_vision_model"},
        }
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("somebody was asked"))
    head = TokenHeadConfig() if head == "delay" else FlowHeadConfig.example()
    language_model = PretrainedBackboneConfig("x", settings | {"tokenizer_class": "ByT5Tokenizer"})
    config = GeneratorConfig(head, language_model)
    with registered(), pytest.raises(PartitaError) as caught:
        codec = codec_of("delay" if isinstance(head, TokenHeadConfig) else "ordered")
        build_for({}, config, lambda: config.build(codec=codec), "here", kind=Generator)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_names_of_code_are_not_saved(tmp_path):
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = LlamaConfig(vocab_size=400, **sizes, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    LlamaForCausalLM(settings).save_pretrained(tmp_path)
    ByT5Tokenizer().save_pretrained(tmp_path)
    with registered():
        model = GeneratorConfig(FlowHeadConfig.example(), PretrainedBackboneConfig(str(tmp_path))).build(
            codec=codec_of("ordered")
        )
        saved, _ = model.saved_config()
    assert saved.language_model.settings["hidden_size"] == 16
    assert not {"auto_map", "_name_or_path"} & saved.language_model.settings.keys()


@pytest.mark.parametrize("kind", ["ordered", "delay"])
def test_pretrained_language_model_is_not_needed_after_saving(kind, tmp_path):
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = ByT5Tokenizer()
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    language_model = LlamaForCausalLM(settings)
    language_model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    head = TokenHeadConfig() if kind == "delay" else FlowHeadConfig.example()
    with registered():
        codec = codec_of(kind)
        config = GeneratorConfig(head, PretrainedBackboneConfig(str(tmp_path / "lm")))
        model = config.build(codec=codec).eval()
        rows = model.backbone.model.get_input_embeddings().weight[: len(tokenizer)]
        torch.testing.assert_close(rows, language_model.get_input_embeddings().weight)
        # Held against weights before it is built, as a checkpoint is.
        shapes = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
        held = build_for(shapes, config, lambda: config.build(codec=codec), "here", kind=Generator)
        assert not any(parameter.is_meta for parameter in held.parameters())
        model.save_pretrained(tmp_path / "model")
        (tmp_path / "lm").rename(tmp_path / "elsewhere")
        again = Generator.from_pretrained(tmp_path / "model")
        with pytest.raises(PartitaError, match="language model"):
            config.build(codec=codec)
    one, other = (content(it.generate(["a dog"], SECONDS)) for it in (model, again))
    assert torch.equal(one, other)


# ------------------------------------------------------------------ what is no prompt


@pytest.mark.parametrize("prompts", ["piano", None, 3, [1], [None], [b"piano"], ["a", "\udcff"], torch.zeros(2)])
def test_invalid_prompts(prompts):
    with pytest.raises(PartitaError, match="prompt"):
        generator().generate(prompts, SECONDS)


@pytest.mark.parametrize("seconds", [None, "2", [1.0], float("nan"), torch.zeros(2)])
def test_invalid_seconds(seconds):
    with pytest.raises(PartitaError, match="seconds is"):
        generator().generate(["piano"], seconds)


@pytest.mark.parametrize("audio", ["voice.wav", 3, torch.zeros(1, 4, 3), [1]])
def test_audio_prompt_must_be_latents(audio):
    with pytest.raises(PartitaError, match="audio prompt .* Latents"):
        generator().generate(["piano"], SECONDS, audio=audio)


def test_representation_normalizes_arrays():
    model = base_of("represented")
    values = torch.ones(1, 4, 3)
    assert torch.equal(model.normalize(values.numpy()), model.normalize(values))
