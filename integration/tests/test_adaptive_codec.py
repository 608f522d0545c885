"""The adaptive transform codec: what is kept, where it is put, and that both sides agree on it."""

from dataclasses import replace

import pytest
import torch
from partita.objectives import AdversarialReconstructionConfig
from partita_bottlenecks import AdaptiveConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import AdaptiveDecoderConfig
from partita_encoders import AdaptiveEncoderConfig
from torch.nn import functional as F

HOP, BINS, SIDE, DIM = 24, 48, 2, 18
AUDIO = AudioSpec(8000, 2, tuple(ChannelLayout))
SMALL = {"width": 8, "inner": 12, "blocks": 1}


def config(dim: int = DIM, **changes) -> AutoencoderConfig:
    encoder, decoder = AdaptiveEncoderConfig(hop=HOP, **SMALL), AdaptiveDecoderConfig(**SMALL)
    return AutoencoderConfig(AUDIO, dim, encoder, AdaptiveConfig(bins=BINS, side=SIDE, **SMALL, **changes), decoder)


def built(dim: int = DIM, **changes) -> Autoencoder:
    torch.manual_seed(0)
    return config(dim, **changes).build().eval()


def music(items: int = 2, frames: int = 40, seed: int = 0) -> torch.Tensor:
    x = torch.randn(2 * items, 1, frames * HOP + 15, generator=torch.Generator().manual_seed(seed))
    return 0.05 * F.conv1d(x, 0.85 ** torch.arange(16.0)[None, None]).view(items, 2, -1)


def test_all_bins_are_reconstructed_exactly():
    model, audio = built(SIDE + BINS).double(), music().double()
    with torch.no_grad():
        model.decoder.network.head.weight.zero_()
    decoded = model.decode(model.encode(audio, layout="stereo"))
    assert (decoded - audio).abs().max() < 1e-6


def test_selected_bins_are_those_of_the_largest_scales():
    model = built(tilt=0.0)
    hidden = torch.randn(2, SIDE + BINS, 5, generator=torch.Generator().manual_seed(1))
    values = model.bottleneck(hidden).values
    scale, placed = model.bottleneck.expand(values).chunk(2, dim=1)
    kept = placed != 0
    assert (kept.sum(1) == DIM - SIDE).all()
    smallest = torch.where(kept, scale, float("inf")).amin(1)
    assert (torch.where(kept, -float("inf"), scale).amax(1) <= smallest).all()
    assert torch.allclose((placed * scale.exp())[kept], hidden[:, SIDE:][kept], rtol=1e-5)
    assert torch.equal(values[:, :SIDE], hidden[:, :SIDE])


def test_bins_keep_their_channels_while_the_selection_changes():
    """A bin is in the channel of its index modulo their number, unless a larger one has it."""
    bottleneck = built(tilt=0.0).bottleneck
    scale = torch.randn(1, BINS, 200, generator=torch.Generator().manual_seed(2))
    positions = bottleneck._positions(scale)
    count = DIM - SIDE
    home = positions % count == torch.arange(count)[:, None]
    assert home.float().mean() > 0.5
    largest = positions.gather(1, scale.gather(1, positions).argmax(1, keepdim=True))
    slots = (positions == largest).float().argmax(1, keepdim=True)
    assert torch.equal(slots, largest % count)
    assert all(len(set(column.tolist())) == count for column in positions[0].mT)


def test_envelope_is_learned_by_its_likelihood():
    """The loss is smallest at scales that are the mean magnitudes."""
    bottleneck = built().bottleneck
    bins = 0.1 * torch.randn(1, BINS, 500, generator=torch.Generator().manual_seed(3))
    hidden = torch.cat([torch.zeros(1, SIDE, 500), bins], dim=1)

    def loss(log_scale: float) -> float:
        with torch.no_grad():
            bottleneck.network.head.weight.zero_()
            bottleneck.network.head.bias.zero_()
            bottleneck.mean_log.fill_(log_scale)
        return float(bottleneck(hidden).losses["likelihood"].detach())

    best = float(bins.abs().mean().log())
    assert loss(best) < min(loss(best - 0.2), loss(best + 0.2))


def test_statistics_are_measured_before_the_first_step():
    model = built()
    audio = music(4)
    layout = torch.full((4,), int(ChannelLayout.STEREO))
    batch = {"audio": audio, "audio_lengths": torch.full((4,), audio.shape[-1]), "layout": layout}
    batch["target_layout"] = layout
    objective = AdversarialReconstructionConfig.example().build(model=model)
    assert "48 bins" in objective.initialize(iter([batch] * 100), seconds=1.0)
    bins = model.encoder(F.pad(audio, (0, -audio.shape[-1] % HOP)), layout)[:, SIDE:]
    assert torch.allclose(model.bottleneck.deviation, bins.square().mean((0, 2)).sqrt(), rtol=1e-4)
    assert (model.bottleneck.mean_log < 0).all()


def test_what_is_missing_becomes_noise_that_does_not_repeat():
    model = built(SIDE + 1)
    audio = 0.1 * torch.randn(1, 2, 200 * HOP, generator=torch.Generator().manual_seed(4))
    decoded = model.decode(model.encode(audio, layout="stereo"))[0, 0]
    assert float(decoded.square().mean().sqrt()) > 1e-3
    frames = decoded.view(-1, HOP)
    frames = frames / frames.norm(dim=1, keepdim=True)
    assert (frames[1:] * frames[:-1]).sum(1).mean().abs() < 0.2


def test_parts_that_do_not_fit_raise():
    other = replace(config(), encoder=AdaptiveEncoderConfig(hop=36, **SMALL))
    with pytest.raises(PartitaError, match="out_dim is 50, but 72 bins"):
        other.build()
    with pytest.raises(PartitaError, match="dim is 51.*3 to 50"):
        built(51)
