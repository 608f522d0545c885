from dataclasses import replace

import pytest
import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError
from partita_encoders import SummaryEncoderConfig
from partita_testing import ENCODER_CHECKS

MONO = AudioSpec(44_100, 1, (ChannelLayout.MONO,))
STEREO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))
LAYOUT = torch.ones(1, dtype=torch.int64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(tokens="summary", **changed):
    """The example, moved off its initial zeros; 8 frames of 6 samples a chunk, 3 rows and 2 columns of tokens."""
    slots = {} if tokens == "summary" else {"tokens_per_frame": 2}
    config = replace(SummaryEncoderConfig.example(), tokens=tokens, **slots | changed)
    encoder = config.build(out_dim=4, audio_spec=STEREO).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def audio(frames, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(1, 2, 48 * frames, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("audio_spec, ratio", [(MONO, 64), (STEREO, 128)])
def test_published_compression(audio_spec, ratio):
    """4096 samples a latent vector; 64 numbers for 4096 samples of one channel or of two."""
    small = {"channels": (4, 4, 4, 8), "blocks": (1, 1, 1, 1), "layers": 1, "heads": 1, "head_dim": 8}
    encoder = SummaryEncoderConfig(**small).build(out_dim=64, audio_spec=audio_spec)
    assert encoder.hop == 32_768 and encoder.tokens_per_frame == 8
    assert encoder.hop // encoder.tokens_per_frame == 4096
    with torch.no_grad():
        hidden = encoder(torch.randn(1, audio_spec.channels, 2 * encoder.hop), LAYOUT)
    assert hidden.shape == (1, 64, 16)
    assert audio_spec.channels * 2 * encoder.hop / hidden.numel() == ratio
    assert encoder.context == (1, 1) and encoder.stft.padding == 768
    assert encoder.transformer.tokens == 512 + 8


@pytest.mark.parametrize("tokens", ["ordered", "local"])
def test_ordered_variants_conform(tokens):
    config = replace(SummaryEncoderConfig.example(), tokens=tokens, tokens_per_frame=2)
    for check in ENCODER_CHECKS:
        if check.__name__ != "exports":  # which takes seconds, and is checked of the example
            check(config)


def test_only_a_set_is_unordered():
    assert not build().ordered and build("ordered").ordered and build("local").ordered


def test_chunks_see_only_samples_under_their_own_windows():
    encoder, signal = build(), audio(4)
    hidden = encoder(signal, LAYOUT)
    for at, felt in ((48 - 9, [0]), (48 - 8, [0, 1]), (48 + 8, [0, 1]), (48 + 9, [1])):
        changed = signal.clone()
        changed[..., at] += 0.1
        difference = (encoder(changed, LAYOUT) - hidden).abs().amax((0, 1)).unflatten(0, (4, 2)).amax(1)
        assert (difference > 1e-9).nonzero().flatten().tolist() == felt


def test_tokens_are_frame_major():
    encoder, signal = build(), audio(3)
    hidden = encoder(signal, LAYOUT)
    changed = signal.clone()
    changed[..., 110:130] += 0.1  # inside chunk 2
    difference = (encoder(changed, LAYOUT) - hidden).abs().amax((0, 1))
    assert (difference[:4] == 0).all() and (difference[4:] > 1e-6).all()


@pytest.mark.parametrize("tokens, felt", [("summary", [0, 1]), ("ordered", [0, 1]), ("local", [1])])
def test_variants_differ_in_what_a_latent_sees(tokens, felt):
    """Of two columns of tokens the second is changed."""
    encoder = build(tokens)
    grid = torch.randn(1, 3, 2, 16, dtype=torch.float64)
    changed = grid.clone()
    changed[:, :, 1] += torch.randn(1, 3, 16, dtype=torch.float64)
    difference = (encoder._mix(changed) - encoder._mix(grid)).abs().amax((0, 2))
    assert (difference > 1e-6).nonzero().flatten().tolist() == felt


@pytest.mark.parametrize("tokens, felt", [("summary", [0, 1]), ("ordered", [1]), ("local", [1])])
def test_the_direct_way_is_to_all_of_a_set_and_else_to_the_own_column(tokens, felt):
    encoder = build(tokens)
    grid = torch.randn(1, 3, 2, 16, dtype=torch.float64)
    changed = grid.clone()
    changed[:, 0, 1] += torch.randn(16, dtype=torch.float64)
    straight = encoder._straight(encoder.direct, grid)
    assert straight.shape == (1, 2, 16)
    difference = (encoder._straight(encoder.direct, changed) - straight).abs().amax((0, 2))
    assert (difference > 1e-6).nonzero().flatten().tolist() == felt
    # Norm and head see the sum.
    encoder._mix, encoder._straight = lambda grid: torch.zeros(1, 2, 16).double(), lambda *_: torch.zeros(1, 2, 16)
    nothing = encoder(audio(1), LAYOUT)
    encoder._straight = lambda *_: straight
    assert not torch.equal(encoder(audio(1), LAYOUT), nothing)


def test_variants_have_the_same_layers():
    counts = {}
    for tokens in ("summary", "ordered", "local"):
        parameters = dict(build(tokens, direct=None).named_parameters())
        counts[tokens] = {
            name: p.shape for name, p in parameters.items() if name not in ("learned", "transformer.positions")
        }
    assert counts["summary"] == counts["ordered"] == counts["local"]


def test_latents_begin_small_or_zero_where_they_are_not_normalised():
    assert build().head.weight.shape == (4, 16)
    for std in (0.0, 0.02):
        config = replace(SummaryEncoderConfig.example(), out_std=std, norm_decay=None)
        hidden = config.build(out_dim=512, audio_spec=STEREO)(audio(1).float(), LAYOUT)
        assert hidden.std().item() == pytest.approx(std * 16**0.5, rel=0.2)


@pytest.mark.parametrize("zero_init, spread", [(False, 1.0), (True, 0.0)])
def test_latents_depend_on_the_audio_from_the_first_step_on(zero_init, spread):
    """Each number varies over chunks as much as it may; with all branches at zero there is nothing to raise."""
    config = replace(SummaryEncoderConfig.example(), zero_init=zero_init)
    encoder = config.build(out_dim=4, audio_spec=STEREO)
    hidden = encoder(audio(64).float(), LAYOUT)
    by_chunk = hidden.unflatten(2, (-1, 2)).std(2, correction=0)
    assert by_chunk.median().item() == pytest.approx(spread, abs=0.05)


def test_magnitudes_tell_of_loudness_where_signals_average_out():
    """Twice as loud, the network sees another offset, whatever the phases."""
    encoder = build(magnitudes=True)
    x = encoder.stft(audio(4))
    seen = []
    encoder.stem.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for gain in (1, 2):
        encoder(gain * audio(4), LAYOUT)
    assert seen[0].shape[1] == 6
    loud = (seen[1] - seen[0])[:, 4:]
    expected = 0.65 * torch.log(torch.tensor(2.0)) / 2
    assert (loud.median() - expected).abs() < 0.02
    left = (x[:, 0].square() + x[:, 1].square() + 1e-6).log() / 4
    torch.testing.assert_close(seen[0].unflatten(0, (1, 4))[:, :, 4], left.unflatten(-1, (4, 8)).movedim(2, 1))


def test_layout_changes_nothing():
    encoder = build()
    assert torch.equal(encoder(audio(2), LAYOUT), encoder(audio(2), LAYOUT + 1))


def test_ordered_tokens_must_be_as_many_as_columns():
    with pytest.raises(PartitaError, match="a chunk has 2, but tokens_per_frame is 3; make it 2"):
        build("ordered", tokens_per_frame=3)
    with pytest.raises(PartitaError, match="do not divide a map of 12 rows and 7 columns"):
        build(chunk_frames=7)


def test_padding_is_not_in_the_statistics_of_the_batch_norm():
    found = []
    for frames in (4, 12):
        torch.manual_seed(0)
        encoder = build(norm_decay=0.9).train()
        padded = torch.nn.functional.pad(audio(2), (0, (frames - 2) * encoder.hop))
        hidden = encoder(padded, LAYOUT)[..., : 2 * encoder.tokens_per_frame]
        found.append((hidden, encoder.batch_norm.running_mean, encoder.batch_norm.running_variance))
    torch.testing.assert_close(found[0], found[1])
