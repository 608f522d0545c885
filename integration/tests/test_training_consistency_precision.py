"""Consistency training in bfloat16: accuracy of the difference between student and teacher, of which the loss consists.

Measured by noise level with the step size at the end of training (a thousandth), against float64.
"""

from dataclasses import replace

import pytest
import torch
from partita.objectives import ConsistencyTrainingConfig, TrainState
from partita.objectives.consistency_chunks import chunk_windows
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import ConsistencyDecoderConfig
from partita_encoders import SummaryEncoderConfig
from torch import nn

LEVELS = (0.1, 1.0, 10.0)
STEP = 0.001
AUDIO = AudioSpec(8000, 2, (ChannelLayout.STEREO,))


def objective(*, autocast_denoiser: bool):
    torch.manual_seed(0)
    decoder = replace(ConsistencyDecoderConfig.example(), channels=(16, 32, 32), envelope_weight=None)
    encoder = replace(SummaryEncoderConfig.example(), norm_decay=None)
    model = AutoencoderConfig(AUDIO, 4, encoder, TanhConfig(gain=None), decoder).build().train()
    for module in model.decoder.modules():  # no layers at zero, as after training
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.5 * module.weight[0].numel() ** -0.5)
    return ConsistencyTrainingConfig(autocast_denoiser=autocast_denoiser).build(model=model)


def chunks_of(it):
    """Two pairs of chunks, with features computed in bfloat16."""
    generator = torch.Generator().manual_seed(1)
    layout = torch.ones(2, dtype=torch.int64)
    audio = 0.3 * torch.randn(2, 2, it.crop_multiple, generator=generator)
    batch = {"audio": audio, "audio_lengths": torch.full((2,), audio.shape[-1])}
    batch |= {"layout": layout, "target_layout": layout}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden, _ = it._encode(batch)
        chunks = chunk_windows(it.model.decoder, hidden, batch)
    return chunks


def difference(it, chunks, sigma: float, *, bf16: bool) -> torch.Tensor:
    schedule = it.model.decoder.schedule
    time = torch.full(chunks.counted.shape, schedule.time(sigma), dtype=torch.float64)
    torch.manual_seed(2)
    noise = torch.randn(chunks.clean.shape)  # drawn in float32 for every dtype
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        patch.setattr(torch, "randn_like", lambda x: noise.to(x))
        student, teacher = it.denoise_pair(chunks, time, time - STEP)
    return (student - teacher).detach().double()


def relative_errors(*, autocast_denoiser: bool) -> list[float]:
    it = objective(autocast_denoiser=autocast_denoiser)
    chunks = chunks_of(it)
    found = [difference(it, chunks, sigma, bf16=True) for sigma in LEVELS]
    it.double()
    wide = chunks._replace(clean=chunks.clean.double(), features=tuple(f.double() for f in chunks.features))
    exact = [difference(it, wide, sigma, bf16=False) for sigma in LEVELS]
    return [float((one - other).norm() / other.norm()) for one, other in zip(found, exact)]


def test_difference_has_float32_accuracy():
    assert max(relative_errors(autocast_denoiser=False)) < 1e-3


def test_autocast_denoiser_loses_accuracy_at_large_levels():
    """The larger the level, the smaller the difference, and the larger the share of rounding."""
    small, middle, large = relative_errors(autocast_denoiser=True)
    assert 0.005 < small < middle < large and large > 0.1


def test_gradients_reach_every_part_under_autocast():
    it = objective(autocast_denoiser=False)
    layout = torch.ones(2, dtype=torch.int64)
    audio = 0.3 * torch.randn(2, 2, it.crop_multiple, generator=torch.Generator().manual_seed(1))
    batch = {"audio": audio, "audio_lengths": torch.full((2,), audio.shape[-1])}
    batch |= {"layout": layout, "target_layout": layout}
    with torch.autocast("cpu", torch.bfloat16):
        it(batch, TrainState(99, 100), "generator").total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in it.parameters())
    assert sum(bool(parameter.grad.any()) for parameter in it.model.encoder.parameters()) > 10
