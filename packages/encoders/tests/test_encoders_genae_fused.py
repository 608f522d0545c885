"""The GenAE encoder after `optimize()`, with and without fused kernels."""

import copy
from dataclasses import replace

import pytest
import torch
from partita_blocks import SnakeLite, why_no_kernels
from partita_core import AudioSpec, ChannelLayout, PartitaError
from partita_encoders import GenAEEncoder, GenAEEncoderConfig
from torch import Tensor

needs_kernels = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))
AUDIO = AudioSpec(44_100, 2, (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE))
CONFIG = GenAEEncoderConfig(
    strides=(2, 4, 5),
    channels=(16, 16, 32, 48),
    mel_stage=2,
    mel_fft=64,
    mels=8,
    attention_dim=32,
    attention_layers=1,
    heads=2,
    head_dim=16,
    window=3,
    mlp_ratio=2,
)


def encoders(config=CONFIG, precision: str = "float32") -> tuple[GenAEEncoder, GenAEEncoder]:
    """An encoder, and an optimized copy."""
    torch.manual_seed(0)
    encoder = config.build(out_dim=12, audio_spec=AUDIO).eval()
    for module in encoder.modules():
        if isinstance(module, SnakeLite):
            torch.nn.init.normal_(module.log_beta)
    optimized = copy.deepcopy(encoder)
    optimized.optimize(precision=precision, compile=False)
    assert optimized.fused is not None
    return encoder, optimized


def inputs(batch: int, frames: int, hop: int = 40) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return 0.3 * torch.randn(batch, 2, hop * frames), torch.arange(batch) % 3


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.square().mean().sqrt())


@needs_kernels
@torch.no_grad()
@pytest.mark.parametrize("mel_stage", [0, 2, 3])
@pytest.mark.parametrize("batch, frames", [(1, 1), (3, 2), (3, 5), (1, 40)])
def test_fused_encoder_equals_modules(batch, frames, mel_stage):
    encoder, optimized = encoders(replace(CONFIG, mel_stage=mel_stage))
    given = inputs(batch, frames)
    assert optimized.fused is not None and optimized.fused.serves(given[0])
    assert error(optimized(*given), encoder(*given)) < 5e-5


@needs_kernels
@torch.no_grad()
def test_fused_bf16_is_close_to_float32():
    encoder, optimized = encoders(precision="bf16")
    given = inputs(2, 10)
    wanted = encoder(*given)
    noise = (optimized(*given) - wanted).square().mean()
    assert noise < 1e-4 * wanted.square().mean()


@needs_kernels
@torch.no_grad()
@pytest.mark.parametrize("width", [1, 7])
def test_fused_stream_equals_forward(width):
    _, optimized = encoders()
    audio, layout = inputs(2, 60)
    stream = optimized.stream(layout, width=width)
    pieces = [stream.push(piece, last=i == 5) for i, piece in enumerate(audio.split(400, dim=-1))]
    assert error(torch.cat(pieces, dim=-1), optimized(audio, layout)) < 5e-5


@needs_kernels
def test_fused_encoder_keeps_gradients_copies_and_state():
    encoder, optimized = encoders()
    audio, layout = inputs(1, 3)
    audio.requires_grad_()
    (wanted,) = torch.autograd.grad(encoder(audio, layout).square().sum(), audio)
    (found,) = torch.autograd.grad(optimized(audio, layout).square().sum(), audio)
    torch.testing.assert_close(found, wanted)
    assert optimized.state_dict().keys() == encoder.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(optimized)(audio, layout), optimized(audio, layout))


@needs_kernels
@torch.no_grad()
def test_float64_runs_the_modules():
    encoder, optimized = encoders()
    audio, layout = inputs(1, 3)
    assert torch.equal(optimized.double()(audio.double(), layout), encoder.double()(audio.double(), layout))


@needs_kernels
@pytest.mark.slow
@torch.no_grad()
def test_fused_encoder_can_be_exported():
    config = GenAEEncoderConfig(strides=(2, 3), channels=(8, 8, 8), dilations=(1,), mel_stage=0, attention_layers=0)
    encoder, optimized = encoders(config)
    frames = torch.export.Dim("frames", min=2, max=1000)
    program = torch.export.export(optimized, inputs(2, 6, hop=6), dynamic_shapes=({2: 6 * frames}, None))
    assert error(program.module()(*inputs(2, 9, hop=6)), encoder(*inputs(2, 9, hop=6))) < 5e-5


@torch.no_grad()
def test_optimize_without_kernels_changes_nothing(monkeypatch):
    monkeypatch.setattr("partita_blocks.fused.kernels", lambda: None)
    torch.manual_seed(0)
    encoder = CONFIG.build(out_dim=12, audio_spec=AUDIO)
    given = inputs(1, 2)
    before = encoder(*given)
    encoder.optimize(precision="float32", compile=False)
    assert encoder.fused is None and torch.equal(encoder(*given), before)


@needs_kernels
def test_unknown_precision_raises():
    with pytest.raises(PartitaError, match="'int8'"):
        encoders(precision="int8")


@torch.no_grad()
def test_bf16_without_kernels_keeps_stem_and_mel_in_float32(monkeypatch):
    """A tone leaves most mel bands empty; rounding its samples to bfloat16 would fill them."""
    monkeypatch.setattr("partita_blocks.fused.kernels", lambda: None)
    torch.manual_seed(0)
    encoder = CONFIG.build(out_dim=12, audio_spec=AUDIO).eval()
    half = copy.deepcopy(encoder)
    half.optimize(precision="bf16", compile=False)
    assert half.fused is None and half.stem.weight.dtype == torch.float32 and half.head.weight.dtype == torch.bfloat16
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(40 * 50) / 44_100).expand(1, 2, -1)
    layout = torch.tensor([1])
    wanted, found = encoder(tone, layout), half(tone, layout).float()
    assert 0 < (found - wanted).square().mean() < 1e-3 * wanted.square().mean()
    streamed = half.stream(layout, width=7).push(tone, last=True).float()
    assert (streamed - wanted).square().mean() < 1e-3 * wanted.square().mean()
