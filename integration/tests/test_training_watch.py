"""Figures that go wrong slowly: each is warned of once, with what to do, and only when it lasts."""

from dataclasses import replace

import pytest
import torch
from partita.objectives.code_usage import CodeUse
from partita.training import TrainerConfig, WatchConfig, train
from partita.training.alarms import Watch
from partita.training.logs import Log, read_log
from partita_bottlenecks import IdentityConfig, SigmaVAEConfig, TanhConfig, VAEConfig
from partita_core import PartitaError, override
from partita_quantizers import FSQConfig, ResidualVQConfig


def told(values, steps=20, config=None, watch=None):
    """What is said of the same line of the log, again and again, from step 1001 on."""
    watch = watch or Watch(config or WatchConfig())
    return [alarm for step in range(1001, 1001 + steps) for alarm in watch.look(step, values)]


# ------------------------------------------------------------------ each figure


@pytest.mark.parametrize(
    "values, kind, says",
    [
        (
            {"metric/saturated_fraction": 0.34},
            "saturated",
            "the bottleneck saturates: 34% of its values of late, above 20%; lower the learning rate, or give",
        ),
        (
            {"metric/saturated_fraction": 0.9},
            "saturated_stop",
            "the bottleneck saturates: 90% of its values of late, and the run stops at 50%; lower the learning rate",
        ),
        (
            {"metric/in_use_0": 0.9, "metric/in_use_11": 0.031},
            "codes 11",
            "dead codes: 3.1% of those of level 11 were in use within a thousand steps, below 25%; give each step",
        ),
        (
            {"metric/channel_std_min": 0.002, "metric/latent_rms": 0.5},
            "channel",
            "a latent dimension has collapsed: the standard deviation of one is 0.002, the RMS of all 0.5",
        ),
        (
            {"loss/discriminator": 0.04},
            "discriminator",
            "the discriminator dominates: its loss is 0.04 of late, below 0.2 (chance is 2); lower trainer.optimizers.",
        ),
    ],
)
def test_what_is_wrong_is_said_once_with_what_to_do(values, kind, says):
    alarms = told(values)
    assert alarms[0].kind == kind and alarms[0].text.startswith(says) and "\n" not in alarms[0].text
    assert alarms[0].stops == (kind == "saturated_stop")
    kinds = [alarm.kind for alarm in alarms]
    assert sorted(set(kinds)) == sorted(kinds)  # each once, though it lasts
    off = replace(WatchConfig(), **{name: None for name in ("saturated", "saturated_stop", "codes", "channel")})
    assert told(values, config=replace(off, discriminator=None)) == []


@pytest.mark.parametrize(
    "values",
    [
        {"metric/saturated_fraction": 0.05},
        {"metric/in_use_0": 0.5},
        {"metric/channel_std_min": 0.01, "metric/latent_rms": 0.5},
        {"metric/channel_std_min": 0.0},  # of nothing that it could be compared with
        {"loss/discriminator": 1.4, "metric/real_logit": 0.0, "total": 1e9},
        {"validation/saturated": 1.0},
    ],
)
def test_what_is_well_is_let_be(values):
    assert told(values) == []


# ------------------------------------------------------------------ when it is said


def test_nothing_is_judged_before_it_has_settled():
    watch, bad = Watch(WatchConfig()), {"metric/saturated_fraction": 0.4}
    assert [step for step in range(1, 1100) if watch.look(step, bad)] == [1000]
    late = Watch(WatchConfig())  # the first line of the log beyond the thousandth step says little, too
    assert [step for step in range(1050, 1100) if late.look(step, bad)] == [1059]
    assert not any(Watch(WatchConfig(after=5)).look(step, bad) for step in range(1, 10))


def test_what_passes_is_not_said():
    """Two lines in ten that are all saturated: 28 % on average, and never above half of late."""
    watch = Watch(WatchConfig(saturated=None))
    lines = [1.0 if i % 10 < 2 else 0.1 for i in range(400)]
    assert not any(watch.look(2000 + i, {"metric/saturated_fraction": value}) for i, value in enumerate(lines))


def test_what_comes_back_is_told_again():
    watch = Watch(WatchConfig(saturated_stop=None))
    for value, count in ((0.9, 1), (0.0, 0), (0.9, 1)):
        assert len(told({"metric/saturated_fraction": value}, steps=60, watch=watch)) == count


def test_a_watch_goes_on_where_it_was():
    one = Watch(WatchConfig())
    for step in range(1000, 1007):
        one.look(step, {"metric/saturated_fraction": 0.3 + step / 1e5})
    other = Watch(WatchConfig(), one.averages)
    found = [
        [bool(w.look(step, {"metric/saturated_fraction": 0.4})) for step in range(1007, 1015)] for w in (one, other)
    ]
    assert found[0] == found[1] == [False, False, True, False, False, False, False, False]
    assert one.averages == other.averages


def test_each_kind_is_on_stderr_once_and_in_the_log_every_time(tmp_path, capsys):
    log = Log(tmp_path / "log.jsonl", step=0)
    for step, kind in ((1, "a"), (2, "b"), (3, "a")):
        log.warn(step, kind, f"{kind} at {step}")
    assert capsys.readouterr().err.splitlines() == ["a at 1", "b at 2"]
    assert [line["warning"] for line in read_log(tmp_path / "log.jsonl")] == ["a at 1", "b at 2", "a at 3"]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(PartitaError, match="codes is 2; it must be at least 0 and at most 1"):
        WatchConfig(codes=2)
    with pytest.raises(PartitaError, match="after is -1"):
        override(TrainerConfig(), ["watch.after=-1"])


# ------------------------------------------------------------------ what is watched


@pytest.mark.parametrize("config", [IdentityConfig(), VAEConfig(), SigmaVAEConfig(), TanhConfig()])
def test_bottlenecks_tell_of_a_channel_that_has_collapsed(config):
    bottleneck = config.build(dim=4).train()
    hidden = torch.randn(3, bottleneck.in_dim, 50, generator=torch.Generator().manual_seed(0))
    hidden[:, 2] = 0
    metrics = bottleneck(hidden).metrics
    assert float(metrics["channel_std_min"]) == 0 and float(metrics["latent_rms"]) > 0.1
    hidden[:, 2] = hidden[:, 1]
    assert float(bottleneck(hidden).metrics["channel_std_min"]) > 0.1


def test_use_is_noted_in_training_only():
    use = CodeUse((4, 4))
    codes = torch.tensor([[[0, 1], [3, -1]]])
    assert {name: float(value) for name, value in use(codes, 0).items()} == {"in_use_0": 0.5, "in_use_1": 0.25}
    use.eval()
    assert float(use(torch.tensor([[[2, 3], [0, 1]]]), 5)["in_use_0"]) == 0.5
    assert use(None, 0) == {} and CodeUse(())(codes, 0) == {} and not CodeUse(()).state_dict()


# ------------------------------------------------------------------ in a run


def quiet(config, *changes):
    settings = ["trainer.evaluate_seconds=0.05", "trainer.statistics_seconds=0.1", "trainer.watch.after=10"]
    return override(config(steps=12), [*settings, *changes])


def warned(run):
    return [line["warning"] for line in read_log(run / "log.jsonl") if "warning" in line]


@pytest.mark.parametrize("quantizer", [ResidualVQConfig.example(), FSQConfig((4, 5))])
def test_a_quantizer_with_dead_codes_is_warned_of(config, tones, tmp_path, capsys, quantizer):
    if isinstance(quantizer, ResidualVQConfig):
        quantizer = replace(quantizer, codebook_size=1024)  # more than there are latents in twelve steps
    run = quiet(config, "trainer.watch.codes=0.9")
    run = replace(run, model=replace(run.model, bottleneck=quantizer))
    train(run, data=tones, output=tmp_path / "run", progress=False)
    said = warned(tmp_path / "run")
    assert len(said) == len(run.model.build().latent_spec.codebook_sizes)
    assert said[0].startswith("step 10: dead codes: ") and "of level 0 were in use" in said[0]
    assert [line for line in capsys.readouterr().err.splitlines() if "dead codes" in line] == said


def test_a_collapsed_dimension_is_warned_of(config, tones, tmp_path, capsys):
    run = quiet(config, "trainer.optimizers.generator.lr=0.0")
    run = replace(run, model=replace(run.model, bottleneck=IdentityConfig()))
    model = run.model.build().eval()
    with torch.no_grad():
        head = model.encoder.head
        head.bias[2] = head.parametrizations.weight.original0[2] = 0
    model.save_pretrained(tmp_path / "start")
    train(run, data=tones, output=tmp_path / "run", init_from=tmp_path / "start", progress=False)
    (said,) = warned(tmp_path / "run")
    assert said.startswith("step 10: a latent dimension has collapsed: the standard deviation of one is ")
    assert capsys.readouterr().err.count(said) == 1


def test_a_discriminator_that_dominates_is_warned_of(config, tones, tmp_path):
    run = override(config(steps=12, adversarial=True), ["trainer.watch.after=10", "trainer.watch.discriminator=1.9"])
    run = override(run, ["trainer.optimizers.generator.lr=0.0", "trainer.optimizers.discriminator.lr=0.01"])
    train(run, data=tones, output=tmp_path / "run", progress=False)
    (said,) = warned(tmp_path / "run")
    assert said.startswith("step ") and "the discriminator dominates: its loss is 1." in said


def test_saturation_is_remembered_by_a_run_that_goes_on(config, tones, tmp_path, monkeypatch):
    from partita.training.time_budget import Clock

    changes = ["trainer.watch.after=1", "trainer.watch.channel=none", "trainer.steps=40"]
    run = quiet(config, *changes, "trainer.optimizers.generator.lr=0.0")
    run = replace(run, model=replace(run.model, bottleneck=TanhConfig(gain=30.0)))
    clock = Clock.over
    with monkeypatch.context() as patch:  # killed after step 6
        patch.setattr(Clock, "over", lambda self, state: state.step >= 6 or clock(self, state))
        train(run, data=tones, output=tmp_path / "run", progress=False)
    with pytest.raises(PartitaError, match="step 10: the bottleneck saturates: 9.% of its values of late, and the run"):
        train(run, data=tones, output=tmp_path / "run", resume=True, progress=False)
    warns = override(run, ["trainer.watch.saturated_stop=none", "trainer.steps=11"])
    train(warns, data=tones, output=tmp_path / "other", progress=False)
    assert ["above 20%" in text for text in warned(tmp_path / "other")] == [True]
