import math

import pytest
import torch
from partita.evaluation import Spread, latent_effects, mean_tokens, spread
from partita_core import AudioSpec, ChannelLayout, Codec, LatentSpec, PartitaError

CHUNK, RATE, TOKENS, FRAMES = 8192, 44_100, 4, 16


class Slots(Codec):
    """A chunk's latents are the levels of its quarters; decoded, each is a stretch of a fixed noise of that level."""

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


def test_an_even_effect_and_one_of_a_single_frame_are_the_ends():
    even = spread(torch.ones(3, 5, FRAMES))
    assert even == Spread(pytest.approx(1.0), pytest.approx(0.0, abs=1e-12), 0.0, 0.0)
    single = torch.zeros(2, 5, FRAMES)
    single[0, :, 3] = single[1, :, 12] = 2.0
    found = spread(single)
    assert found.entropy == 0
    assert found.gini == pytest.approx(1 - 1 / FRAMES)
    assert found.order == pytest.approx(1.0) and found.placed == pytest.approx(1.0)


def test_half_of_the_frames_lack_one_bit():
    effects = torch.zeros(1, 1, FRAMES)
    effects[..., ::2] = 3.0
    found = spread(effects)
    assert found.entropy == pytest.approx(1 - math.log(2) / math.log(FRAMES))
    assert found.gini == pytest.approx(0.5)


def test_slots_may_have_their_time_without_being_in_order():
    effects = torch.zeros(4, 6, FRAMES)
    for slot, frame in enumerate((2, 10, 10, 2)):
        effects[slot, :, frame] = 1.0
    found = spread(effects)
    assert found.order == pytest.approx(0.0, abs=1e-12)
    assert found.placed == pytest.approx(1.0)


def test_slots_without_a_time_explain_nothing_on_average():
    generator = torch.Generator().manual_seed(0)
    found = [spread(torch.rand(4, 6, FRAMES, generator=generator).square()) for _ in range(200)]
    assert abs(sum(each.placed for each in found) / 200) < 0.02
    assert abs(sum(each.order for each in found) / 200) < 0.03


def test_what_has_no_effect_is_left_out():
    effects = torch.ones(2, 3, FRAMES)
    effects[1, 2] = 0
    assert spread(effects).entropy == pytest.approx(1.0)
    with pytest.raises(PartitaError, match="none of 2 latents has an effect"):
        spread(torch.zeros(2, 3, FRAMES))


def test_the_effect_of_a_slot_lies_in_its_quarter_and_slots_are_in_order():
    codec = Slots()
    clips = [(str(i), clip(3, seed=i), ChannelLayout.MONO) for i in range(2)]
    tokens = mean_tokens(codec, clips)
    assert tokens.shape == (1, TOKENS)
    values = torch.cat([codec.encode(audio[None]).values for _, audio, _ in clips], dim=-1)
    assert torch.allclose(tokens.float(), values[0].unflatten(-1, (-1, TOKENS)).mean(1), atol=1e-6)
    effects = latent_effects(codec, clips[0][1], ChannelLayout.MONO, tokens, chunk=CHUNK)
    assert effects.shape == (TOKENS, 3, FRAMES)
    quarters = effects.unflatten(-1, (TOKENS, -1)).sum(-1).sum(1)
    assert quarters.argmax(-1).tolist() == list(range(TOKENS))
    found = spread(effects)
    assert found.entropy < 0.75 and found.gini > 0.6
    assert found.order > 0.9 and found.placed > 0.9


def test_the_size_of_an_effect_is_that_of_the_gain():
    codec = Slots()
    audio = clip(2)
    latents = codec.encode(audio[None]).values[0].unflatten(-1, (-1, TOKENS))
    tokens = torch.full((1, TOKENS), 0.01, dtype=torch.float64)
    effects = latent_effects(codec, audio, ChannelLayout.MONO, tokens, chunk=CHUNK)
    expected = (latents[0, :, 1] / 0.01).log10()
    # Frames 6 and 7 of 16: in the second quarter, and their windows do not reach out of it.
    assert float(effects[1, 1, 6]) == pytest.approx(float(expected[1]), rel=0.02)


def test_clips_that_have_no_chunk_are_refused():
    codec, tokens = Slots(), torch.zeros(1, TOKENS)
    with pytest.raises(PartitaError, match="a clip of 8191 samples has no whole chunk of 8192"):
        latent_effects(codec, torch.zeros(1, CHUNK - 1), "mono", tokens, chunk=CHUNK)
    with pytest.raises(PartitaError, match="16384 samples is not one frame of latents, which has 8192"):
        latent_effects(codec, torch.zeros(1, CHUNK), "mono", tokens, chunk=2 * CHUNK)
    with pytest.raises(PartitaError, match="no clips"):
        mean_tokens(codec, [])
