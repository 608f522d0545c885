"""Assembled models of Music2Latent2 and CoDiCodec: rates, conformance, lengths and seams."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from partita.recipes import codicodec_tiny, music2latent2_base
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, override
from partita_decoders import Autoregressive, ConsistencyDecoderConfig, Independent, Overlap, TwoStep
from partita_encoders import SummaryEncoderConfig
from partita_quantizers import FSQConfig
from partita_testing import CODEC_CHECKS, CodecCase

MONO, STEREO = (ChannelLayout.MONO,), (ChannelLayout.STEREO,)
CHUNK = 48  # samples per chunk of the examples
OVERLAP = 9  # samples by which the first and last windows of a chunk extend beyond it


def build(config: AutoencoderConfig) -> Autoencoder:
    """Build with fixed weights, and without layers at zero, after which latents would barely depend on the audio."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = config.build().eval()
        for weight in model.parameters():
            if weight.dim() > 1 and not weight.any():
                weight.normal_(std=weight[0].numel() ** -0.5)
    return model


def small(**changes) -> AutoencoderConfig:
    """Music2Latent2 from the examples of its parts."""
    audio = AudioSpec(44_100, 2, STEREO)
    config = AutoencoderConfig(
        audio, 4, SummaryEncoderConfig.example(), TanhConfig(), ConsistencyDecoderConfig.example()
    )
    return replace(config, **changes)


def coarse(sample_rate: int, layouts: tuple[ChannelLayout, ...] = MONO) -> AutoencoderConfig:
    """Chunks of 32768 samples as in the recipes, with a minimal network."""
    sizes = {"stft_hop": 1024, "chunk_frames": 32, "companding": "component", "heads": 1, "head_dim": 4}
    sizes |= {"channels": (1, 8), "strides": ((64, 8),), "blocks": (1, 1), "layers": 1}
    decoder = ConsistencyDecoderConfig(**sizes, upsampler_layers=1, condition_dim=4)
    audio = AudioSpec(sample_rate, len(layouts), layouts)
    return AutoencoderConfig(audio, 64, SummaryEncoderConfig(**sizes), TanhConfig(), decoder)


def codicodec() -> AutoencoderConfig:
    """CoDiCodec from the examples of its parts: a code of 11^4 per token, in addition to continuous values."""
    encoder = replace(SummaryEncoderConfig.example(), out_std=0.25)  # untrained, but with values of all magnitudes
    return small(encoder=encoder, bottleneck=TanhConfig(gain=None), quantizer=FSQConfig(bound="clamp"))


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ------------------------------------------------------------------ rates

MONO_AUDIO = 'model.audio={"sample_rate":44100,"channels":1,"layouts":["mono"]}'


@pytest.mark.parametrize(("overrides", "ratio"), [([MONO_AUDIO], 64), ([], 128)], ids=["mono", "stereo"])
def test_base_compresses_as_published(overrides, ratio):
    """64x mono and 128x stereo; 4096x in time."""
    config = override(music2latent2_base(), overrides).model
    with torch.device("meta"):
        model = config.build()
    spec = model.latent_spec
    assert model.audio_spec.channels * spec.hop == ratio * spec.dim * spec.tokens_per_frame
    assert spec.hop == 4096 * spec.tokens_per_frame
    assert (spec.ordered, model.decoder.frames_per_chunk) == (False, 1)
    assert 140e6 < sum(parameter.numel() for parameter in model.parameters()) < 160e6


def test_codicodec_bit_rate():
    """128 tokens of 11^4 codes for 0.743 s: 32768 samples at 44.1 kHz, or half of that at half the rate."""
    model = build(codicodec_tiny().model)
    assert model.latent_spec.codebook_sizes == (11**4,) == (14_641,)
    latents = model.encode(noise(1, 2, 2 * 16_384))
    assert latents.codes.shape == (1, 1, 2 * 128) and latents.codes.max() < 14_641
    expected = 128 * math.log2(14_641) / Fraction(32_768, 44_100)
    assert latents.spec.bit_rate == pytest.approx(expected) == pytest.approx(2383.8, abs=0.05)
    assert latents.codes.unique().numel() > 100


# ------------------------------------------------------------------ as codecs


@pytest.mark.parametrize("check", CODEC_CHECKS)
@pytest.mark.slow
@pytest.mark.parametrize("config", [small, codicodec])
def test_conformance(config, check):
    check(CodecCase(lambda: build(config())))


def test_tokens_depend_on_their_own_chunk_only():
    """Alone, in a batch of mixed lengths, and in any `max_batch_size`: the same codes, and values to rounding."""
    model, lengths = build(codicodec()).double(), [5 * CHUNK, 1, 5 * CHUNK - 1, 2 * CHUNK, 5 * CHUNK]
    audio = noise(5, 2, 5 * CHUNK, dtype=torch.float64)
    alone = [model.encode(audio[i : i + 1, :, :length]) for i, length in enumerate(lengths)]
    for size in (1, 2, 16):
        model.max_batch_size = size
        latents = model.encode(audio, lengths=lengths)
        for i, one in enumerate(alone):
            assert torch.equal(latents[i].codes, one.codes)
            torch.testing.assert_close(latents[i].values, one.values, rtol=0, atol=1e-12)
    assert alone[0].codes.unique().numel() > 2


# ------------------------------------------------------------------ any audio

SIGNALS = {
    "silence": torch.zeros_like,
    "clipped": lambda x: (20 * x).clamp(-1, 1),
    "DC": torch.ones_like,
    "far too loud": lambda x: 1e4 * x,
    "all but silent": lambda x: 1e-30 * x,
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_decoded_signals_are_finite(rate, signal):
    model = build(replace(small(), audio=AudioSpec(rate, 2, STEREO)))
    audio = SIGNALS[signal](noise(1, 2, 4 * CHUNK + 1))
    latents = model.encode(audio)
    assert latents.values.isfinite().all() and latents.values.abs().max() < 1
    decoded = model.decode(latents)
    assert decoded.shape == audio.shape and decoded.isfinite().all()


@pytest.mark.parametrize("samples", [1, 2, 767, 32_767, 32_768, 32_769, 99_991])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_decoded_audio_has_the_length_of_the_input(rate, samples):
    model = build(coarse(rate))
    latents = model.encode(noise(1, 1, samples))
    assert latents.values.shape == (1, 64, 8 * -(-samples // 32_768))
    assert latents.spec.frame_rate == Fraction(rate, 32_768)
    decoded = model.decode(latents)
    assert decoded.shape == (1, 1, samples) and decoded.isfinite().all() and decoded.any()


@pytest.mark.slow
def test_no_drift_over_ten_minutes():
    """In tiles, and chunk by chunk; an odd number of samples."""
    model, samples = build(coarse(44_100)), 600 * 44_100 + 1
    latents = model.encode(noise(1, 1, 44_100).repeat(1, 1, 601)[..., :samples])
    assert latents.values.shape == (1, 64, 8 * 808) and latents.values.isfinite().all()
    decoded = model.decode(latents)
    assert decoded.shape == (1, 1, samples) and decoded.isfinite().all()
    assert decoded[..., -1000:].any()


# ------------------------------------------------------------------ the decoder

CAUSAL = [TwoStep(), TwoStep(refine=False), TwoStep(sigma_context=0), Autoregressive(), Overlap(), Independent()]


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sampler", CAUSAL, ids=repr)
def test_later_latents_do_not_affect_earlier_windows(sampler, dtype):
    """Bit for bit, including the second denoising step: the audio of a chunk starts with its first window."""
    model = build(small()).to(dtype)
    latents = model.encode(noise(2, 2, 6 * CHUNK, dtype=dtype))
    decoded = model.decode(latents, sampler=sampler, seed=3)
    for chunk in (1, 3, 5):
        values = latents.values.clone()
        values[..., 2 * chunk :] *= -1
        changed = model.decode(replace(latents, values=values), sampler=sampler, seed=3)
        seam = chunk * CHUNK
        assert torch.equal(changed[..., : seam - OVERLAP], decoded[..., : seam - OVERLAP])
        for part in (slice(seam - OVERLAP, seam), slice(seam, seam + CHUNK)):
            assert not torch.equal(changed[..., part], decoded[..., part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoder_returns_its_input_at_the_smallest_level(dtype):
    """Boundary condition of consistency models, bit for bit, for any latents; the inverse is the audio."""
    model = build(small()).to(dtype)
    audio, layout = noise(2, 2, 2 * CHUNK, dtype=dtype), torch.full((2,), int(ChannelLayout.STEREO))
    features = model.decoder.condition(model.bottleneck.expand(model.encode(audio).values), layout)
    spectrogram = model.decoder.representation(audio)
    sigma = torch.full((2, 2), model.decoder.schedule.sigma_min, dtype=dtype)
    with torch.no_grad():
        denoised = model.decoder(spectrogram, sigma, features)
        assert not torch.equal(model.decoder(spectrogram, 2 * sigma, features), spectrogram)
    assert torch.equal(denoised, spectrogram)
    torch.testing.assert_close(model.decoder.representation.inverse(denoised), audio, rtol=0, atol=1e-5)
