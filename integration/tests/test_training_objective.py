from dataclasses import replace

import pytest
import torch
from partita.objectives import AdversarialReconstruction, TrainState
from partita.objectives.objective import check_weights
from partita_core import (
    ChannelLayout,
    Decoder,
    LatentSpec,
    PartitaError,
    convert_pairs,
)
from torch import nn

MONO, STEREO, MID_SIDE = ChannelLayout


def batch(samples: int = 480, source=(STEREO, STEREO, MID_SIDE, MONO), target=(STEREO, MID_SIDE, MONO, MONO)) -> dict:
    torch.manual_seed(3)
    layout, wanted = torch.tensor(source), torch.tensor(target)
    audio = torch.randn(len(source), 2, samples) * 0.1
    audio = torch.where((layout == MONO)[:, None, None], audio[:, :1], audio)
    lengths = torch.full((len(source),), samples)
    return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": wanted}


def objective(config, **changes) -> AdversarialReconstruction:
    torch.manual_seed(0)
    run = config(**changes)
    return run.objective.build(model=run.model.build())


def test_total_is_the_weighted_sum_of_all_terms(config):
    it = objective(config)
    it.weights = {"stft": 2.0, "mel": 0.5}
    torch.manual_seed(1)
    out = it(batch(), TrainState(), "generator")
    terms = out.losses
    expected = 2.0 * terms["stft"] + 0.5 * terms["mel"] + it.model.bottleneck.loss_weights["kl"] * terms["kl"]
    torch.testing.assert_close(out.total.detach(), expected)
    assert out.total.dtype == torch.float32 and out.total.requires_grad
    assert not any(term.requires_grad for term in terms.values())


def test_exact_reconstruction_has_zero_loss_in_every_layout(config):
    it = objective(config)

    class Exact(nn.Module):
        bottleneck = nn.Module()

        def forward(self, audio, layout, target_layout, *, lengths, quantize):
            output = type("Output", (), {"codes": None, "losses": {}, "metrics": {}})
            return convert_pairs(audio, layout, target_layout), output

    it.model = Exact()
    out = it(batch(), TrainState(), "generator")
    assert float(out.total) == 0.0


def test_mono_loss_compares_the_mean_of_the_channel_pair(config):
    it = objective(config)
    data = batch(source=(MONO,), target=(MONO,))
    spread = torch.randn(1, 1, 480)

    class Spread(nn.Module):
        bottleneck = nn.Module()

        def forward(self, audio, layout, target_layout, *, lengths, quantize):
            output = type("Output", (), {"codes": None, "losses": {}, "metrics": {}})
            return audio + torch.cat([spread, -spread], 1), output

    it.model = Spread()
    assert float(it(data, TrainState(), "generator").total) < 1e-3


def test_bottleneck_losses_ignore_padding(config):
    it = objective(config)
    ends = torch.tensor([480, 130, 250, 1])
    found = []
    for samples in (960, 1920):
        data = batch(480) | {"audio_lengths": ends}
        inside = torch.arange(480) < ends[:, None, None]
        data["audio"] = nn.functional.pad(torch.where(inside, data["audio"], 0), (0, samples - 480))
        torch.manual_seed(1)
        out = it(data, TrainState(), "generator")
        found.append(torch.stack([out.losses["kl"], *(out.metrics[n] for n in ("posterior_std", "channel_std_min"))]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=0)
    data["audio_lengths"] = torch.full((4,), 1920)  # the same batch, with padding counted as audio
    assert it(data, TrainState(), "generator").losses["kl"] != pytest.approx(float(found[0][0]), rel=1e-2)


@pytest.mark.parametrize("phase", ["generator", "discriminator"])
def test_phase_adds_no_gradient_to_other_parameters(config, phase):
    it = objective(config, adversarial=True)
    data = batch()
    data["samples"] = it(data, TrainState(), "generator").samples
    it(data, TrainState(), phase).total.backward()
    own = {id(p) for group in it.parameter_groups(phase) for p in group["params"]}
    for name, parameter in it.named_parameters():
        if id(parameter) in own:
            assert parameter.grad is not None, name
        else:
            assert parameter.grad is None, name


def test_every_parameter_is_trained_by_one_phase(config):
    it = objective(config, adversarial=True)
    trained = [id(p) for phase in it.phases for group in it.parameter_groups(phase) for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in it.parameters())


def test_samples_past_the_end_of_an_item_are_zero(config):
    it = objective(config).eval()
    data = batch(source=(STEREO,), target=(STEREO,))
    data["audio_lengths"] = torch.tensor([300])
    out = it(data, TrainState(), "generator")
    assert float(out.samples[..., 300:].abs().max()) == 0.0


def test_weights_and_terms_must_match(config):
    check_weights({"a"}, {"a": 1.0})
    with pytest.raises(PartitaError, match="the loss 'b' .*weights.b"):
        check_weights({"a", "b"}, {"a": 1.0})
    with pytest.raises(PartitaError, match="the weight 'c'"):
        check_weights({"a"}, {"a": 1.0, "c": 0.0})
    run = config()
    with pytest.raises(PartitaError, match="adversarial"):
        replace(run.objective, weights={**run.objective.weights, "adversarial": 1.0}).build(model=run.model.build())


def test_decoder_must_be_feed_forward(config):
    run = config()
    model = run.model.build()

    class Other(Decoder):
        hop, in_dim, audio_spec = model.decoder.hop, model.decoder.in_dim, model.audio_spec

        def generate(self, hidden, layout, *, sampler=None, seeds=None):
            raise AssertionError

        def stream(self, layout, *, sampler=None, seeds=None, dtype=None, width=1):
            raise AssertionError

    model.decoder = Other()
    with pytest.raises(PartitaError, match="feed-forward decoder; Other"):
        run.objective.build(model=model)


def test_missing_keys_are_named(config):
    data = batch()
    del data["target_layout"]
    with pytest.raises(PartitaError, match="target_layout"):
        objective(config).check_batch(data)


def test_latent_spec_follows_from_the_parts(config):
    model = config().model.build()
    assert model.latent_spec == LatentSpec(4, 8000, 24)
