"""F3's bottleneck behind real encoders, on audio: V1 and V2 of its specification."""

import copy
import math

import pytest
import torch
from partita_bottlenecks import NoiseRegularizedConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import GenAEDecoderConfig, OobleckDecoderConfig, SpectroStreamDecoderConfig
from partita_encoders import GenAEEncoderConfig, OobleckEncoderConfig, SpectroStreamEncoderConfig

RATE, DIM = 16_000, 64
MONO = (ChannelLayout.MONO,)
SYSTEMS = {
    "spectrostream": (SpectroStreamEncoderConfig, SpectroStreamDecoderConfig),
    "genae": (GenAEEncoderConfig, GenAEDecoderConfig),
    "oobleck": (OobleckEncoderConfig, OobleckDecoderConfig),
}


def signals():
    torch.manual_seed(0)
    t = torch.arange(RATE // 2) / RATE
    syllables = torch.sin(2 * math.pi * 4 * t).clamp_min(0)
    voice = sum(torch.sin(2 * math.pi * 120 * k * t) / k for k in range(1, 20))
    chord = sum(torch.sin(2 * math.pi * pitch * t) for pitch in (220.0, 277.2, 329.6))
    audio = {
        "noise": 0.1 * torch.randn(len(t)),
        "speech": 0.2 * syllables * voice,
        "music": 0.1 * chord,
        "silence": torch.zeros(len(t)),
    }
    return {name: signal[None, None] for name, signal in audio.items()}


@pytest.fixture(scope="module", params=SYSTEMS)
def model(request):
    encoder, decoder = SYSTEMS[request.param]
    config = AutoencoderConfig(
        AudioSpec(RATE, 1, MONO), DIM, encoder.example(), NoiseRegularizedConfig(), decoder.example()
    )
    torch.manual_seed(0)
    return config.build().eval()


@pytest.mark.parametrize("gain_db", [-30, 0, 30])
@pytest.mark.parametrize("name", ["noise", "speech", "music", "silence"])
def test_frames_keep_their_scale(model, name, gain_db):
    audio = signals()[name] * 10 ** (gain_db / 20)
    z = model.encode(audio).values
    whole = audio.shape[-1] // model.latent_spec.hop * model.latent_spec.hop
    with torch.no_grad():
        std = model.encoder(audio[..., :whole], torch.tensor([0])).std(1, correction=0)
    measured = torch.nn.functional.pad(std >= 0.02, (0, z.shape[-1] - std.shape[-1]))
    assert (z.mean(1).abs() < 1e-5).all() and (z.square().mean(1) <= 1 + 1e-5).all()
    assert ((z.std(1, correction=0)[measured] - 1).abs() < 1e-3).all()
    assert ((z.norm(dim=1)[measured] - 8).abs() < 8e-3).all()
    assert measured.any() or (name == "silence" or gain_db == -30)


def test_encoding_and_decoding_are_deterministic_and_noise_is_for_training(model):
    audio = torch.cat(list(signals().values()))
    first, second = model.encode(audio), model.encode(audio)
    assert torch.equal(first.values, second.values)
    assert torch.equal(model.decode(first), model.decode(second))
    again = copy.deepcopy(model).train()
    hidden = torch.randn(2, DIM, 20)
    clean = model.bottleneck(hidden).values
    assert not torch.equal(model.bottleneck(hidden, stochastic=True).values, clean)
    assert torch.equal(again.bottleneck(hidden, stochastic=False).values, clean)
    assert not torch.equal(again.bottleneck(hidden).values, clean)


def test_gradients_of_silence_are_finite(model):
    audio = torch.zeros(1, 1, 20 * model.latent_spec.hop, requires_grad=True)
    layout = torch.tensor([0])
    values = model.bottleneck(model.encoder(audio, layout), stochastic=False).values
    assert values.isfinite().all() and (values.square().mean(1) <= 1 + 1e-5).all()
    loss = model.decoder(model.bottleneck.expand(values), layout).square().mean() + (values**3).mean()
    gradients = torch.autograd.grad(loss, [audio, *model.encoder.parameters()], allow_unused=True)
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
