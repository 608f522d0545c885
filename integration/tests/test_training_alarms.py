"""Alarms on metrics: raised once, with a remedy, and only when a threshold is passed for some time."""

from dataclasses import replace

import pytest
import torch
from partita.objectives.code_usage import CodeUsage
from partita.training import AlarmConfig, TrainerConfig, train
from partita.training.alarms import MetricAlarms
from partita.training.logs import Log, read_log
from partita_bottlenecks import IdentityConfig, SigmaVAEConfig, TanhConfig, VAEConfig
from partita_core import PartitaError, override
from partita_quantizers import FSQConfig, ResidualVQConfig


def raised(values, steps=20, config=None, alarms=None):
    """Alarms of the same log line at each step from 1001 on."""
    alarms = alarms or MetricAlarms(config or AlarmConfig(), loss_at_chance=2.0)
    return [alarm for step in range(1001, 1001 + steps) for alarm in alarms.check(step, values)]


# ------------------------------------------------------------------ each alarm


@pytest.mark.parametrize(
    "values, kind, parts",
    [
        ({"metric/saturated_fraction": 0.34}, "max_saturation", ("34%", "20%", "learning rate", "hinge_weight")),
        ({"metric/saturated_fraction": 0.9}, "stop_saturation", ("90%", "50%", "learning rate", "hinge_weight")),
        (
            {"metric/in_use_0": 0.9, "metric/in_use_11": 0.031},
            "min_code_usage 11",
            ("level 11", "3.1%", "25%", "data.batch_size", "objective.start_tokens", "codebook_size"),
        ),
        ({"metric/channel_std_min": 0.002, "metric/latent_rms": 0.5}, "min_channel_std", ("0.002", "0.01", "0.5")),
        (
            {"loss/discriminator": 0.04},
            "min_discriminator_loss",
            ("0.04", "0.2", "10%", "chance, 2;", "trainer.optimizers.discriminator.lr", "adversarial"),
        ),
    ],
)
def test_alarm_is_raised_once_with_values_and_remedy(values, kind, parts):
    alarms = raised(values)
    assert alarms[0].kind == kind and "\n" not in alarms[0].text
    assert all(part in alarms[0].text for part in parts), alarms[0].text
    assert alarms[0].stops == (kind == "stop_saturation")
    kinds = [alarm.kind for alarm in alarms]
    assert sorted(set(kinds)) == sorted(kinds)  # once each, although the condition lasts
    off = AlarmConfig(1000, *[None] * 7)
    assert raised(values, config=off) == []


@pytest.mark.parametrize(
    "values",
    [
        {"metric/saturated_fraction": 0.05},
        {"metric/in_use_0": 0.5},
        {"metric/channel_std_min": 0.01, "metric/latent_rms": 0.5},
        {"metric/channel_std_min": 0.0},  # without an RMS to compare with
        {"loss/discriminator": 1.4, "metric/real_logit": 0.0, "total": 1e9},
        {"validation/saturated": 1.0},
    ],
)
def test_healthy_metrics_raise_no_alarm(values):
    assert raised(values) == []


# ------------------------------------------------------------------ timing


def test_alarms_wait_for_start_step_and_ten_lines():
    alarms, bad = MetricAlarms(AlarmConfig()), {"metric/saturated_fraction": 0.4}
    assert [step for step in range(1, 1100) if alarms.check(step, bad)] == [1000]
    late = MetricAlarms(AlarmConfig())  # a single line is not enough after the thousandth step either
    assert [step for step in range(1050, 1100) if late.check(step, bad)] == [1059]
    assert not any(MetricAlarms(AlarmConfig(start_step=5)).check(step, bad) for step in range(1, 10))


def test_transient_saturation_raises_no_alarm():
    """Two of ten lines are fully saturated: 28 % on average, and never above half in the running average."""
    alarms = MetricAlarms(AlarmConfig(max_saturation=None))
    lines = [1.0 if i % 10 < 2 else 0.1 for i in range(400)]
    assert not any(alarms.check(2000 + i, {"metric/saturated_fraction": value}) for i, value in enumerate(lines))


def test_alarm_is_raised_again_after_recovery():
    alarms = MetricAlarms(AlarmConfig(stop_saturation=None))
    for value, count in ((0.9, 1), (0.0, 0), (0.9, 1)):
        assert len(raised({"metric/saturated_fraction": value}, steps=60, alarms=alarms)) == count


def test_alarms_continue_from_saved_averages():
    one = MetricAlarms(AlarmConfig())
    for step in range(1000, 1007):
        one.check(step, {"metric/saturated_fraction": 0.3 + step / 1e5})
    other = MetricAlarms(AlarmConfig(), one.averages)
    found = [
        [bool(each.check(step, {"metric/saturated_fraction": 0.4})) for step in range(1007, 1015)]
        for each in (one, other)
    ]
    assert found[0] == found[1] == [False, False, True, False, False, False, False, False]
    assert one.averages == other.averages


def test_warning_of_each_kind_is_printed_once_and_logged_every_time(tmp_path, capsys):
    log = Log(tmp_path / "log.jsonl", step=0)
    for step, kind in ((1, "a"), (2, "b"), (3, "a")):
        log.warn(step, kind, f"{kind} at {step}")
    assert capsys.readouterr().err.splitlines() == ["a at 1", "b at 2"]
    assert [line["warning"] for line in read_log(tmp_path / "log.jsonl")] == ["a at 1", "b at 2", "a at 3"]


def test_invalid_alarm_settings():
    with pytest.raises(PartitaError, match="min_code_usage is 2"):
        AlarmConfig(min_code_usage=2)
    with pytest.raises(PartitaError, match="start_step is -1"):
        override(TrainerConfig(), ["alarms.start_step=-1"])


# ------------------------------------------------------------------ validation


def test_alarms_of_validation_have_values_and_remedy():
    alarms, metrics = MetricAlarms(AlarmConfig()), {"si_sdr": -31.04, "frame_buzz": 0.83}
    for _ in range(2):  # each time, so that a resumed run has the same log
        noise, buzz = alarms.check_validation(100, 0.5, metrics)
        assert (noise.kind, buzz.kind) == ("min_si_sdr", "max_frame_buzz") and not noise.stops
        for part in ("-31.0 dB", "-20", "companded_stft", "relative_l1", "trainer.alarms.min_si_sdr=none"):
            assert part in noise.text and "\n" not in noise.text
        for part in ("0.83", "0.05", "noise", "discriminators"):
            assert part in buzz.text
    off = MetricAlarms(AlarmConfig(min_si_sdr=None, max_frame_buzz=None))
    assert not list(off.check_validation(100, 0.5, metrics))


@pytest.mark.parametrize(
    "step, progress, metrics",
    [
        (99, 1.0, {"si_sdr": -40.0}),
        (1000, 0.49, {"si_sdr": -40.0}),
        (1000, 1.0, {"si_sdr": -20.0, "frame_buzz": 0.05}),
        (1000, 1.0, {"frame_buzz": -0.5}),
        (1000, 1.0, {}),
    ],
)
def test_early_or_healthy_validation_raises_nothing(step, progress, metrics):
    assert not list(MetricAlarms(AlarmConfig()).check_validation(step, progress, metrics))


def test_run_warns_of_random_phase(config, tones, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("partita.training.alarms._VALIDATION_STEP", 2)
    run = override(config(steps=4), ["trainer.alarms.min_si_sdr=99.0", "trainer.evaluate_seconds=0.5"])
    train(run, data=tones, output=tmp_path / "run", progress=False)
    warnings = [text for text in warnings_of(tmp_path / "run") if "SI-SDR" in text]
    assert [text.split(":")[0] for text in warnings] == ["step 2", "step 4"]
    assert [line for line in capsys.readouterr().err.splitlines() if "SI-SDR" in line] == warnings[:1]


# ------------------------------------------------------------------ metrics


@pytest.mark.parametrize("config", [IdentityConfig(), VAEConfig(), SigmaVAEConfig(), TanhConfig()])
def test_bottlenecks_report_collapsed_channel(config):
    bottleneck = config.build(dim=4).train()
    hidden = torch.randn(3, bottleneck.in_dim, 50, generator=torch.Generator().manual_seed(0))
    hidden[:, 2] = 0
    metrics = bottleneck(hidden).metrics
    assert float(metrics["channel_std_min"]) == 0 and float(metrics["latent_rms"]) > 0.1
    hidden[:, 2] = hidden[:, 1]
    assert float(bottleneck(hidden).metrics["channel_std_min"]) > 0.1


def test_code_usage_is_updated_in_training_only():
    usage = CodeUsage((4, 4))
    codes = torch.tensor([[[0, 1], [3, -1]]])
    assert {name: float(value) for name, value in usage(codes, 0).items()} == {"in_use_0": 0.5, "in_use_1": 0.25}
    usage.eval()
    assert float(usage(torch.tensor([[[2, 3], [0, 1]]]), 5)["in_use_0"]) == 0.5
    assert usage(None, 0) == {} and CodeUsage(())(codes, 0) == {} and not CodeUsage(()).state_dict()


# ------------------------------------------------------------------ in a run


def quiet(config, *changes):
    settings = ["trainer.evaluate_seconds=0.05", "trainer.statistics_seconds=0.1", "trainer.alarms.start_step=10"]
    return override(config(steps=12), [*settings, *changes])


def warnings_of(run):
    return [line["warning"] for line in read_log(run / "log.jsonl") if "warning" in line]


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", [ResidualVQConfig.example(), FSQConfig((4, 5))])
def test_run_warns_of_dead_codes(config, tones, tmp_path, capsys, quantizer):
    if isinstance(quantizer, ResidualVQConfig):
        quantizer = replace(quantizer, codebook_size=1024)  # more than the latents of twelve steps
    run = quiet(config, "trainer.alarms.min_code_usage=0.9")
    run = replace(run, model=replace(run.model, bottleneck=quantizer))
    train(run, data=tones, output=tmp_path / "run", progress=False)
    warnings = warnings_of(tmp_path / "run")
    assert len(warnings) == len(run.model.build().latent_spec.codebook_sizes)
    assert warnings[0].startswith("step 10: ") and "level 0" in warnings[0]
    assert [line for line in capsys.readouterr().err.splitlines() if "codes" in line] == warnings


@pytest.mark.slow
def test_run_warns_of_collapsed_channel(config, tones, tmp_path, capsys):
    run = quiet(config, "trainer.optimizers.generator.lr=0.0")
    run = replace(run, model=replace(run.model, bottleneck=IdentityConfig()))
    model = run.model.build().eval()
    with torch.no_grad():
        head = model.encoder.head
        head.bias[2] = head.parametrizations.weight.original0[2] = 0
    model.save_pretrained(tmp_path / "start")
    train(run, data=tones, output=tmp_path / "run", init_from=tmp_path / "start", progress=False)
    (warning,) = warnings_of(tmp_path / "run")
    assert warning.startswith("step 10: ") and "collapsed" in warning
    assert capsys.readouterr().err.count(warning) == 1


@pytest.mark.parametrize("chance, raises", [(2.0, True), (0.5, False), (None, False)])
def test_discriminator_loss_is_relative_to_that_at_chance(chance, raises):
    alarms = MetricAlarms(AlarmConfig(), loss_at_chance=chance)
    assert bool(raised({"loss/discriminator": 0.15}, alarms=alarms)) == raises


@pytest.mark.parametrize("loss, chance", [("hinge", 2.0), ("least_squares", 0.5)])
def test_objective_has_the_loss_at_chance_of_its_adversarial_loss(config, loss, chance):
    run = override(config(adversarial=True), [f"objective.adversarial_loss={loss}"])
    assert run.objective.build(model=run.model.build()).loss_at_chance == chance
    assert config().objective.build(model=run.model.build()).loss_at_chance is None


@pytest.mark.slow
def test_run_warns_of_dominating_discriminator(config, tones, tmp_path):
    run = override(config(steps=12, adversarial=True), ["trainer.alarms.start_step=10"])
    run = override(run, ["trainer.alarms.min_discriminator_loss=0.95"])
    run = override(run, ["trainer.optimizers.generator.lr=0.0", "trainer.optimizers.discriminator.lr=0.01"])
    train(run, data=tones, output=tmp_path / "run", progress=False)
    (warning,) = warnings_of(tmp_path / "run")
    assert warning.startswith("step 1") and "discriminator" in warning and "1.9" in warning


@pytest.mark.slow
def test_resumed_run_stops_at_saturation(config, tones, tmp_path, monkeypatch):
    from partita.training.time_budget import TimeBudget

    changes = ["trainer.alarms.start_step=1", "trainer.alarms.min_channel_std=none", "trainer.steps=40"]
    run = quiet(config, *changes, "trainer.optimizers.generator.lr=0.0")
    run = replace(run, model=replace(run.model, bottleneck=TanhConfig(gain=30.0)))
    is_over = TimeBudget.is_over
    with monkeypatch.context() as patch:  # killed after step 6
        patch.setattr(TimeBudget, "is_over", lambda self, state: state.step >= 6 or is_over(self, state))
        train(run, data=tones, output=tmp_path / "run", progress=False)
    with pytest.raises(PartitaError, match="step 10: .* 9.% .* 50%"):
        train(run, data=tones, output=tmp_path / "run", resume=True, progress=False)
    warns = override(run, ["trainer.alarms.stop_saturation=none", "trainer.steps=11"])
    train(warns, data=tones, output=tmp_path / "other", progress=False)
    assert ["20%" in text for text in warnings_of(tmp_path / "other")] == [True]
