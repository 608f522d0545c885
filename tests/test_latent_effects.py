"""The benchmark helper that measures the effect of each latent of a chunk."""

import math

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, Codec, LatentSpec, PartitaError

CHUNK, RATE, TOKENS, FRAMES = 8192, 44_100, 4, 16


@pytest.fixture(scope="module")
def effects(benchmark_module):
    return benchmark_module("latent_effects")


class Slots(Codec):
    """A codec whose latents are the levels of a chunk's quarters; each is decoded to fixed noise of that level."""

    def __init__(self):
        super().__init__()
        self.audio_spec = AudioSpec(RATE, 1, (ChannelLayout.MONO,))
        self.latent_spec = LatentSpec(1, RATE, CHUNK, TOKENS)
        self.encode_context = self.decode_context = (0, 0)

    def encode_frames(self, audio, layout, num_quantizers):
        quarters = audio.unflatten(-1, (-1, CHUNK // TOKENS))
        return quarters.square().mean(-1).sqrt(), None

    def decode_frames(self, values, codes, layout, sampler, seeds):
        carrier = torch.randn(CHUNK // TOKENS, generator=torch.Generator().manual_seed(0))
        return (values[..., None] * carrier).flatten(2)


def clip(chunks, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = 0.05 + 0.1 * torch.rand(1, chunks * TOKENS, generator=generator)
    carrier = torch.randn(chunks * CHUNK, generator=generator)
    return levels.repeat_interleave(CHUNK // TOKENS, dim=-1) * carrier


def test_spread_of_uniform_and_single_frame_effects(effects):
    even = effects.effect_spread(torch.ones(3, 5, FRAMES))
    assert even == effects.EffectSpread(pytest.approx(1.0), pytest.approx(0.0, abs=1e-12), 0.0, 0.0)
    single = torch.zeros(2, 5, FRAMES)
    single[0, :, 3] = single[1, :, 12] = 2.0
    found = effects.effect_spread(single)
    assert found.entropy == 0
    assert found.gini == pytest.approx(1 - 1 / FRAMES)
    assert found.order == pytest.approx(1.0) and found.placed == pytest.approx(1.0)


def test_spread_over_half_of_the_frames(effects):
    values = torch.zeros(1, 1, FRAMES)
    values[..., ::2] = 3.0
    found = effects.effect_spread(values)
    assert found.entropy == pytest.approx(1 - math.log(2) / math.log(FRAMES))
    assert found.gini == pytest.approx(0.5)


def test_spread_of_latents_with_positions_out_of_order(effects):
    values = torch.zeros(4, 6, FRAMES)
    for slot, frame in enumerate((2, 10, 10, 2)):
        values[slot, :, frame] = 1.0
    found = effects.effect_spread(values)
    assert found.order == pytest.approx(0.0, abs=1e-12)
    assert found.placed == pytest.approx(1.0)


def test_spread_of_random_effects_is_zero_on_average(effects):
    generator = torch.Generator().manual_seed(0)
    found = [effects.effect_spread(torch.rand(4, 6, FRAMES, generator=generator).square()) for _ in range(200)]
    assert abs(sum(each.placed for each in found) / 200) < 0.02
    assert abs(sum(each.order for each in found) / 200) < 0.03


def test_spread_leaves_out_latents_without_effect(effects):
    values = torch.ones(2, 3, FRAMES)
    values[1, 2] = 0
    assert effects.effect_spread(values).entropy == pytest.approx(1.0)
    with pytest.raises(PartitaError, match="2 latents"):
        effects.effect_spread(torch.zeros(2, 3, FRAMES))


def test_latent_effects_lie_in_their_quarters_in_order(effects):
    codec = Slots()
    clips = [(str(i), clip(3, seed=i), ChannelLayout.MONO) for i in range(2)]
    tokens = effects.mean_tokens(codec, clips)
    assert tokens.shape == (1, TOKENS)
    values = torch.cat([codec.encode(audio[None]).values for _, audio, _ in clips], dim=-1)
    assert torch.allclose(tokens.float(), values[0].unflatten(-1, (-1, TOKENS)).mean(1), atol=1e-6)
    found = effects.latent_effects(codec, clips[0][1], ChannelLayout.MONO, tokens, chunk=CHUNK)
    assert found.shape == (TOKENS, 3, FRAMES)
    quarters = found.unflatten(-1, (TOKENS, -1)).sum(-1).sum(1)
    assert quarters.argmax(-1).tolist() == list(range(TOKENS))
    found = effects.effect_spread(found)
    assert found.entropy < 0.75 and found.gini > 0.6
    assert found.order > 0.9 and found.placed > 0.9


def test_latent_effects_equal_the_gain(effects):
    codec = Slots()
    audio = clip(2)
    latents = codec.encode(audio[None]).values[0].unflatten(-1, (-1, TOKENS))
    tokens = torch.full((1, TOKENS), 0.01, dtype=torch.float64)
    found = effects.latent_effects(codec, audio, ChannelLayout.MONO, tokens, chunk=CHUNK)
    expected = (latents[0, :, 1] / 0.01).log10()
    # Frames 6 and 7 of 16: in the second quarter, and their windows do not reach out of it.
    assert float(found[1, 1, 6]) == pytest.approx(float(expected[1]), rel=0.02)


def test_latent_effects_need_a_complete_chunk(effects):
    codec, tokens = Slots(), torch.zeros(1, TOKENS)
    with pytest.raises(PartitaError, match="8191 samples.* 8192"):
        effects.latent_effects(codec, torch.zeros(1, CHUNK - 1), "mono", tokens, chunk=CHUNK)
    with pytest.raises(PartitaError, match="16384 .* 8192"):
        effects.latent_effects(codec, torch.zeros(1, CHUNK), "mono", tokens, chunk=2 * CHUNK)
    with pytest.raises(PartitaError, match="no clips"):
        effects.mean_tokens(codec, [])


def test_by_chunk_groups_frames_by_their_centers(effects):
    frames = torch.arange(1 + 100 // 8)  # of 100 samples, centered on 0, 8, ... 96
    assert effects.by_chunk(frames, hop=8, chunk=32).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert effects.by_chunk(frames[:4], hop=8, chunk=32).shape == (0, 4)
    with pytest.raises(PartitaError, match="30 .* 8"):
        effects.by_chunk(frames, hop=8, chunk=30)
