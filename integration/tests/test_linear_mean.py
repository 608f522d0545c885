"""Consistency training about a linear mean: fitted first, numbers held while the conditioning is trained."""

from dataclasses import replace

import pytest
import torch
from partita.objectives import ConsistencyTrainingConfig, TrainState
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, lookup
from partita_core.zero_start import matrix_layers
from partita_decoders import Autoregressive, Independent, LinearDecoderConfig, LinearPathDecoderConfig, TwoStep
from partita_encoders import LinearEncoderConfig, LinearPathEncoderConfig
from torch.nn import functional as F

AUDIO, HOP, DIM, NUMBERS, CHUNK = AudioSpec(8000), 24, 12, 6, 48
PATH = {"numbers": NUMBERS, "level": "channel"}


def sound(seed: int, items: int = 4, chunks: int = 8) -> torch.Tensor:
    """Noise with a falling spectrum."""
    x = torch.randn(items, 1, chunks * CHUNK + 15, generator=torch.Generator().manual_seed(seed))
    return 0.1 * F.conv1d(x, 0.85 ** torch.arange(16.0)[None, None])


def batch(seed: int) -> dict[str, torch.Tensor]:
    audio = sound(seed)
    layout = torch.zeros(len(audio), dtype=torch.int64)
    lengths = torch.full((len(audio),), audio.shape[-1])
    return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": layout}


def build(corrects: bool = True, **changed) -> Autoencoder:
    torch.manual_seed(0)
    encoder = LinearPathEncoderConfig(lookup("encoder/frames").example(), corrects=corrects, **PATH)
    network = replace(lookup("decoder/consistency").example(), refines=True, local=True, **changed)
    return AutoencoderConfig(AUDIO, DIM, encoder, TanhConfig(), LinearPathDecoderConfig(network, **PATH)).build()


def objective(model: Autoencoder, **changed):
    return replace(ConsistencyTrainingConfig(), conditioning_start=0.5, warm_start=1.0, **changed).build(model=model)


@pytest.mark.parametrize("sampler", [Independent(), TwoStep(), Autoregressive(steps=3, new_noise=False)])
def test_before_training_it_is_the_linear_codec(sampler):
    """With noise of negligible deviation; the lapped mean has the quality of the linear codec."""
    model = build(noise_passes=False, sigma_data=1e-5)
    it = objective(model)
    line = it.initialize((batch(seed) for seed in range(100)), seconds=0.5)
    assert f"{NUMBERS} numbers per frame" in line
    linear = AutoencoderConfig(
        AUDIO, DIM, LinearEncoderConfig(hop=HOP, **PATH), TanhConfig(), LinearDecoderConfig(**PATH)
    ).build()
    for part, matrix in ((linear.encoder, model.encoder.linear), (linear.decoder, model.decoder.linear)):
        part.load_state_dict(matrix.state_dict())
    audio = sound(1000)
    expected = linear.eval().decode(linear.encode(audio))
    model.eval()
    decoded = model.decode(model.encode(audio), sampler=sampler)
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-3)
    error = (decoded - audio).square().sum() / audio.square().sum()
    assert error < 0.2


@pytest.mark.parametrize("corrects", [True, False])
def test_linear_numbers_are_held_while_the_conditioning_is_trained(corrects):
    model = build(corrects).train()
    with torch.no_grad():
        for parameter in model.decoder.parameters():  # some start at zero, which stops the gradients
            parameter.add_(0.1 * torch.randn_like(parameter))
    it = objective(model)
    last = matrix_layers(model.encoder.network)[-1]
    for step, moves in ((0, False), (49, False), (50, corrects)):
        it.zero_grad()
        torch.manual_seed(1)
        it(batch(3), TrainState(step, 100), "generator").total.backward()
        rows = last.weight.grad.abs().amax(1) > 0  # one row per channel of the hidden frames
        assert rows[:NUMBERS].any() == moves
        assert rows[NUMBERS : DIM - 2].all()


@torch.no_grad()
def test_features_of_training_are_those_of_decoding():
    """A crop is conditioned at once, a stream chunk by chunk with the context of the mean."""
    model = build().eval().double()
    hidden = torch.randn(2, DIM, 10).double()
    layout = torch.zeros(2, dtype=torch.int64)
    stream = model.decoder.condition_stream(layout)
    pieces = [stream.push(hidden[..., i : i + 2], last=i == 8) for i in range(0, 10, 2)]
    for i, feature in enumerate(model.decoder.condition(hidden, layout)):
        joined = torch.cat([piece[i] for piece in pieces], dim=-1).movedim(-1, 1)
        torch.testing.assert_close(joined, feature, rtol=0, atol=1e-12)


def test_model_is_saved_with_its_mean(tmp_path):
    model = build().eval()
    objective(model).initialize((batch(seed) for seed in range(20)), seconds=0.2)
    model.save_pretrained(tmp_path)
    again = Autoencoder.from_pretrained(tmp_path)
    audio = sound(5)
    assert torch.equal(again.decode(again.encode(audio)), model.decode(model.encode(audio)))
