"""Audio prompts: generation continues them like its own output."""

from dataclasses import replace

import pytest
import torch
from partita.generation import FlowHeadConfig, Generator, GeneratorConfig, LlamaBackboneConfig, TokenHeadConfig
from partita_core import ChannelLayout, Latents, PartitaError
from partita_representation import RepresentationModelConfig
from partita_testing.dummies import AveragingConfig, RoundingConfig, StridedConfig, TransposedConfig, autoencoder

SECONDS = 0.02  # 160 samples, 10 frames
# In float64: an untrained model magnifies what rounding there is from step to step.
TOLERANCE = 1e-9
KINDS = ("ordered", "sets", "represented", "flat", "delay")


def base_of(kind: str):
    if kind in ("flat", "delay"):
        return autoencoder(ChannelLayout.MONO, bottleneck=RoundingConfig())
    if kind == "sets":
        encoder, decoder = StridedConfig(tokens_per_frame=2), TransposedConfig()
        return autoencoder(ChannelLayout.STEREO, encoder=encoder, decoder=decoder)
    codec = autoencoder()
    torch.manual_seed(3)
    return RepresentationModelConfig(AveragingConfig()).build(codec=codec).eval() if kind == "represented" else codec


def generator(kind: str = "ordered", *, stop: bool = False) -> Generator:
    """An untrained generator without zero-initialized layers."""
    head = TokenHeadConfig(layout=kind) if kind in ("flat", "delay") else FlowHeadConfig.example()
    base = base_of(kind).double()  # what is frozen keeps its dtype
    torch.manual_seed(1)
    model = GeneratorConfig(head, LlamaBackboneConfig.example(), stop=stop).build(codec=base)
    for name, parameter in model.named_parameters():
        if not parameter.any() or (name.startswith("backbone") and parameter.dim() == 2):
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().double()


def content(latents: Latents) -> torch.Tensor:
    made = latents.codes if latents.values is None else latents.values
    assert made is not None
    return made


def first(latents: Latents, frames: int) -> Latents:
    """The first frames of each item."""
    lengths = torch.full_like(latents.audio_lengths, frames * latents.spec.hop)
    tokens = frames * latents.spec.tokens_per_frame
    parts = {"values": latents.values, "codes": latents.codes}
    cut = {name: None if part is None else part[..., :tokens] for name, part in parts.items()}
    return replace(latents, audio_lengths=lengths, **cut)


@pytest.mark.parametrize("kind", KINDS)
def test_continuing_its_own_start_gives_the_same_latents(kind):
    """Four frames are two patches; noise depends only on seed and step."""
    model = generator(kind)
    whole = model.generate(["a", ""], SECONDS, seed=[3, 4])
    again = model.generate(["a", ""], SECONDS, seed=[3, 4], audio=first(whole, 4))
    torch.testing.assert_close(content(again), content(whole), rtol=0, atol=TOLERANCE)
    other = model.generate(["a", ""], SECONDS, seed=[5, 6], audio=first(whole, 4))
    tokens = 4 * whole.spec.tokens_per_frame
    torch.testing.assert_close(content(other)[..., :tokens], content(whole)[..., :tokens], rtol=0, atol=TOLERANCE)
    assert not torch.equal(content(other)[..., tokens:], content(whole)[..., tokens:])


@pytest.mark.parametrize("kind", ["ordered", "represented", "delay"])
def test_prompt_changes_the_continuation(kind):
    model = generator(kind)
    prompts = [first(model.generate([""], SECONDS, seed=seed), 4) for seed in (1, 2)]
    made = [content(model.generate([""], SECONDS, seed=7, guidance=1, audio=prompt)) for prompt in prompts]
    tokens = 4 * prompts[0].spec.tokens_per_frame
    assert not torch.equal(made[0][..., tokens:], made[1][..., tokens:])


@pytest.mark.parametrize("kind", ["ordered", "sets", "flat"])
def test_prompts_of_different_lengths_share_a_batch(kind):
    model = generator(kind)
    whole = model.generate(["", "b"], SECONDS, seed=[1, 2])
    audio = first(whole, 6)
    audio = replace(audio, audio_lengths=torch.tensor([2, 6]) * whole.spec.hop)
    together = content(model.generate(["", "b"], SECONDS, seed=[3, 4], audio=audio))
    for item, (text, frames) in enumerate((("", 2), ("b", 6))):
        alone = model.generate([text], SECONDS, seed=[3 + item], audio=first(whole[item], frames))
        torch.testing.assert_close(together[item], content(alone)[0], rtol=0, atol=TOLERANCE)


def test_frames_of_an_incomplete_patch_are_sampled():
    model = generator()
    whole = model.generate([""], SECONDS, seed=1)
    results = [content(model.generate([""], SECONDS, seed=2, audio=first(whole, frames))) for frames in (4, 5)]
    assert torch.equal(*results)


def test_stop_within_the_prompt_is_ignored():
    model = generator(stop=True)
    torch.nn.init.zeros_(model.stop.weight)
    torch.nn.init.ones_(model.stop.bias)  # always predicts the end
    start = first(model.generate([""], SECONDS, seed=1), 4)
    made = model.generate([""], SECONDS, seed=1, audio=start, stop=True)
    assert made.frames.tolist() == [4]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda whole: first(whole, 10), "10 frames.* 10 frames"),
        (lambda whole: Latents(**vars(whole) | {"space_id": "0" * 16}), "0000000000000000"),
        (lambda whole: replace(first(whole, 4), values=None, codes=torch.zeros(1, 1, 4).long()), "none|codes"),
    ],
)
def test_invalid_audio_prompts(change, message):
    model = generator()
    whole = model.generate([""], SECONDS)
    with pytest.raises(PartitaError, match=message):
        model.generate([""], SECONDS, audio=change(whole))
    with pytest.raises(PartitaError, match="2 prompts and 1 audio"):
        model.generate(["", ""], SECONDS, audio=first(whole, 4))
