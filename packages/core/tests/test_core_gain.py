"""Codecs that normalize each frame and keep its scale in `Latents.gain`."""

from dataclasses import replace

import pytest
import torch
from partita_core import (
    AudioSpec,
    ChannelLayout,
    Codec,
    Latents,
    LatentSpec,
    PartitaError,
    StreamDecoder,
    StreamEncoder,
)
from partita_testing import CODEC_CHECKS
from partita_testing.dummies import autoencoder
from torch import nn
from torch.nn import functional as F

HOP, TOKENS, STEP = 6, 3, 0.25


class ScaledCodec(Codec):
    """Frames divided by their RMS with the next one, rounded; decoding mixes each with the one before."""

    has_gain = True

    audio_spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
    latent_spec = LatentSpec(HOP // TOKENS, 8000, HOP, TOKENS, codebook_sizes=(64,) * (HOP // TOKENS))
    encode_context = (0, 1)
    decode_context = (1, 0)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def gains(self, audio):
        power = audio[:, 0].unflatten(1, (-1, HOP)).square().mean(2)
        return (power + F.pad(power[:, 1:], (0, 1)) + 1e-6).sqrt()

    def encode_frames(self, audio, layout, num_quantizers):
        scaled = self.weight * audio[:, 0].unflatten(1, (-1, HOP)) / self.gains(audio)[..., None]
        codes = (scaled / STEP).round().clamp(-32, 31).long().reshape(len(audio), -1, HOP // TOKENS).mT + 32
        codes[:, num_quantizers or HOP :] = -1
        gains = self.gains(audio).repeat_interleave(TOKENS, dim=-1)
        return torch.cat([self.codes_to_values(codes), gains[:, None]], dim=1), codes

    def codes_to_values(self, codes):
        return torch.where(codes < 0, 0, (codes - 32) * STEP).to(self.weight)

    def decode_frames(self, values, codes, layout, sampler, seeds):
        values, gain = values[:, :-1], values[:, -1, ::TOKENS]
        frames = values.mT.reshape(len(values), -1, HOP) / self.weight * gain[..., None]
        return (frames + F.pad(frames[:, :-1], (0, 0, 1, 0))).reshape(len(values), 1, -1)


@pytest.mark.parametrize("check", CODEC_CHECKS)
def test_conformance(check):
    check(lambda: ScaledCodec().eval())


def test_gain_is_stored_per_frame():
    torch.manual_seed(0)
    codec, audio = ScaledCodec().eval(), torch.rand(2, 1, 4 * HOP)
    audio[1, :, HOP:] = 9.0  # after the end of the second item
    latents = codec.encode(audio, lengths=[4 * HOP, HOP])
    assert latents.gain is not None and latents.gain.shape == (2, 4)
    assert torch.equal(latents.gain[0], codec.gains(audio[:1])[0])
    assert torch.equal(latents[1].gain, codec.gains(audio[1:, :, :HOP])) and not latents.gain[1, 1:].any()
    louder = codec.decode(replace(latents, gain=2 * latents.gain))
    assert torch.allclose(louder, 2 * codec.decode(latents))


def test_streams_carry_the_gain():
    torch.manual_seed(0)
    codec, audio = ScaledCodec().eval(), torch.rand(1, 1, 5 * HOP - 1)
    whole = codec.encode(audio)
    encoder, decoder = StreamEncoder(codec, layout="mono"), StreamDecoder(codec, layout="mono")
    pieces = [encoder.push(audio[..., :17]), encoder.push(audio[..., 17:], last=True)]
    assert torch.equal(Latents.concatenate(pieces).gain, whole.gain)
    pushed = [decoder.push(piece.only_codes(), last=piece is pieces[-1]) for piece in pieces]
    assert torch.allclose(torch.cat(pushed, dim=-1), codec.decode(whole))


def test_missing_and_unexpected_gains_raise():
    codec, audio = ScaledCodec().eval(), torch.rand(1, 1, 2 * HOP)
    with pytest.raises(PartitaError, match="no gain.*gain per frame"):
        codec.decode(replace(codec.encode(audio), gain=None))
    other = autoencoder()
    latents = other.encode(torch.rand(1, 1, 2 * other.latent_spec.hop))
    with pytest.raises(PartitaError, match="a gain.*none"):
        other.decode(replace(latents, gain=torch.ones(1, 2)))
    with pytest.raises(PartitaError, match=r"gain is \(1, 3\).*audio_lengths .*\(1, 2\)"):
        replace(latents, gain=torch.ones(1, 3))
