"""Consistency training of a minimal denoising decoder, with its calls recorded."""

import math
from dataclasses import replace

import pytest
import torch
from partita.objectives import ConsistencyTraining, ConsistencyTrainingConfig, TrainState
from partita_core import ChannelLayout, PartitaError, convert_pairs
from partita_testing.dummies import DenoisingConfig, NoisyConfig, RoundingConfig, StridedConfig, autoencoder
from partita_testing.dummies.denoising import TinyDenoiser

MONO, STEREO, MID_SIDE = ChannelLayout
CHUNK = 32


def model(**parts):
    return autoencoder(encoder=StridedConfig(), decoder=DenoisingConfig(), **parts).train()


def objective(*, parts=(), **changes) -> ConsistencyTraining:
    return replace(ConsistencyTrainingConfig(), **changes).build(model=model(**dict(parts)))


def batch(chunks: int = 4, source=(STEREO, MID_SIDE, MONO), target=(STEREO, MONO, MONO)) -> dict:
    generator = torch.Generator().manual_seed(3)
    layout = torch.tensor(source)
    audio = torch.randn(len(source), 2, chunks * CHUNK, generator=generator) * 0.1
    audio = torch.where((layout == MONO)[:, None, None], audio[:, :1], audio)
    lengths = torch.full((len(source),), chunks * CHUNK)
    return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": torch.tensor(target)}


def step(it, data=None, state=None):
    torch.manual_seed(1)
    return it(data or batch(), state or TrainState(0, 100), "generator")


def recorded(it, monkeypatch, *, dropout: float = 0.0):
    """Calls of the decoder: (x, sigma, features, gradients enabled, dropout mask)."""
    calls, original = [], it.model.decoder.forward

    def forward(x, sigma, features):
        mask = torch.nn.functional.dropout(torch.ones_like(x), dropout)
        calls.append((x.detach(), sigma, features, torch.is_grad_enabled(), mask))
        return original(x, sigma, features) * mask

    monkeypatch.setattr(it.model.decoder, "forward", forward)
    return calls


def test_one_phase_trains_every_parameter_at_every_step():
    it = objective()
    trained = [id(p) for group in it.parameter_groups("generator") for p in group["params"]]
    assert it.phases == ("generator",) and sorted(trained) == sorted(id(p) for p in it.parameters())
    assert it.crop_multiple == 2 * CHUNK
    for state in (TrainState(0, 100), TrainState(99, 100)):
        out = step(it, state=state)
        it.zero_grad()
        out.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in it.parameters())
        assert out.total.dtype == torch.float32 and out.samples is None
        assert not any(v.requires_grad for v in (out.losses | out.metrics).values())


def test_total_includes_losses_of_the_bottleneck():
    out = step(objective())
    assert out.losses.keys() == {"consistency", "power"}
    torch.testing.assert_close(out.total.detach(), out.losses["consistency"] + 1e-3 * out.losses["power"])


def test_bottleneck_and_quantizer_ignore_padding():
    found = []
    for chunks in (4, 8):
        it = objective(parts={"quantizer": RoundingConfig()})
        data = batch(2)
        data["audio"] = torch.nn.functional.pad(data["audio"], (0, (chunks - 2) * CHUNK))
        out = step(it, data)
        found.append((out.losses["power"], it.model.bottleneck.power, it.code_usage.last_use))
    torch.testing.assert_close(found[0], found[1])


def test_total_includes_losses_of_the_decoder_over_counted_chunks(monkeypatch):
    it = objective()
    decoder = it.model.decoder
    monkeypatch.setattr(decoder, "loss_weights", {"level": 2.0}, raising=False)

    def losses(features, clean):
        assert clean.shape[0] == features[0].shape[0] == 9  # three windows of two chunks for each of three items
        return {"level": torch.arange(18.0).reshape(9, 2)}

    monkeypatch.setattr(decoder, "losses", losses, raising=False)
    data = batch()
    data["audio_lengths"] = torch.tensor([4 * CHUNK, 4 * CHUNK, CHUNK])  # of the last item, only the first chunk
    out = step(it, data)
    # Windows are stacked, so items are rows 0, 3, 6, then 1, 4, 7, then 2, 5, 8.
    counted = [i for i in range(18) if i // 2 % 3 != 2] + [4]
    torch.testing.assert_close(out.losses["level"], torch.tensor(sum(counted) / len(counted)))
    rest = out.losses["consistency"] + 1e-3 * out.losses["power"]
    torch.testing.assert_close(out.total.detach(), rest + 2 * out.losses["level"])
    monkeypatch.setattr(decoder, "loss_weights", {})
    with pytest.raises(PartitaError, match="level"):
        step(it, data)


def test_conditioning_start_trains_only_the_losses_of_the_decoder(monkeypatch):
    """The denoiser is not run, every parameter has a gradient, and the schedule starts afterwards."""
    monkeypatch.setattr(TinyDenoiser, "loss_weights", {"level": 2.0})
    monkeypatch.setattr(TinyDenoiser, "losses", lambda self, features, clean: {"level": features[0].square().mean(-1)})
    it = objective(conditioning_start=0.25, step_exponent=3.0)
    calls = recorded(it, monkeypatch)
    out = step(it, state=TrainState(24, 100))
    assert not calls and out.losses.keys() == {"power", "level"}
    torch.testing.assert_close(out.total.detach(), 1e-3 * out.losses["power"] + 2 * out.losses["level"])
    out.total.backward()
    assert all(p.grad is not None for p in it.parameters())
    assert float(it.model.decoder.features.weight.grad.abs().sum()) > 0
    assert float(it.model.decoder.mix.grad.abs().sum()) == 0
    assert step(it, state=TrainState(25, 100)).losses.keys() == {"consistency", "power", "level"} and calls
    uniform = torch.full((1,), 0.999)
    steps = [float(torch.sub(*it.times(uniform, progress))) for progress in (0.25, 0.625, 1.0)]
    assert steps == pytest.approx([0.1, 0.01, 0.001], rel=1e-3)
    with pytest.raises(PartitaError, match="conditioning_start is 0.5, but TinyDenoiser"):
        monkeypatch.undo()
        objective(conditioning_start=0.5)


def test_loss_equals_the_published_formula(monkeypatch):
    """Computed by hand from the inputs and outputs of the decoder."""
    it = objective()
    calls = recorded(it, monkeypatch)
    data = batch(2)
    out = step(it, data)
    (x, sigma, features, _, _), (_, before, *_) = calls
    shape = (3, 2, 8, 2, 4)  # windows, channels, bins, chunks, frames
    with torch.no_grad():
        student = it.model.decoder(x, sigma, features).reshape(shape).double()
        teacher = it.model.decoder(calls[1][0], before, features).reshape(shape).double()
    c = 0.00054 * math.sqrt(2 * 8 * 4)
    squares = (student - teacher).square().sum((1, 2, 4))
    expected = (((squares + c**2).sqrt() - c) / (sigma - before).clamp_min(1e-3)).mean()
    torch.testing.assert_close(out.losses["consistency"].double(), expected, rtol=1e-4, atol=0)


def test_distances_are_in_units_of_the_decoders_deviation(monkeypatch):
    it, data = objective(offset=1e-6), batch(2)
    plain = step(it, data).losses["consistency"]
    monkeypatch.setattr(TinyDenoiser, "deviation", lambda self, features: torch.full((3, 2, 8, 8), 0.25))
    torch.testing.assert_close(step(it, data).losses["consistency"], 4 * plain, rtol=1e-3, atol=0)
    # Differences do not count where the deviation is large.
    uneven = torch.full((3, 2, 8, 8), 1e6)
    uneven[..., 4:] = 1.0
    monkeypatch.setattr(TinyDenoiser, "deviation", lambda self, features: uneven)
    assert float(step(it, data).losses["consistency"]) < float(plain)


def test_pointwise_distance_is_linear_in_magnitude():
    it, sixteen = objective(pointwise=True, offset=1e-6), torch.zeros(3, 2, 4, 2)
    even, one, two = sixteen.clone(), sixteen.clone(), sixteen.clone()
    even[:] = 0.5
    one[:, 0, 0, 0] = 8.0
    two[:, 0, 0, 0], two[:, 1, 2, 1] = 4.0, -4.0
    found = [float(it._distance(x, sixteen)[1]) for x in (even, one, two)]
    assert found == pytest.approx([0.5 * 4, 8 / 4, 8 / 4], rel=1e-4)
    found = [float(objective(offset=1e-6)._distance(x, sixteen)[1]) for x in (even, one, two)]
    assert found == pytest.approx([0.5 * 4, 8.0, 32**0.5], rel=1e-4)
    # Well below the offset, it is quadratic in each element.
    assert float(objective(pointwise=True, offset=100.0)._distance(one, sixteen)[0]) == pytest.approx(0.08, rel=1e-2)


def test_teacher_and_student_share_signal_noise_and_dropout(monkeypatch):
    it = objective()
    calls = recorded(it, monkeypatch, dropout=0.5)
    data = batch(2)
    step(it, data)
    (x, sigma, features, kept, mask), (other, before, others, kept_too, mask_too) = calls
    assert kept and not kept_too
    assert torch.equal(mask, mask_too) and 0 < float(mask.mean()) < 2
    assert all(a is b for a, b in zip(features, others))
    clean = it.model.decoder.representation(convert_pairs(data["audio"], data["layout"], data["target_layout"]))
    levels = [level.repeat_interleave(4, 1)[:, None, None] for level in (sigma, before)]
    noise = (x - clean) / levels[0]
    torch.testing.assert_close(other, clean + levels[1] * noise, rtol=1e-4, atol=1e-4)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.15)
    schedule = it.model.decoder.schedule
    times, times_before = schedule.time(sigma), schedule.time(before)
    torch.testing.assert_close((times - 0.1).clamp_min(0), times_before, rtol=0, atol=1e-5)
    assert len(set(times.flatten().tolist())) == 6  # a level per chunk


def test_gradients_pass_through_the_student_only(monkeypatch):
    """A decoder that returns its features has no gradient if those of the student are detached."""
    it = objective()
    calls = 0

    def forward(x, sigma, features):
        nonlocal calls
        calls += 1
        (f,) = features
        through = f.sum((1, 2))[:, None, None, None] + 0 * x
        return through.detach() if calls % 2 else through

    monkeypatch.setattr(it.model.decoder, "forward", forward)
    out = step(it, batch(2))
    assert out.losses["consistency"].item() == 0.0
    features = it.model.decoder.features.weight
    assert not torch.autograd.grad(out.total, features, allow_unused=True)[0]
    monkeypatch.setattr(it.model.decoder, "forward", lambda x, s, f: f[0].sum((1, 2))[:, None, None, None] * x)
    out = step(it, batch(2))
    assert float(torch.autograd.grad(out.total, features)[0].abs().sum()) > 0


def test_student_has_gradients_under_autocast():
    """Weights that autocast casts and caches under no_grad have none, and must not be used for the student."""
    it = objective()
    with torch.autocast("cpu", torch.bfloat16):
        out = step(it)
    out.total.backward()
    assert out.total.dtype == torch.float32
    assert all(p.grad is not None for p in it.parameters())
    assert float(it.model.decoder.move.weight.grad.abs().sum()) > 0


def test_every_window_is_denoised_with_its_own_features(monkeypatch):
    it = objective()
    calls = recorded(it, monkeypatch)
    data = batch(4)
    step(it, data)
    x, sigma, (features,), _, _ = calls[0]
    assert x.shape == (9, 2, 8, 8) and sigma.shape == (9, 2) and features.shape[:2] == (9, 2)
    assert torch.equal(features[0:3, 1], features[3:6, 0]) and torch.equal(features[3:6, 1], features[6:9, 0])
    clean = it.model.decoder.representation(convert_pairs(data["audio"], data["layout"], data["target_layout"]))
    noise = [(x[3 * i : 3 * i + 3] - clean[..., 4 * i : 4 * i + 8]) for i in range(3)]
    spread = [n.unflatten(-1, (2, 4)).std((1, 2, 4)) for n in noise]
    torch.testing.assert_close(torch.cat(spread), sigma, rtol=0.5, atol=0.15)


def test_chunks_of_padding_do_not_count():
    it = objective(parts={"bottleneck": RoundingConfig()}.items())
    data = batch(4, source=(STEREO,), target=(STEREO,))
    data["audio_lengths"] = torch.tensor([CHUNK + 1])
    data["audio"][..., CHUNK + 1 :] = 0
    full = step(it, {**data, "audio_lengths": torch.tensor([4 * CHUNK])}).losses["consistency"]
    some = step(it, data).losses["consistency"]
    assert float(some) != float(full)
    data["audio"][..., 3 * CHUNK :] = 1.0  # beyond the neighbors of counted chunks
    assert float(step(it, data).losses["consistency"]) == float(some)


def test_warm_start_uses_the_clean_signal_as_teacher(monkeypatch):
    it = objective(warm_start=0.2)
    uniform = torch.linspace(0, 1, 11, dtype=torch.float64)
    student, teacher = it.times(uniform, 0.1)
    assert bool((teacher == 0).all()) and bool((student >= 0).all())
    for progress, size in ((0.2, 0.1), (0.6, 0.01), (1.0, 0.001)):
        student, teacher = it.times(uniform, progress)
        torch.testing.assert_close(teacher, (student - size).clamp_min(0))
    calls = recorded(it, monkeypatch)
    step(it, batch(2), TrainState(19, 100))
    assert len(calls) == 1
    step(it, batch(2), TrainState(20, 100))
    assert len(calls) == 3
    assert bool((objective(warm_start=1.0).times(uniform, 0.99)[1] == 0).all())


def test_metrics_by_level_are_logged_for_drawn_levels_only(monkeypatch):
    it = objective()
    names = ["below_0.01", "below_0.1", "below_1", "below_10", "above_10"]
    schedule = it.model.decoder.schedule
    drawn = torch.tensor([[0.05, 0.5], [0.07, 30.0], [0.7, 0.08]], dtype=torch.float64)
    times = (schedule.time(drawn), schedule.time(drawn / 2))
    monkeypatch.setattr(it, "times", lambda uniform, progress: times)
    out = step(it, batch(2))
    losses = {name.removeprefix("loss_sigma_"): v for name, v in out.metrics.items() if name.startswith("loss_sigma_")}
    errors = {name.removeprefix("error_sigma_") for name in out.metrics if name.startswith("error_sigma_")}
    assert list(losses) == [names[1], names[2], names[4]] and errors == set(losses)
    mean = (3 * losses["below_0.1"] + 2 * losses["below_1"] + losses["above_10"]) / 6
    torch.testing.assert_close(mean, out.losses["consistency"])


def test_error_is_relative_to_the_clean_signal(monkeypatch):
    it = objective()
    data = batch(2, source=(STEREO,), target=(STEREO,))
    clean = it.model.decoder.representation(data["audio"])
    scale = torch.nn.Parameter(torch.tensor([1.5]))
    monkeypatch.setattr(it.model.decoder, "forward", lambda x, sigma, features: clean * scale)
    errors = {name: value for name, value in step(it, data).metrics.items() if name.startswith("error")}
    assert errors and all(float(value) == pytest.approx(0.5, rel=1e-4) for value in errors.values())


def test_attached_quantizer_is_trained(monkeypatch):
    it = objective(parts={"bottleneck": NoisyConfig(), "quantizer": RoundingConfig()}.items())
    inputs = []
    original = it.model.decoder.condition
    monkeypatch.setattr(it.model.decoder, "condition", lambda h, layout: (inputs.append(h), original(h, layout))[1])
    out = step(it)
    out.total.backward()
    steps = inputs[0] * 2  # five levels: the values are multiples of a half
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-5)
    assert all(p.grad is not None for p in it.parameters())


def test_decoder_must_denoise():
    with pytest.raises(PartitaError, match="denoising decoder; TransposedDecoder"):
        ConsistencyTrainingConfig().build(model=autoencoder())


@pytest.mark.parametrize(
    ("field", "value"), [("warm_start", 1.5), ("uniform_share", -0.1), ("initial_step", 0.0), ("level_std", 0.0)]
)
def test_invalid_settings(field, value):
    with pytest.raises(PartitaError, match=f"{field} is {value}"):
        replace(ConsistencyTrainingConfig(), **{field: value})


def test_float64():
    it = objective().double()
    data = batch()
    data["audio"] = data["audio"].double()
    out = step(it, data)
    out.total.backward()
    assert out.total.dtype == torch.float64
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in it.parameters())
