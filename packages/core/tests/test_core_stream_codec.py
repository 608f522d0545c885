"""Stream encoders and decoders: argument checks, and equality with encode and decode."""

from dataclasses import dataclass, replace

import pytest
import torch
from partita_core import (
    AutoencoderConfig,
    ChannelLayout,
    Latents,
    PartitaError,
    StreamDecoder,
    StreamEncoder,
    UnboundedError,
)
from partita_testing.dummies import RoundingConfig, RoundingQuantizer, autoencoder, blocks

MONO, STEREO, MID_SIDE = ChannelLayout


def noise(batch=2, channels=2, samples=50):
    return 0.3 * torch.randn(batch, channels, samples)


def test_stream_encoder_raises_for_invalid_input():
    codec = autoencoder()
    encoder = StreamEncoder(codec, layout="stereo")
    with pytest.raises(PartitaError, match="not finite"):
        encoder.push(torch.full((1, 2, 5), float("nan")))
    with pytest.raises(PartitaError, match="stereo audio has 2 channels, got 1"):
        encoder.push(torch.zeros(1, 1, 5))
    with pytest.raises(PartitaError, match="0 samples"):
        StreamEncoder(codec, layout="mono").push(torch.zeros(1, 1, 0), last=True)
    with pytest.raises(PartitaError, match="num_quantizers is 1; this model has 0 levels"):
        StreamEncoder(codec, layout="mono", num_quantizers=1)
    with pytest.raises(PartitaError, match="stereo.* mono only"):
        StreamEncoder(autoencoder(MONO), layout="stereo")


def test_push_after_the_end_raises():
    codec = autoencoder()
    encoder, decoder = StreamEncoder(codec, layout="mono"), StreamDecoder(codec, layout="mono")
    decoder.push(encoder.push(torch.zeros(1, 1, 40), last=True), last=True)
    with pytest.raises(PartitaError, match="this stream has ended; start another"):
        encoder.push(torch.zeros(1, 1, 4))
    with pytest.raises(PartitaError, match="this stream has ended"):
        decoder.push(codec.encode(torch.zeros(1, 1, 4)))


def test_stream_decoder_raises_for_invalid_input():
    codec = autoencoder()
    latents = codec.encode(noise(1))
    with pytest.raises(PartitaError, match="these latents have space_id"):
        StreamDecoder(codec, layout="stereo").push(replace(latents, space_id="0" * 16))
    with pytest.raises(PartitaError, match="cannot be decoded as stereo"):
        StreamDecoder(codec, layout="stereo").push(codec.encode(noise(1, 1)))
    with pytest.raises(PartitaError, match="takes no sampler"):
        StreamDecoder(codec, layout="stereo", sampler=object())


@pytest.mark.parametrize("width", [1, 3, 100])
@pytest.mark.parametrize("layout, wanted", [("stereo", "mono"), ("mid_side", "stereo"), ("mono", "mono")])
def test_streams_convert_layouts(width, layout, wanted):
    codec = autoencoder(MONO, STEREO, quantizer=RoundingConfig()).double()
    audio = noise(1, ChannelLayout.parse(layout).width, 150).double()
    encoder = StreamEncoder(codec, layout=layout, num_quantizers=2, width=width)
    decoder = StreamDecoder(codec, layout=wanted, width=width)
    assert (encoder.latency, decoder.latency) == (15 + 16, 16)
    pieces = [encoder.push(piece, last=i == 2) for i, piece in enumerate(audio.split([70, 0, 80], dim=-1))]
    joined = Latents.concatenate(pieces)
    whole = codec.encode(audio, layout=layout, num_quantizers=2)
    torch.testing.assert_close(joined.values, whole.values, rtol=0, atol=1e-12)
    assert torch.equal(joined.codes, whole.codes)
    decoded = torch.cat([decoder.push(piece, last=i == 2) for i, piece in enumerate(pieces)], dim=-1)
    torch.testing.assert_close(decoded, codec.decode(whole, layout=wanted), rtol=0, atol=1e-12)


def test_codes_without_values_are_streamed():
    codec = blocks()
    audio = noise(1, 1, 60)
    latents = codec.encode(audio).only_codes()
    decoder = StreamDecoder(codec, layout="mono")
    head = replace(latents, codes=latents.codes[..., :3], audio_lengths=torch.tensor([24]))
    tail = replace(latents, codes=latents.codes[..., 3:], audio_lengths=torch.tensor([36]))
    decoded = torch.cat([decoder.push(head), decoder.push(tail, last=True)], dim=-1)
    torch.testing.assert_close(decoded, codec.decode(latents))


class Smearing(RoundingQuantizer):
    """Both halves of the quantizer have a context of one frame to the left, as in a convolutional re-bottleneck."""

    context = (2, 0)

    def encode_codes(self, hidden, num_quantizers=None):
        return super().encode_codes(smeared(hidden), num_quantizers)

    def codes_to_values(self, codes):
        return smeared(super().codes_to_values(codes))


def smeared(x):
    return x + 0.5 * torch.nn.functional.pad(x, (1, 0))[..., :-1]


@dataclass(frozen=True)
class SmearingConfig(RoundingConfig):
    def build(self, *, dim):
        return Smearing(dim, levels=self.levels)


@pytest.mark.parametrize("slot", ["bottleneck", "quantizer"])
def test_quantizer_with_context_is_streamed_and_tiled(slot):
    codec = autoencoder(**{slot: SmearingConfig()}).double()
    audio = noise(1, 2, 16 * 12).double()
    latents = codec.encode(audio)
    decoded, from_codes = codec.decode(latents), codec.decode(latents.only_codes())
    encoder = StreamEncoder(codec, layout="stereo")
    decoder, code_decoder = (StreamDecoder(codec, layout="stereo") for _ in range(2))
    pieces = [encoder.push(piece, last=i == 3) for i, piece in enumerate(audio.split(50, dim=-1))]
    assert torch.equal(Latents.concatenate(pieces).codes, latents.codes)
    streamed = torch.cat([decoder.push(piece, last=i == 3) for i, piece in enumerate(pieces)], dim=-1)
    of_codes = [code_decoder.push(piece.only_codes(), last=i == 3) for i, piece in enumerate(pieces)]
    torch.testing.assert_close(streamed, decoded, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(of_codes, dim=-1), from_codes, rtol=0, atol=1e-12)
    codec.tile_seconds = 2 * 16 / 8000
    assert torch.equal(codec.encode(audio).codes, latents.codes)
    torch.testing.assert_close(codec.decode(latents.only_codes()), from_codes, rtol=0, atol=1e-12)


@pytest.mark.parametrize("slot", ["bottleneck", "quantizer"])
def test_weights_are_saved_once(slot):
    codec = autoencoder(**{slot: SmearingConfig()})
    getattr(codec, slot).register_buffer("codebook", torch.ones(1))
    assert {name.split(".")[0] for name in codec.state_dict()} <= {"encoder", "bottleneck", "decoder", "quantizer"}
    assert [name for name in codec.state_dict() if "codebook" in name] == [f"{slot}.codebook"]


def test_stream_decoder_raises_for_several_items():
    codec = autoencoder()
    with pytest.raises(PartitaError, match="one item, got 2"):
        StreamDecoder(codec, layout="stereo").push(codec.encode(noise(2)))
    with pytest.raises(PartitaError, match="a stream encodes one recording, got a batch of 2"):
        StreamEncoder(codec, layout="stereo").push(noise(2))


def test_unbounded_part_without_state_raises():
    codec = autoencoder()
    codec.encoder.context = codec.decoder.context = (None, None)
    codec.encode_context = codec.decode_context = (None, None)
    with pytest.raises(UnboundedError, match="StridedEncoder sees unbounded context and carries no state"):
        StreamEncoder(codec, layout="mono")
    with pytest.raises(UnboundedError, match="TransposedDecoder sees unbounded context and carries no state"):
        StreamDecoder(codec, layout="mono")
    # It runs on the full input, with or without tiles.
    audio = noise()
    latents = codec.encode(audio)
    codec.tile_seconds = 0.0
    assert torch.equal(codec.encode(audio).values, latents.values)
    assert codec.decode(latents).shape == audio.shape


def test_autoencoder_example_uses_installed_parts():
    try:
        config = AutoencoderConfig.example()
    except PartitaError as error:
        assert "no encoder and decoder of one name are installed" in str(error)
    else:
        assert config.encoder.tag.split("/")[1] == config.decoder.tag.split("/")[1]
