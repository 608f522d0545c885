"""Linear codecs, and linear paths beside networks: fitted before the first step, exact through every bottleneck."""

import pytest
import torch
from partita.objectives import AdversarialReconstructionConfig
from partita_bottlenecks import (
    IdentityConfig,
    NoiseRegularizedConfig,
    SoftNormConfig,
    TanhConfig,
    VAEConfig,
)
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, lookup
from partita_decoders import LinearDecoderConfig, LinearPathDecoderConfig
from partita_encoders import LinearEncoderConfig, LinearPathEncoderConfig
from torch.nn import functional as F

HOP, DIM = 24, 16
AUDIO = AudioSpec(8000, 2, tuple(ChannelLayout))
NETWORKS = ["genae", "oobleck", "spectrostream"]


def music(seed: int, items: int = 4, frames: int = 60) -> torch.Tensor:
    """Stereo noise with a falling spectrum, mostly in the middle, of changing level."""
    x = torch.randn(items * 2, 1, frames * HOP + 15, generator=torch.Generator().manual_seed(seed))
    x = F.conv1d(x, 0.85 ** torch.arange(16.0)[None, None]).view(items, 2, -1)
    x = torch.stack([x[:, 0] + 0.3 * x[:, 1], x[:, 0] - 0.3 * x[:, 1]], dim=1)
    return 0.05 * x * torch.logspace(0, 1, x.shape[-1])


def batch(seed: int) -> dict[str, torch.Tensor]:
    audio = music(seed)
    layout = torch.full((len(audio),), int(ChannelLayout.STEREO))
    lengths = torch.full((len(audio),), audio.shape[-1])
    return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": layout}


def fitted(config: AutoencoderConfig) -> Autoencoder:
    torch.manual_seed(0)
    model = config.build()
    objective = AdversarialReconstructionConfig.example().build(model=model)
    line = objective.initialize((batch(seed) for seed in range(100)), seconds=2.0)
    assert "numbers per frame" in line
    return model.eval()


def linear_config(bottleneck, level: str = "none", numbers: int | None = None) -> AutoencoderConfig:
    encoder = LinearEncoderConfig(hop=HOP, level=level, numbers=numbers)
    return AutoencoderConfig(AUDIO, DIM, encoder, bottleneck, LinearDecoderConfig(level=level, numbers=numbers))


def error_db(model: Autoencoder, audio: torch.Tensor) -> float:
    decoded = model.decode(model.encode(audio, layout="stereo"))
    return float(10 * ((decoded - audio).square().sum() / audio.square().sum()).log10())


@pytest.mark.parametrize(
    "bottleneck, level",
    [
        (NoiseRegularizedConfig(), "channel"),
        (TanhConfig(), "channel"),
        (SoftNormConfig(), "none"),
        (SoftNormConfig(), "root"),
        (VAEConfig(), "none"),
    ],
)
def test_linear_codec_passes_every_bottleneck(bottleneck, level):
    numbers = DIM - 2
    reference = error_db(fitted(linear_config(IdentityConfig(), "none", numbers)), music(1000))
    assert reference < -10
    assert error_db(fitted(linear_config(bottleneck, level, numbers)), music(1000)) == pytest.approx(
        reference, abs=0.01
    )


def test_without_a_level_channel_normalization_loses_the_level():
    assert error_db(fitted(linear_config(NoiseRegularizedConfig(), "none")), music(1000)) > -6


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("level", ["none", "channel"])
def test_before_training_the_path_is_the_linear_codec(network, level):
    """Networks start at zero, and their gradients do not."""
    bottleneck = NoiseRegularizedConfig() if level == "channel" else IdentityConfig()
    encoder, decoder = (lookup(f"{role}/{network}").example() for role in ("encoder", "decoder"))
    hop = decoder_hop(encoder)
    paths = {"numbers": 6, "level": level}
    config = AutoencoderConfig(
        AUDIO, DIM, LinearPathEncoderConfig(encoder, **paths), bottleneck, LinearPathDecoderConfig(decoder, **paths)
    )
    linear = AutoencoderConfig(
        AUDIO, DIM, LinearEncoderConfig(hop=hop, **paths), bottleneck, LinearDecoderConfig(**paths)
    )
    model, audio = fitted(config), music(1000)
    assert error_db(model, audio) == pytest.approx(error_db(fitted(linear), audio), abs=1e-3)
    model.train()
    reconstruction, _ = model(audio[:1], "stereo")
    reconstruction.square().sum().backward()
    changing = [p for p in model.decoder.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert changing


def decoder_hop(encoder) -> int:
    return encoder.build(out_dim=DIM, audio_spec=AUDIO).hop


def test_held_numbers_stay_those_of_the_linear_codec():
    encoder = lookup("encoder/oobleck").example()
    free = LinearPathEncoderConfig(encoder, numbers=6).build(out_dim=DIM, audio_spec=AUDIO)
    held = LinearPathEncoderConfig(encoder, numbers=6, corrects=False).build(out_dim=DIM, audio_spec=AUDIO)
    audio = music(3)[..., : 10 * held.hop]
    layout = torch.full((len(audio),), int(ChannelLayout.STEREO))
    for part in (free, held):
        torch.nn.init.normal_(part.network.head[1].parametrizations.weight.original0)
        expected = part.linear(audio, layout)
        values = part(audio, layout)
        assert torch.equal(values[:, :6], expected[:, :6]) == (part is held)
        assert not torch.allclose(values[:, 6:], expected[:, 6:])


def test_paths_are_saved_with_the_model(tmp_path):
    config = linear_config(IdentityConfig(), "root")
    model = fitted(config)
    model.save_pretrained(tmp_path)
    again = Autoencoder.from_pretrained(tmp_path)
    assert torch.equal(again.decode(again.encode(music(5))), model.decode(model.encode(music(5))))
    torch.manual_seed(0)
    assert config.build().space_id != model.space_id == again.space_id
