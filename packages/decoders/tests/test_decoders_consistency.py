import math
from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, LatentSpec, PartitaError
from partita_decoders import ConsistencyDecoderConfig, Independent, TwoStep
from partita_testing import DECODER_CHECKS, DecoderCase

STEREO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))
LATENTS = LatentSpec(4, 44_100, 48, 2, False)
LAYOUT = torch.ones(2, dtype=torch.int64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def noise(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def build(perturbed=True, latent_spec=LATENTS, dtype=torch.float64, **changed):
    """The example with perturbed weights; its chunks are 8 frames of 6 samples."""
    config = replace(ConsistencyDecoderConfig.example(), **changed)
    decoder = config.build(latent_spec=latent_spec, audio_spec=STEREO).to(dtype).eval()
    with torch.no_grad():
        for parameter in decoder.parameters() if perturbed else ():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def inputs(decoder, chunks=2, dtype=torch.float64):
    hidden = noise(2, 4, chunks * decoder.frames_per_chunk * decoder.tokens_per_frame, dtype=dtype)
    x = noise(2, 4, 12, 8 * chunks, dtype=dtype)
    return x, 0.1 + noise(2, chunks, dtype=dtype).abs(), decoder.condition(hidden, LAYOUT), hidden


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunks", [1, 2])
def test_smallest_level_returns_the_input_bit_for_bit(dtype, chunks):
    decoder = build(dtype=dtype)
    x, sigma, features, _ = inputs(decoder, chunks, dtype)
    y = decoder(x, torch.full_like(sigma, 0.002), features)
    assert y.dtype == dtype and torch.equal(y, x)
    assert not torch.equal(decoder(x, sigma, features), x)


def test_each_chunk_has_its_own_level():
    decoder = build()
    x, sigma, features, _ = inputs(decoder)
    for chunk in (0, 1):
        levels = sigma.clone()
        levels[:, chunk] = 0.002
        same = (decoder(x, levels, features) == x).unflatten(-1, (2, 8)).all(-1).all(1).all(1)  # (batch, chunk)
        assert same[:, chunk].all() and not same[:, 1 - chunk].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunk_does_not_depend_on_the_next(dtype):
    """The left result is bit-identical for any content, noise level and latents to the right."""
    decoder = build(dtype=dtype)
    x, sigma, features, hidden = inputs(decoder, dtype=dtype)
    y = decoder(x, sigma, features)
    other = hidden.clone()
    other[..., hidden.shape[-1] // 2 :] += 1
    x2, sigma2 = x.clone(), sigma.clone()
    x2[..., 8:] = 50 * noise(2, 4, 12, 8, dtype=dtype)
    sigma2[:, 1] = 70.0
    y2 = decoder(x2, sigma2, decoder.condition(other, LAYOUT))
    assert torch.equal(y2[..., :8], y[..., :8])
    assert (y2[..., 8:] - y[..., 8:]).abs().max() > 0.1


def test_chunk_depends_on_the_one_before():
    decoder = build()
    x, sigma, features, _ = inputs(decoder)
    changed = x.clone()
    changed[..., :8] += 1
    assert (decoder(changed, sigma, features) - decoder(x, sigma, features))[..., 8:].abs().max() > 1e-4


def test_single_chunk_equals_the_left_of_two():
    decoder = build()
    x, sigma, features, _ = inputs(decoder)
    alone = decoder(x[..., :8], sigma[:, :1], tuple(f[:, :1] for f in features))
    torch.testing.assert_close(alone, decoder(x, sigma, features)[..., :8], rtol=0, atol=1e-12)


def test_result_depends_on_every_feature():
    decoder = build()
    x, sigma, features, _ = inputs(decoder)
    y = decoder(x, sigma, features)
    sizes = [tuple(f.shape[2:]) for f in features]
    # Four maps, the envelope of two channels, and two latents as tokens.
    assert sizes == [(4, 12, 8), (8, 6, 4), (8, 6, 4), (16, 3, 2), (2, 12, 8), (2, 16)]
    for i in range(len(features)):
        changed = tuple(f + noise(*f.shape) if j == i else f for j, f in enumerate(features))
        assert (decoder(x, sigma, changed) - y).abs().max() > 1e-5


def test_untrained_decoder_is_the_skip_connection():
    decoder = build(perturbed=False, envelope_weight=None)
    x, sigma, features, _ = inputs(decoder)
    skip = 0.25 / ((sigma - 0.002) ** 2 + 0.25)
    torch.testing.assert_close(decoder(x, sigma, features), x * skip.repeat_interleave(8, dim=1)[:, None, None])


def test_result_depends_on_the_gains_of_both_ends():
    decoder = build()
    x, sigma, features, _ = inputs(decoder)
    y = decoder(x, sigma, features)
    for half in (0, 12):  # gains of the input and of the output
        with torch.no_grad():
            decoder.denoiser.gains.gains.bias[half : half + 12] += 1
        changed = decoder(x, sigma, features)
        assert (changed - y).abs().max() > 1e-4
        y = changed


def test_envelope_replaces_sigma_data():
    """At every level, the untrained result is noise of this spectrum."""
    decoder = build(perturbed=False)
    x, sigma, features, _ = inputs(decoder)
    median = math.sqrt(2 * math.log(2))
    expected = torch.full((2, 2, 2, 12, 8), median * 0.5, dtype=torch.float64).log()
    torch.testing.assert_close(features[-2], expected)
    deviation = 10 ** (2 * torch.rand_like(expected) - 2)  # batch, chunks, channels, bins, frames
    given = (*features[:-2], (median * deviation).log(), features[-1])
    squares = deviation.square().repeat_interleave(2, 2)
    noisy = squares + sigma[:, :, None, None, None] ** 2 - 0.002**2
    torch.testing.assert_close(decoder(x, sigma, given), x * (squares / noisy).sqrt().movedim(1, 3).flatten(3))


def test_denoising_has_no_gradient_to_the_envelope():
    decoder = build().train()
    x, sigma, features, _ = inputs(decoder)
    deviation = decoder.deviation(features)
    assert deviation.shape == x.shape and not deviation.requires_grad
    predicted = features[-2].detach().exp() / math.sqrt(2 * math.log(2))  # batch, chunks, channels, bins, frames
    for channel, chunk in ((0, 0), (3, 1)):  # real part of the left channel, imaginary part of the right
        torch.testing.assert_close(
            deviation[:, channel, :, 8 * chunk : 8 * chunk + 8], predicted[:, chunk, channel // 2]
        )
    assert build(envelope_weight=None).deviation(features) is None
    assert torch.autograd.grad(decoder(x, sigma, features).sum(), features[-2], allow_unused=True) == (None,)
    assert float(torch.autograd.grad(decoder(x, sigma, features).sum(), features[0])[0].abs().sum()) > 0


def test_envelope_loss_is_the_error_of_log_magnitudes_per_chunk():
    decoder = build(latents_in_decoder=False)
    clean = noise(2, 4, 12, 16)
    magnitudes = clean.unflatten(1, (2, 2)).square().sum(2).sqrt().reshape(2, 2, 12, 2, 8).permute(0, 3, 1, 2, 4)
    exact = (magnitudes + 3e-3).log()
    assert decoder.loss_weights == {"envelope": 1.0}
    assert float(decoder.losses((exact,), clean)["envelope"].abs().max()) < 1e-12
    louder = exact + torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)[:, :, None, None, None]
    wanted = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(decoder.losses((louder,), clean)["envelope"], wanted)
    # Weights by the mel scale: the lowest twelfth of 22.05 kHz spans 1451 of 3923 mel.
    for row, weight in ((0, 12 * 1451.41 / 3923.36), (11, 12 * 94.914 / 3923.36)):
        raised = exact.clone()
        raised[:, :, :, row] += 1.2
        share = decoder.losses((raised,), clean)["envelope"]
        torch.testing.assert_close(share, torch.full_like(share, 0.1 * weight), rtol=1e-4, atol=0)
    silent = decoder.losses((torch.zeros_like(exact),), torch.zeros_like(clean))["envelope"]
    torch.testing.assert_close(silent, torch.full((2, 2), -math.log(3e-3), dtype=torch.float64))
    plain = build(envelope_weight=None)
    assert plain.loss_weights == {} and plain.losses(inputs(plain)[2], clean) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"registers": 0, "latents_in_decoder": False, "envelope_weight": None},
        {"companding": "component", "stft_hop": 12, "chunk_frames": 4, "n_fft": 24},
        {"sampler": Independent()},
    ],
)
def test_options_pass_conformance(changed):
    case = DecoderCase(replace(ConsistencyDecoderConfig.example(), **changed), hop=48, tokens_per_frame=2)
    for check in DECODER_CHECKS:
        if check.__name__ != "exports":  # takes seconds, and is covered by the example
            check(case)


@pytest.mark.parametrize("hop, tokens, frames", [(48, 1, 1), (24, 1, 2), (16, 2, 3), (1, 1, 48)])
def test_chunks_of_several_frames(hop, tokens, frames):
    decoder = build(latent_spec=LatentSpec(4, 44_100, hop, tokens))
    assert (decoder.frames_per_chunk, decoder.hop, decoder.tokens_per_frame) == (frames, hop, tokens)
    count = 2 * frames + 1  # the last chunk is padded
    with torch.no_grad():
        assert decoder.generate(noise(2, 4, count * tokens), LAYOUT).shape == (2, 2, count * hop)


def test_inconsistent_settings_of_consistency_raise():
    with pytest.raises(PartitaError, match=r"8 \* 6 = 48 .* 36"):
        build(latent_spec=LatentSpec(4, 44_100, 36))
    with pytest.raises(PartitaError, match="12 rows and 6 columns"):
        build(chunk_frames=6, stft_hop=8)


def test_settings_of_schedule_and_sampler():
    decoder = build(sigma_min=0.01, sigma_max=20.0, rho=5.0, sampler=TwoStep(refine=False))
    assert (decoder.schedule.sigma_min, decoder.schedule.sigma_max, decoder.schedule.rho) == (0.01, 20.0, 5.0)
    assert decoder.sampler == TwoStep(refine=False) and decoder.window == 2
    x, sigma, features, _ = inputs(decoder)
    assert torch.equal(decoder(x, torch.full_like(sigma, 0.01), features), x)


def test_every_parameter_gets_a_gradient_in_every_step():
    """Distributed training stops at a parameter without one; zeros, as before training, are fine."""
    decoder = build(perturbed=False).train()
    x, sigma, features, _ = inputs(decoder)
    own = sum(loss.sum() for loss in decoder.losses(features, x).values())
    (decoder(x, sigma, features).square().sum() + own).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_parameter_count_of_the_defaults():
    """Most of about 150 M parameters of the autoencoder, and 512 positions per chunk."""
    with torch.device("meta"):
        config = ConsistencyDecoderConfig(latents_in_decoder=False)
        decoder = config.build(latent_spec=LatentSpec(64, 44_100, 32_768, 8, False), audio_spec=STEREO)
    assert decoder.frames_per_chunk == 1 and decoder.upsampler.grid == (64, 8)
    assert 100e6 < sum(p.numel() for p in decoder.parameters()) < 115e6
