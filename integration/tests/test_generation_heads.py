"""Generation heads: prediction, input embeddings and sampling, with untrained language models."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from partita.generation import FlowHead, FlowHeadConfig, LlamaBackboneConfig, Sampling, TokenHead
from partita.generation.token_head import TokenHeadConfig, sample
from partita_bottlenecks import IdentityConfig, NoiseRegularizedConfig
from partita_core import ChannelLayout, LatentNormalizer, Latents, LatentSpec, PartitaError, QuantizedCodec
from partita_quantizers import ResidualVQConfig, TokenSpace
from partita_testing.dummies import AveragingConfig, NeighboringConfig, NoisyBottleneck, RoundingConfig, autoencoder

PLAIN = Sampling(guidance=1.0, temperature=1.0, steps=4, top_k=None)
DRAWN = Sampling(guidance=1.0, temperature=1.0, steps=None, top_k=None)


def flow_head(
    dim: int = 3, *, tokens: int = 2, states: int = 8, encoder=None, spec=None, codec=None, **changes
) -> FlowHead:
    """A head without zero-initialized layers; without a codec, samples are not projected."""
    torch.manual_seed(0)
    spec = spec or LatentSpec(dim, 8000, 16, tokens)
    config = replace(FlowHeadConfig.example(), renormalize=codec is not None, **changes)
    codec = codec or SimpleNamespace(latent_spec=LatentSpec(dim, 8000, 16, tokens))
    head = FlowHead(config, codec=codec, encoder=encoder, scale=LatentNormalizer(spec), states=states)
    for parameter in head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return head.eval()


def backbone(own_ids: int = 0):
    torch.manual_seed(0)
    return LlamaBackboneConfig.example().build(own_ids=own_ids, output=own_ids > 0).eval()


# ------------------------------------------------------------------ scale


@pytest.mark.parametrize("bounded", [False, True])
def test_normalizer_equals_that_of_latents(bounded):
    spec = LatentSpec(3, 8000, 16, mean=(0.1, -0.2, 0.0), std=(2.0, 0.5, 1.0), bounded=bounded)
    codec = autoencoder(ChannelLayout.MONO, seed=0)
    values = torch.rand(2, 3, 5) * 1.8 - 0.9
    latents = Latents(values, None, torch.tensor([80, 80]), torch.tensor([0, 0]), spec)
    scale = LatentNormalizer(spec)
    torch.testing.assert_close(scale.normalize(values), latents.normalize().values)
    torch.testing.assert_close(scale.denormalize(scale.normalize(values)), values)
    unmeasured = LatentNormalizer(codec.latent_spec)
    assert torch.equal(unmeasured.normalize(values), values) and torch.equal(unmeasured.denormalize(values), values)


# ------------------------------------------------------------------ flow


@pytest.mark.parametrize("history", [0, 1, 2])
def test_flow_is_conditioned_on_state_and_past_patches(history):
    head = flow_head(history=history)
    target = torch.randn(2, 3, 2 * 7)  # seven frames of two tokens: three patches and a half
    seen = []
    head.flow.velocity = lambda x, time, states, before: seen.append((states, before)) or torch.zeros_like(x)
    states = torch.randn(2, 4, 8)
    head(states, target, torch.tensor([7, 7]), backbone())
    given, before = seen[0]
    assert torch.equal(given.unflatten(0, (2, 4)), states)
    before = before.unflatten(0, (2, 4))
    assert before.shape == (2, 4, history * 4, 3)
    for patch in range(4):
        for back in range(1, history + 1):
            place = slice((history - back) * 4, (history - back + 1) * 4)
            start = (patch - back) * 4
            expected = torch.zeros(2, 4, 3) if start < 0 else target[..., start : start + 4].mT
            assert torch.equal(before[:, patch, place], expected)


def test_loss_ignores_padding_frames():
    head = flow_head()
    target, states = torch.randn(2, 3, 2 * 8), torch.randn(2, 4, 8)
    frames = torch.tensor([8, 3])
    torch.manual_seed(1)
    whole = head(states, target, frames, backbone())
    changed = target.clone()
    changed[1, :, 2 * 4 :] = 100.0  # the frame beside the last one would enter through attention
    torch.manual_seed(1)
    assert torch.equal(head(states, changed, frames, backbone()).loss, whole.loss)
    torch.manual_seed(1)
    assert not torch.equal(head(states, changed, torch.tensor([8, 8]), backbone()).loss, whole.loss)


def test_velocity_error_of_a_zero_prediction():
    head = flow_head()
    torch.nn.init.zeros_(head.flow.last.weight)
    torch.nn.init.zeros_(head.flow.last.bias)
    output = head(torch.randn(64, 8, 8), 3 * torch.randn(64, 3, 32), torch.full((64,), 16), backbone())
    assert float(output.loss.detach()) == pytest.approx(10.0, rel=0.05)  # data of variance 9, noise of variance 1
    assert float(output.metrics["velocity_error"]) == pytest.approx(1.0, abs=0.01)


def test_rollout_integrates_the_flow_per_patch():
    head = flow_head()
    states = torch.randn(3, 8)
    rollout = head.rollout(3, torch.tensor([1, 2, 3]), PLAIN, backbone())
    heard = [rollout.push(states, None) for _ in range(head.steps(3))]
    values = rollout.result()
    assert values.shape == (3, 3, 3 * 2)
    # What was heard is what training would have let be heard.
    torch.testing.assert_close(head.inputs(values[..., :4], backbone())[:, 0], heard[0])
    again = head.rollout(3, torch.tensor([2]), PLAIN, backbone())
    for _ in range(2):
        again.push(states[1:2], None)
    torch.testing.assert_close(again.result(), values[1:2])


def test_guidance_extrapolates_the_velocity():
    head = flow_head(history=0)
    states, free = torch.randn(2, 8), torch.randn(2, 8)
    results = {}
    for guidance in (0.0, 1.0, 2.0):
        sampling = Sampling(guidance, 1.0, 1, None)  # one step: the patch is linear in the velocity
        rollout = head.rollout(2, torch.tensor([1, 2]), sampling, backbone())
        rollout.push(states, free)
        results[guidance] = rollout.result()
    torch.testing.assert_close(results[2.0], 2 * results[1.0] - results[0.0])
    assert (results[1.0] - results[0.0]).abs().max() > 1e-2


def generated(head: FlowHead, frames: int = 5) -> torch.Tensor:
    rollout = head.rollout(frames, torch.tensor([1, 2]), PLAIN, backbone())
    for _ in range(-(-frames // head.patch)):
        rollout.push(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), None)
    return rollout.result()


class Ring(NoisyBottleneck):
    """A third-party bottleneck: every vector has length 3."""

    def project(self, values):
        return 3 * values / values.norm(dim=1, keepdim=True)


def ring():
    codec = autoencoder(ChannelLayout.MONO)
    codec.bottleneck.__class__ = Ring
    return codec


SPHERE = LatentSpec(4, 8000, 16, mean=(0.5, 0, 0, -0.5), std=(1, 2, 1, 0.5))


@pytest.mark.parametrize("wrapped", [False, True])
def test_patches_are_projected_to_the_sphere(wrapped):
    codec = autoencoder(ChannelLayout.MONO, bottleneck=NoiseRegularizedConfig())
    codec = QuantizedCodec(codec, ResidualVQConfig.example().build(dim=4)).eval() if wrapped else codec
    values = generated(flow_head(4, tokens=1, spec=SPHERE, codec=codec))
    assert values.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(values.norm(dim=1), torch.full((2, 5), 2.0), atol=1e-3, rtol=0)


def test_patches_are_projected_by_the_bottleneck():
    values = generated(flow_head(4, tokens=1, spec=SPHERE, codec=ring()))
    torch.testing.assert_close(values.norm(dim=1), torch.full((2, 5), 3.0), atol=1e-4, rtol=0)
    free = generated(flow_head(4, tokens=1, spec=SPHERE, codec=None))
    assert (free.norm(dim=1) - 3).abs().max() > 0.1
    # A bottleneck without a projection changes nothing.
    anywhere = autoencoder(ChannelLayout.MONO, bottleneck=IdentityConfig())
    assert torch.equal(generated(flow_head(4, tokens=1, spec=SPHERE, codec=anywhere)), free)
    # A bounded bottleneck clamps to its bounds.
    bounded = generated(flow_head(4, tokens=1, spec=SPHERE, codec=autoencoder(ChannelLayout.MONO)))
    assert free.abs().max() > 1 and bounded.abs().max() <= 1 + 1e-6


def test_projection_can_be_disabled():
    codec = ring()
    parts = {"codec": codec, "encoder": None, "scale": LatentNormalizer(codec.latent_spec), "states": 8}
    assert FlowHeadConfig.example().build(**parts).codec.module is codec
    assert replace(FlowHeadConfig.example(), renormalize=False).build(**parts).codec is None


def test_encoder_embeds_latents_step_by_step():
    spec = LatentSpec(3, 8000, 16, 2)
    encoder = AveragingConfig().build(latent_spec=spec)
    head = flow_head(encoder=encoder)
    rollout = head.rollout(6, torch.tensor([1, 2]), PLAIN, backbone())
    embedded = torch.stack([rollout.push(torch.randn(2, 8), None) for _ in range(3)], dim=1)
    torch.testing.assert_close(head.inputs(rollout.result(), backbone()), embedded)
    assert not any(name.startswith("encoder") for name in head.state_dict())
    with pytest.raises(PartitaError, match="causal"):
        flow_head(encoder=NeighboringConfig().build(latent_spec=spec))


@pytest.mark.slow
def test_flow_learns_two_conditional_clusters():
    torch.manual_seed(0)
    head = flow_head(2, tokens=1, patch=1, history=0, states=4, width=32, layers=1, heads=2, head_dim=16).train()
    torch.nn.init.zeros_(head.flow.last.weight)
    centers = torch.tensor([[1.5, -0.5], [-1.0, 1.0]])
    conditions = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    optimizer, model = torch.optim.Adam(head.parameters(), lr=4e-3), backbone()
    for _ in range(250):
        which = torch.randint(2, (256, 1))
        data = centers[which] + 0.1 * torch.randn(256, 1, 2)
        output = head(conditions[which], data.mT, torch.ones(256, dtype=torch.int64), model)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    which = torch.arange(64) % 2
    with torch.no_grad():
        rollout = head.eval().rollout(1, torch.arange(64), Sampling(1.0, 1.0, 10, None), model)
        rollout.push(conditions[which], None)
    found = rollout.result()[..., 0]
    distance = torch.cdist(found, centers)
    assert (distance.argmin(1) == which).all()
    assert distance.min(1).values.mean() < 0.35
    assert found[which == 0].std(0).min() > 0.02  # not all the same


# ------------------------------------------------------------------ tokens


def token_head(layout: str, tokens: int = 2, keep: int | None = None) -> TokenHead:
    return TokenHead(TokenSpace((5, 7, 3), keep, layout), tokens_per_frame=tokens)


@pytest.mark.parametrize("layout", ["flat", "delay"])
def test_steps_and_frames_are_inverse(layout):
    head = token_head(layout)
    whole = {int(head.steps(frames)): frames for frames in range(6)}
    assert torch.equal(head.steps(torch.arange(6)), torch.tensor(list(whole)))
    for steps in range(max(whole) + 1):
        assert head.frames(steps) == whole.get(steps)


@pytest.mark.parametrize("layout", ["flat", "delay"])
@pytest.mark.parametrize("keep", [None, 2])
def test_codes_are_sampled_per_level_in_order(layout, keep):
    head = token_head(layout, keep=keep)
    model = backbone(head.space.vocab_size)
    states = [torch.randn(2, 16) for _ in range(head.steps(4))]
    rollout = head.rollout(4, torch.tensor([1, 2]), DRAWN, model)
    with torch.no_grad():
        embedded = torch.stack([rollout.push(state, None) for state in states], dim=1)
        codes = rollout.result()
        torch.testing.assert_close(head.inputs(codes, model), embedded)
    assert codes.shape == (2, 3, 8)
    for level, size in enumerate((5, 7, 3)):
        kept = keep is None or level < keep
        assert (codes[:, level] < size).all() and (codes[:, level] >= (0 if kept else -1)).all()
        assert kept or (codes[:, level] == -1).all()
    # Through the space of tokens and back they are themselves.
    assert torch.equal(head.space.decode(head.space.encode(codes)), codes)


@pytest.mark.parametrize("layout", ["flat", "delay"])
def test_token_loss_is_the_cross_entropy_within_a_level(layout):
    head = token_head(layout, tokens=1)
    model = backbone(head.space.vocab_size)
    codes = torch.stack([torch.randint(size, (2, 4)) for size in (5, 7, 3)], dim=1)
    codes[1, :, 3] = -1
    states = torch.randn(2, head.steps(4), 16)
    output = head(states, codes, torch.tensor([4, 3]), model)
    expected, right = [], []
    weight = model.model.get_output_embeddings().weight
    for item, level, token in (codes >= 0).nonzero().tolist():
        step = token * 3 + level if layout == "flat" else token + level
        ids = head.ids(level, model)
        logits = states[item, step] @ weight[ids.start : ids.stop].T
        expected.append(-logits.log_softmax(-1)[codes[item, level, token]])
        right.append(float(logits.argmax() == codes[item, level, token]))
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(right) / len(right))
    # Past an item's end nothing counts, whatever is there.
    codes[1, :, 3] = 0
    torch.testing.assert_close(head(states, codes, torch.tensor([4, 3]), model).loss, output.loss)


def test_ids_of_levels_follow_those_of_the_text():
    head = token_head("flat")
    model = backbone(head.space.vocab_size)
    ranges = [range(len(model.tokenizer) + 3), *(head.ids(level, model) for level in range(3))]
    assert [len(ids) for ids in ranges[1:]] == [5, 7, 3]
    assert all(one.stop <= other.start for one, other in zip(ranges, ranges[1:]))
    assert ranges[-1].stop == model.model.config.vocab_size


def test_samples_have_the_requested_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(4000, 4)
    torch.manual_seed(0)
    normal = torch.randn(4000)

    def shares(**settings) -> torch.Tensor:
        found = sample(logits, normal, **{"temperature": 1.0, "top_k": None} | settings)
        return torch.bincount(found, minlength=4) / 4000

    torch.testing.assert_close(shares(), logits[0].softmax(0), atol=0.03, rtol=0)
    torch.testing.assert_close(shares(temperature=2.0), (logits[0] / 2).softmax(0), atol=0.03, rtol=0)
    assert shares(temperature=0.0).tolist() == [0, 0, 1, 0]
    assert shares(top_k=2)[[0, 3]].tolist() == [0, 0] and shares(top_k=2)[1] > 0.2
    # The ends of the draw stay within the classes.
    assert sample(logits[:2], torch.tensor([-40.0, 40.0]), temperature=1.0, top_k=None).tolist() == [0, 3]


def test_unsupported_settings_of_heads():
    model = backbone()
    with pytest.raises(PartitaError, match="top_k"):
        flow_head().rollout(2, torch.tensor([0]), Sampling(1.0, 1.0, None, 3), model)
    with pytest.raises(PartitaError, match="steps"):
        token_head("flat").rollout(2, torch.tensor([0]), Sampling(1.0, 1.0, 3, None), model)
    with pytest.raises(PartitaError, match="no codes"):
        TokenHeadConfig().own_ids(LatentSpec(4, 8000, 16))
    codec = autoencoder(ChannelLayout.MONO, bottleneck=RoundingConfig())
    encoder = AveragingConfig().build(latent_spec=codec.latent_spec)
    with pytest.raises(PartitaError, match="representation encoder"):
        TokenHeadConfig().build(codec=codec, encoder=encoder, scale=LatentNormalizer(codec.latent_spec), states=8)
    with pytest.raises(PartitaError, match="patch is 0"):
        FlowHeadConfig(patch=0)
    for wrong in ({"guidance": -1.0}, {"steps": 0}, {"top_k": 0}):
        with pytest.raises(PartitaError, match="at least"):
            Sampling(**{"guidance": 1.0, "temperature": 1.0, "steps": None, "top_k": None} | wrong)
