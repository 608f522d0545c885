from dataclasses import replace

import pytest
import torch
from partita.objectives import AdversarialReconstruction, TrainState
from partita.objectives.objective import check_weights, target_audio
from partita_core import (
    ChannelLayout,
    Decoder,
    LatentSpec,
    PartitaError,
    convert_pairs,
    latent_spec,
)
from partita_losses import ADVERSARIAL_LOSSES
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


def test_the_total_is_the_weighted_sum_of_all_terms(config):
    it = objective(config)
    it.weights = {"stft": 2.0, "mel": 0.5}
    torch.manual_seed(1)
    out = it(batch(), TrainState(), "generator")
    terms = out.losses
    expected = 2.0 * terms["stft"] + 0.5 * terms["mel"] + it.model.bottleneck.loss_weights["kl"] * terms["kl"]
    torch.testing.assert_close(out.total.detach(), expected)
    assert out.total.dtype == torch.float32 and out.total.requires_grad
    assert not any(term.requires_grad for term in terms.values())


def test_an_exact_model_has_no_loss_whatever_the_layouts(config):
    it = objective(config)

    class Exact(nn.Module):
        bottleneck = nn.Module()

        def forward(self, audio, layout, target_layout, *, lengths):
            output = type("Output", (), {"codes": None, "losses": {}, "metrics": {}})
            return convert_pairs(audio, layout, target_layout), output

    it.model = Exact()
    out = it(batch(), TrainState(), "generator")
    assert float(out.total) == 0.0


def test_for_mono_the_mean_of_the_pair_counts(config):
    it = objective(config)
    data = batch(source=(MONO,), target=(MONO,))
    spread = torch.randn(1, 1, 480)

    class Spread(nn.Module):
        bottleneck = nn.Module()

        def forward(self, audio, layout, target_layout, *, lengths):
            output = type("Output", (), {"codes": None, "losses": {}, "metrics": {}})
            return audio + torch.cat([spread, -spread], 1), output

    it.model = Spread()
    assert float(it(data, TrainState(), "generator").total) < 1e-3


def test_the_bottleneck_learns_from_frames_that_hold_audio_alone(config):
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
    data["audio_lengths"] = torch.full((4,), 1920)  # the same, with the padding taken for audio
    assert it(data, TrainState(), "generator").losses["kl"] != pytest.approx(float(found[0][0]), rel=1e-2)


@pytest.mark.parametrize("phase", ["generator", "discriminator"])
def test_a_phase_leaves_no_gradient_in_what_it_does_not_train(config, phase):
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


@pytest.mark.parametrize("name", ["hinge", "least_squares"])
def test_adversarial_loss_is_selected_by_name(config, name):
    run = config(adversarial=True)
    it = replace(run.objective, adversarial_loss=name).build(model=run.model.build()).eval()
    data = batch()
    out = it(data, TrainState(), "generator")
    data["samples"] = out.samples
    fake, real = it.discriminator(out.samples), it.discriminator(target_audio(data))
    pair = ADVERSARIAL_LOSSES[name]
    torch.testing.assert_close(out.losses["adversarial"], pair.generator(fake))
    loss = it(data, TrainState(), "discriminator").losses["discriminator"]
    torch.testing.assert_close(loss, pair.discriminator(real, fake))
    with pytest.raises(PartitaError, match="adversarial_loss is 'wgan'"):
        replace(run.objective, adversarial_loss="wgan")


def test_phases_together_train_every_parameter_once(config):
    it = objective(config, adversarial=True)
    trained = [id(p) for phase in it.phases for group in it.parameter_groups(phase) for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in it.parameters())


def test_what_is_behind_the_end_of_an_item_does_not_count(config):
    it = objective(config).eval()
    data = batch(source=(STEREO,), target=(STEREO,))
    data["audio_lengths"] = torch.tensor([300])
    out = it(data, TrainState(), "generator")
    assert float(out.samples[..., 300:].abs().max()) == 0.0


def test_weights_and_terms_must_match(config):
    check_weights({"a"}, {"a": 1.0})
    with pytest.raises(PartitaError, match="no weight is given for the loss 'b'"):
        check_weights({"a", "b"}, {"a": 1.0})
    with pytest.raises(PartitaError, match="nothing makes the loss 'c'"):
        check_weights({"a"}, {"a": 1.0, "c": 0.0})
    run = config()
    with pytest.raises(PartitaError, match="adversarial"):
        replace(run.objective, weights={**run.objective.weights, "adversarial": 1.0}).build(model=run.model.build())


def test_a_denoising_decoder_is_refused(config):
    run = config()
    model = run.model.build()

    class Other(Decoder):
        hop, in_dim, audio_spec = model.decoder.hop, model.decoder.in_dim, model.audio_spec

        def generate(self, hidden, layout, *, sampler=None, seeds=None):
            raise AssertionError

        def stream(self, layout, *, sampler=None, seeds=None, dtype=None, width=1):
            raise AssertionError

    model.decoder = Other()
    with pytest.raises(PartitaError, match="feed-forward decoder, Other is none"):
        run.objective.build(model=model)


def test_missing_data_is_named(config):
    data = batch()
    del data["target_layout"]
    with pytest.raises(PartitaError, match="needs target_layout"):
        objective(config).check_batch(data)


def test_the_spec_of_the_model_follows_from_its_parts(config):
    model = config().model.build()
    assert latent_spec(model.encoder, model.bottleneck) == LatentSpec(4, 8000, 24) == model.latent_spec
