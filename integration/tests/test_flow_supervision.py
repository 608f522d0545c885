"""Flow-matching supervision of a representation: values, causality, padding, and learning."""

import pytest
import torch
from partita.generation import FlowSupervisionConfig
from partita.objectives import RepresentationSupervisionConfig, TrainState
from partita_core import Frozen, LatentSpec, PartitaError
from partita_representation import CausalRepresentationConfig, RepresentationModelConfig, SupervisionInput

SPEC = LatentSpec(dim=3, sample_rate=8000, hop=80, tokens_per_frame=2)
ENCODER = CausalRepresentationConfig(width=16, layers=1, heads=2, mlp_ratio=2)


def supervision(**changes):
    torch.manual_seed(0)
    encoder = ENCODER.build(latent_spec=SPEC)
    config = FlowSupervisionConfig(width=16, layers=1, heads=2, head_dim=8, **changes)
    return encoder, config.build(latent_spec=SPEC, representation=encoder)


def inputs(encoder, frames: int = 8, lengths=(8, 8), seed: int = 1) -> SupervisionInput:
    values = torch.randn(len(lengths), 3, 2 * frames, generator=torch.Generator().manual_seed(seed))
    return SupervisionInput(encoder(values), values, torch.tensor(lengths))


def loss(part, given, seed: int = 2):
    torch.manual_seed(seed)
    return part(given)


def untrained(part) -> None:
    torch.nn.init.zeros_(part.flow.last.weight)
    torch.nn.init.zeros_(part.flow.last.bias)


def test_loss_of_an_untrained_flow_is_the_power_of_the_velocity():
    """It predicts zero; the velocity is data minus noise, with variance 1 + 4."""
    encoder, part = supervision()
    untrained(part)
    values = 2 * torch.randn(64, 3, 64, generator=torch.Generator().manual_seed(1))
    output = loss(part, SupervisionInput(encoder(values), values, torch.full((64,), 32)))
    assert float(output.loss.detach()) == pytest.approx(5.0, rel=0.05)
    assert float(output.metrics["velocity_error"]) == pytest.approx(1.0, abs=0.01)


def test_loss_is_the_mean_squared_error_over_valid_frames():
    encoder, part = supervision(history=0)
    untrained(part)
    given = inputs(encoder, lengths=(8, 3))
    torch.manual_seed(2)
    noise = torch.randn(8, 4, 3).unflatten(0, (2, 4)).flatten(1, 2)  # per patch of two frames of two vectors
    error = (given.values.mT - noise).square()
    expected = torch.cat([error[0], error[1, : 2 * 3]]).mean()
    torch.testing.assert_close(loss(part, given).loss, expected)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patch_is_conditioned_on_the_feature_before_it(patch):
    encoder, part = supervision(patch=patch)
    given, seen = inputs(encoder, frames=7, lengths=(7, 7)), []
    part.flow.forward = lambda states, values, counts: seen.append((states, counts)) or (torch.zeros(()), {})
    part(given)
    states, counts = seen[0]
    assert states.shape[1] == -(-7 // patch) and counts.tolist() == [14, 14]
    assert not states[:, 0].any()
    for place in range(1, states.shape[1]):
        assert torch.equal(states[:, place], given.features[:, place * patch - 1])


def test_features_of_a_patch_do_not_condition_it():
    """The features of the last patch's own frames get no gradient, those of the frame before it do."""
    encoder, part = supervision()
    torch.nn.init.normal_(part.flow.last.weight)
    for parameter in part.flow.blocks.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    given = inputs(encoder)
    features = given.features.detach().requires_grad_()
    loss(part, given._replace(features=features)).loss.backward()
    size = features.grad.abs().sum((0, 2))
    assert (size[1:6:2] > 0).all() and not size[0:8:2].any() and size[7] == 0


def test_padding_is_ignored():
    encoder, part = supervision()
    given = inputs(encoder, lengths=(8, 4))
    changed = given.values.clone()
    changed[1, :, 2 * 4 :] = 100.0
    assert torch.equal(loss(part, given).loss, loss(part, given._replace(values=changed)).loss)


def test_encoder_with_future_context_is_an_error():
    encoder, _ = supervision()
    encoder.context = (4, 2)
    with pytest.raises(PartitaError, match="2 future frames"):
        FlowSupervisionConfig.example().build(latent_spec=SPEC, representation=encoder)


def test_features_learn_to_predict_the_next_patch():
    """Frames repeat after two, so the feature determines the next; without history the error falls far below 1."""
    encoder, part = supervision(history=0)
    optimizer = torch.optim.Adam([*encoder.parameters(), *part.parameters()], lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    for step in range(100):
        period = torch.randint(0, 2, (16, 3, 4), generator=generator) * 2.0 - 1
        values = period.repeat(1, 1, 4)  # 8 frames of two vectors
        output = loss(part, SupervisionInput(encoder(values), values, torch.full((16,), 8)), seed=step)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert float(output.metrics["velocity_error"]) < 0.8


def test_flow_supervision_in_the_objective(config):
    codec = config().model.build().eval()
    model = RepresentationModelConfig(CausalRepresentationConfig.example()).build(codec=codec)
    config = RepresentationSupervisionConfig({"flow": FlowSupervisionConfig.example()}, {"flow": 0.5})
    objective = config.build(model=model, codec=Frozen(codec))
    spec = codec.latent_spec
    latents = torch.randn(2, spec.dim, 6 * spec.tokens_per_frame)
    batch = {"latents": latents, "audio_lengths": torch.full((2,), 6 * spec.hop), "layout": torch.zeros(2).long()}
    output = objective(batch, TrainState(0, 10), "generator")
    assert float(output.total.detach()) == pytest.approx(0.5 * float(output.losses["flow"]), rel=1e-6)
    output.total.backward()
    trained = {id(p) for group in objective.parameter_groups("generator") for p in group["params"]}
    assert all(id(p) in trained and p.grad is not None for p in objective.supervisions.parameters())
