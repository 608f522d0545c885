"""Every check of parts can fail: for each there is a part with one defect that it finds."""

from dataclasses import replace

import pytest
import torch
from partita_core import Posterior
from partita_testing import (
    BOTTLENECK_CHECKS,
    DECODER_CHECKS,
    ENCODER_CHECKS,
    LOSS_CHECKS,
    QUANTIZER_CHECKS,
    REPRESENTATION_CHECKS,
)
from partita_testing.dummies import (
    AveragingConfig,
    CumulativeConfig,
    DenoisingConfig,
    Lapped,
    MeanSquareConfig,
    NeighboringConfig,
    NoisyConfig,
    OneStep,
    RoundingConfig,
    StridedConfig,
    TransposedConfig,
)
from partita_testing.dummies.broken import forward, given, method, spoiled
from torch import nn

# ------------------------------------------------------------------ ways to break any part


def unused_parameter(part):
    part.unused = nn.Parameter(torch.ones(1))


def scalar_parameter(part):
    part.scale = nn.Parameter(torch.tensor(1.0))


def gain(part):
    part.extra = nn.Parameter(torch.ones(1))


def counter(part):
    part.register_buffer("counter", torch.ones(1))


def hidden_counter(part):
    part.count = 0


def count(self, x, values):
    self.counter = self.counter + 1
    return values


def count_in_place(self, x, values):
    values = values * self.counter
    self.counter.add_(1)
    return values


def count_unsaved(self, x, values):
    self.count += self.training
    return values * (1 + self.count)


def counts_by_device(part):
    size = 3 if torch.empty(0).is_meta else 4
    part.register_buffer("counts", torch.zeros(size))


def unsaved_buffer(part):
    part.register_buffer("offset", torch.ones(1), persistent=False)


def branch(self, x, values):
    return values if float(x.detach().sum()) > 0 else -values


def complex_of_bfloat16(self, x, values):
    low = x.flatten(1)[:, :4] @ torch.eye(4, dtype=x.dtype)
    return values + 0 * torch.complex(low, low).abs().sum()


def first_frame_is_detached(self, x):
    early = x.shape[-1] // 4
    return torch.cat([x[..., :early].detach(), x[..., early:]], dim=-1)


def see_the_frame_before(self, x, values):
    return values + 0.1 * values.roll(1, -1)


def count_frames(self, x, values):
    return values + torch.arange(values.shape[-1]).to(values)


ANY = {
    "eval_is_deterministic": forward(lambda self, x, values: values + torch.rand_like(values)),
    "eval_leaves_state_unchanged": forward(count, counter),
    "batch_composition_does_not_matter": forward(lambda self, x, values: values - values.mean(0, keepdim=True)),
    "gradients_reach_the_input": given(first_frame_is_detached),
    "gradients_reach_every_parameter": spoiled(unused_parameter),
    "silence_is_finite": forward(lambda self, x, values: values + 0 * x.sum() / x.abs().sum()),
    "two_forwards_in_one_graph": forward(count_in_place, counter),
    "parameters_have_dimensions": spoiled(scalar_parameter),
    "runs_in_float64": forward(lambda self, x, values: values.float().to(values.dtype)),
    "runs_under_autocast": forward(complex_of_bfloat16),
    "deepcopy_is_independent": method("__deepcopy__", lambda parent, self, memo: self),
    "state_dict_round_trip": forward(count_unsaved, hidden_counter),
    "config_round_trip": spoiled(lambda part: None),  # the Config is not registered
    "builds_on_the_meta_device": spoiled(counts_by_device),
    "materializes_from_meta": forward(lambda self, x, values: values * self.offset.to(values), unsaved_buffer),
    "exports": forward(branch),
}
CONTEXT = {
    "context_is_as_declared": forward(
        see_the_frame_before, lambda part: setattr(part, "context", (0, part.context[1]))
    ),
    "tiled_equals_whole": forward(count_frames),
}

# ------------------------------------------------------------------ encoders


def step_in_place(parent, self, x, state, *, last=False):
    y, after = parent.step(self, x, state, last=last)
    state.copy_(after)
    return y, state


ENCODERS = {name: broken(StridedConfig()) for name, broken in (ANY | CONTEXT).items()} | {
    "shapes_are_as_declared": spoiled(lambda part: setattr(part, "hop", 32))(StridedConfig()),
    "starts_at_zero": method("start_at_zero", lambda parent, self: None)(StridedConfig()),
    "steps_do_not_modify_in_place": method("step", step_in_place)(CumulativeConfig()),
}

# ------------------------------------------------------------------ bottlenecks and quantizers


def noisy_if(condition):
    def body(parent, self, hidden, *, stochastic=None, lengths=None):
        out = parent.forward(self, hidden, stochastic=stochastic, lengths=lengths)
        noise = torch.randn_like(out.values) if condition(self, stochastic) else 0
        return out._replace(values=out.values + noise)

    return method("forward", body)


def shifted_posterior(parent, self, hidden):
    mean, std = parent.posterior(self, hidden)
    return Posterior(mean + 0.1, std)


def shared_twin(base):
    """A part without tensors shares nothing with its copy, so it gets a gain."""
    with_gain = forward(lambda self, x, result: result * self.extra, gain)(base)
    return replace(with_gain, methods=with_gain.methods + ANY["deepcopy_is_independent"](base).methods)


BREAK_BOTTLENECK = ANY | CONTEXT
BREAK_BOTTLENECK |= {
    "shapes_are_as_declared": forward(lambda self, x, values: values[..., 1:]),
    "eval_noise_is_opt_in": method("is_stochastic", lambda parent, self, stochastic: self.training),
    "training_without_noise_is_deterministic": noisy_if(lambda self, stochastic: self.training),
    "losses_have_weights": method(
        "forward", lambda parent, self, x, **how: parent.forward(self, x, **how)._replace(losses={"stray": x.mean()})
    ),
    "half_precision_is_upcast": forward(lambda self, x, values: values.to(x.dtype)),
    "padding_is_ignored": method(
        "forward", lambda parent, self, x, lengths=None, **how: parent.forward(self, x, **how)
    ),
    "recovers_from_nonfinite_step": forward(lambda self, x, v: (self.counter.add_(x.detach().sum()), v)[1], counter),
    "bounded_as_declared": forward(lambda self, x, values: 3 * values, lambda part: setattr(part, "bounded", True)),
    "posterior_mean_equals_latents": method("posterior", shifted_posterior),
    "projection_keeps_latents": method("project", lambda parent, self, values: 2 * values),
}
BOTTLENECKS = {name: broken(NoisyConfig()) for name, broken in BREAK_BOTTLENECK.items()}


def flipped_codes(parent, self, hidden, **how):
    return (out := parent.forward(self, hidden, **how))._replace(codes=out.codes.flip(-1))


def codes_beyond(parent, self, hidden, **how):
    return (out := parent.forward(self, hidden, **how))._replace(codes=out.codes + 3)


def look_up_dropped(parent, self, codes):
    return parent.codes_to_values(self, codes) - (codes == -1).to(torch.float64)


def zero_for_dropped(parent, self, hidden, num_quantizers=None):
    return parent.encode_codes(self, hidden, num_quantizers).clamp(min=0)


def clamp_codes(parent, self, codes):
    return parent.codes_to_values(self, codes.long().clamp(-1, 2 * self.reach)[:, : self.dim])


def encode_by_product(parent, self, hidden, num_quantizers=None):
    product = torch.eye(self.dim, dtype=hidden.dtype) @ hidden
    return parent.encode_codes(self, product.to(hidden.dtype), num_quantizers)


def encode_and_count(parent, self, hidden, num_quantizers=None):
    self.counter += self.training
    return parent.encode_codes(self, hidden, num_quantizers)


QUANTIZERS = {name: broken(RoundingConfig()) for name, broken in BREAK_BOTTLENECK.items()} | {
    # Rounded values have no slope, so the defect shows in their dtype.
    "runs_in_float64": forward(lambda self, x, values: values.float())(RoundingConfig()),
    "deepcopy_is_independent": shared_twin(RoundingConfig()),
    "codes_are_as_declared": method("forward", codes_beyond)(RoundingConfig()),
    "forward_equals_encode_codes": method("forward", flipped_codes)(RoundingConfig()),
    "forward_equals_codes_to_values": forward(lambda self, x, values: values * (1 + 1e-6))(RoundingConfig()),
    "fewer_levels_are_a_prefix": method("encode_codes", zero_for_dropped)(RoundingConfig()),
    "dropped_levels_contribute_zero": method("codes_to_values", look_up_dropped)(RoundingConfig()),
    "invalid_codes_raise": method("codes_to_values", clamp_codes)(RoundingConfig()),
    "eval_noise_is_opt_in": noisy_if(lambda self, stochastic: not self.training)(RoundingConfig()),
    "codes_are_equal_under_autocast": method("encode_codes", encode_by_product)(RoundingConfig()),
    "encoding_leaves_state_unchanged": method("encode_codes", encode_and_count, counter)(RoundingConfig()),
}

# ------------------------------------------------------------------ decoders


class Forgetful(OneStep):
    """Count pushes without a chunk as chunks."""

    def start(self, decoder, seeds):
        stream = super().start(decoder, seeds)
        push = stream.push

        def recount(features, *, last=False):
            stream.count += features[0].shape[1] == 0
            return push(features, last=last)

        stream.push = recount
        return stream


class LoudLapped(Lapped):
    def inverse(self, x):
        return 1.01 * super().inverse(x)


class ShortLapped(Lapped):
    context = (0, 0)


def loud_inverse(part):
    part.representation.__class__ = LoudLapped


def counting_step(parent, self, x, state, *, last=False):
    state.add_(1)
    return x[..., :1].repeat_interleave(self.hop * x.shape[-1], -1), state


def with_state(base):
    stepping = method("step", counting_step)(base)
    fresh = method("init_state", lambda parent, self, n, *, layout=None, device, dtype: torch.zeros(n, 1))(base)
    return replace(stepping, methods=stepping.methods + fresh.methods)


BREAK_DECODER = dict(ANY)
DECODERS = {name: broken(TransposedConfig()) for name, broken in BREAK_DECODER.items()} | {
    "generates_as_declared": method(
        "generate", lambda parent, self, *args, **kwargs: parent.generate(self, *args, **kwargs)[..., 1:]
    )(TransposedConfig()),
    "feed_forward_rejects_samplers": method(
        "generate", lambda parent, self, hidden, layout, **unused: self(hidden, layout)
    )(TransposedConfig()),
    "starts_at_zero": method("start_at_zero", lambda parent, self: None)(TransposedConfig()),
    "feed_forward_losses_have_weights": method(
        "reconstruct",
        lambda parent, self, hidden, layout, target, lengths=None: (self(hidden, layout), {"power": target.mean()}),
    )(TransposedConfig()),
    "feed_forward_context_is_as_declared": CONTEXT["context_is_as_declared"](TransposedConfig()),
    "tiled_feed_forward_equals_whole": CONTEXT["tiled_equals_whole"](TransposedConfig()),
    "steps_do_not_modify_in_place": with_state(TransposedConfig()),
    "generation_depends_on_seeds_only": method(
        "stream",
        lambda parent, self, layout, *, seeds=None, **kwargs: parent.stream(
            self, layout, seeds=torch.arange(len(layout)), **kwargs
        ),
    )(DenoisingConfig()),
    "streamed_denoising_equals_whole": spoiled(lambda part: setattr(part, "sampler", Forgetful()))(DenoisingConfig()),
    "condition_context_is_as_declared": method(
        "condition",
        lambda parent, self, hidden, layout: (parent.condition(self, hidden, layout)[0].cumsum(1),),
    )(DenoisingConfig()),
    "own_losses_have_weights": method("losses", lambda parent, self, f, x: {"a": f[0].mean(-1)})(DenoisingConfig()),
    "transform_inverts": spoiled(loud_inverse)(DenoisingConfig()),
}

# ------------------------------------------------------------------ losses


def mean_over_items(parent, self, *args, **kwargs):
    return parent.forward(self, *args, **kwargs).mean()


def broadcasting(parent, self, prediction, target, *, lengths=None):
    return (prediction - target).square().flatten(1).mean(1)


def root(self, x, figures):
    return figures.sqrt()


def of_powers(parent, self, prediction, target, *, lengths=None):
    return parent.forward(self, prediction**2, target**2, lengths=lengths)


def half_the_gradient(self, x, figures):
    return (figures + figures.detach()) / 2


def whatever_length(parent, self, prediction, target, *, lengths=None):
    return parent.forward(self, prediction, target)


GENERIC_LOSS = {name: ANY[name] for name in ANY.keys() & set(LOSS_CHECKS.names)} | {
    "deepcopy_is_independent": shared_twin,
    "batch_composition_does_not_matter": forward(lambda self, x, figures: figures / figures.mean()),
}
LOSSES = {name: broken(MeanSquareConfig()) for name, broken in GENERIC_LOSS.items()} | {
    "one_value_per_item": method("forward", mean_over_items)(MeanSquareConfig()),
    "zero_at_equality": forward(lambda self, x, figures: figures + 0.1)(MeanSquareConfig()),
    "different_shapes_raise": method("forward", broadcasting)(MeanSquareConfig()),
    "silence_gives_finite_gradients": forward(root)(MeanSquareConfig()),
    "gradient_at_silence_is_nonzero": method("forward", of_powers)(MeanSquareConfig()),
    "gradient_matches_finite_differences": forward(half_the_gradient)(MeanSquareConfig()),
    "padding_is_ignored": method("forward", whatever_length)(MeanSquareConfig()),
}

# ------------------------------------------------------------------ representation encoders


def count_features(self, x, features):
    return features + torch.arange(features.shape[1]).to(features)[:, None]


def see_the_feature_before(self, x, features):
    return features + 0.1 * features.roll(1, 1)


BREAK_REPRESENTATION = ANY | {
    "context_is_as_declared": forward(see_the_feature_before, lambda part: setattr(part, "context", (1, 1))),
    "tiled_equals_whole": forward(count_features),
}
REPRESENTATIONS = {name: broken(NeighboringConfig()) for name, broken in BREAK_REPRESENTATION.items()} | {
    "shapes_are_as_declared": spoiled(lambda part: setattr(part, "width", 6))(NeighboringConfig()),
    "steps_do_not_modify_in_place": method("step", step_in_place)(AveragingConfig()),
}

TABLES = {
    "encoder": (ENCODER_CHECKS, ENCODERS),
    "bottleneck": (BOTTLENECK_CHECKS, BOTTLENECKS),
    "quantizer": (QUANTIZER_CHECKS, QUANTIZERS),
    "decoder": (DECODER_CHECKS, DECODERS),
    "loss": (LOSS_CHECKS, LOSSES),
    "representation": (REPRESENTATION_CHECKS, REPRESENTATIONS),
}


@pytest.mark.parametrize("role", TABLES)
def test_every_check_has_a_broken_part(role):
    suite, table = TABLES[role]
    assert set(table) == set(suite.names)


# Defects that raise; all others must be found by comparison.
RAISES = {
    "two_forwards_in_one_graph",
    "runs_under_autocast",
    "config_round_trip",
    "exports",
}


@pytest.mark.parametrize("role, name", [(role, name) for role, (suite, _) in TABLES.items() for name in suite.names])
def test_check_fails_for_the_broken_part(role, name):
    suite, table = TABLES[role]
    with pytest.raises(AssertionError, match=f"^{role} Broken: {name}: ") as caught:
        suite[name](table[name])
    assert (": raised " in str(caught.value)) <= (name in RAISES), caught.value


# ------------------------------------------------------------------ checks that look for several things


def test_context_declared_too_large_fails():
    broken = spoiled(lambda part: setattr(part, "context", (4, 1)))(StridedConfig())
    with pytest.raises(AssertionError, match="4 frames to the left.* only 1"):
        ENCODER_CHECKS["context_is_as_declared"](broken)


def test_context_may_exceed_by_one_frame():
    ENCODER_CHECKS["context_is_as_declared"](spoiled(lambda part: setattr(part, "context", (2, 2)))(StridedConfig()))


def test_context_declared_too_small_fails():
    broken = spoiled(lambda part: setattr(part, "context", (1, 0)))(StridedConfig())
    with pytest.raises(AssertionError, match=r"\(1, 0\).* \(1, 1\);"):
        ENCODER_CHECKS["context_is_as_declared"](broken)


def test_representation_with_undeclared_lookahead_fails():
    broken = forward(lambda self, x, features: features + 0.1 * features.roll(-1, 1))(AveragingConfig())
    with pytest.raises(AssertionError, match=r"context_is_as_declared: .*\(None, 0\) .*\(None, 1\);"):
        REPRESENTATION_CHECKS["context_is_as_declared"](broken)


def test_representation_with_incomplete_state_fails():
    def forgetful(parent, self, x, state, *, last=False):
        features, after = parent.step(self, x, state, last=last)
        return features, after * 0.9

    with pytest.raises(AssertionError, match="in pushes of"):
        REPRESENTATION_CHECKS["tiled_equals_whole"](method("step", forgetful)(AveragingConfig()))


def test_inverse_with_undeclared_context_fails():
    def short(part):
        part.representation.__class__ = ShortLapped

    with pytest.raises(AssertionError, match="0 frames to the left.* 1;"):
        DECODER_CHECKS["transform_inverts"](spoiled(short)(DenoisingConfig()))


def test_export_specialized_on_the_window_fails():
    broken = forward(lambda self, x, values: values + 0 * x[..., -12:].sum() if x.shape[-1] > 12 else values)
    with pytest.raises(AssertionError, match="bottleneck Broken: exports: "):
        BOTTLENECK_CHECKS["exports"](broken(NoisyConfig()))


def test_statistic_updated_in_eval_fails():
    def moving(parent, self, hidden, *, stochastic=None):
        self.counter.add_(bool(stochastic))
        return parent.forward(self, hidden, stochastic=stochastic)

    with pytest.raises(AssertionError, match="stochastic=True in eval: counter has changed"):
        BOTTLENECK_CHECKS["eval_noise_is_opt_in"](method("forward", moving, counter)(NoisyConfig()))


def test_statistic_updated_without_stochastic_fails():
    broken = forward(lambda self, x, values: count(self, x, values) if self.training else values, counter)
    with pytest.raises(AssertionError, match="counter has changed"):
        BOTTLENECK_CHECKS["training_without_noise_is_deterministic"](broken(NoisyConfig()))


def test_weight_without_a_loss_fails():
    broken = spoiled(lambda part: setattr(part, "loss_weights", {"power": 1.0, "kl": 1.0}))
    with pytest.raises(AssertionError, match=r"\['power'\], loss_weights has \['kl', 'power'\]"):
        BOTTLENECK_CHECKS["losses_have_weights"](broken(NoisyConfig()))


def test_exceeded_latency_fails():
    class Late(OneStep):
        def start(self, decoder, seeds):
            stream = super().start(decoder, seeds)
            push, held = stream.push, []

            def later(features, *, last=False):
                held.append(push(features, last=last))
                if not last:
                    return held[0][..., :0]
                return torch.cat(held, dim=-1)

            stream.push = later
            return stream

    with pytest.raises(AssertionError, match="delay is 64 samples, .*latency is 16"):
        broken = spoiled(lambda part: setattr(part, "sampler", Late()))
        DECODER_CHECKS["streamed_denoising_equals_whole"](broken(DenoisingConfig()))


def test_position_without_gradient_fails():
    def deaf(self, x):
        trained = torch.arange(x.shape[-1]) % self.hop != 5
        return torch.where(trained, x, x.detach())

    with pytest.raises(AssertionError, match=r"position within a frame \[5\]"):
        ENCODER_CHECKS["gradients_reach_the_input"](given(deaf)(StridedConfig()))


def test_channels_that_are_dropped_at_random_pass():
    def drop_all_but_one(self, x):
        return x * (torch.arange(x.shape[1])[:, None] == torch.randint(x.shape[1], ()))

    ENCODER_CHECKS["gradients_reach_the_input"](given(drop_all_but_one)(StridedConfig()))
