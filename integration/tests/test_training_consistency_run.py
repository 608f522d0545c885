"""Runs of consistency training with the summary encoder and the consistency decoder at a few thousand parameters."""

from pathlib import Path

import pytest
import torch
from partita.data import DataConfig
from partita.objectives import ConsistencyTrainingConfig, TrainState
from partita.training import AdamWConfig, Constant, RAdamConfig, RunConfig, TrainerConfig, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, PartitaError, override, read_tensors
from partita_decoders import ConsistencyDecoderConfig
from partita_encoders import SummaryEncoderConfig
from partita_quantizers import FSQConfig


def config(**trainer) -> RunConfig:
    model = AutoencoderConfig(
        AudioSpec(8000, 2, (ChannelLayout.STEREO,)),
        4,
        SummaryEncoderConfig.example(),
        TanhConfig(),
        ConsistencyDecoderConfig.example(),
    )
    radam = RAdamConfig(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, schedule=Constant())
    settings = {"steps": 6, "log_every": 1, "evaluate_seconds": 0.1, "statistics_seconds": 0.5, "ema_decay": 0.9}
    return RunConfig(
        model=model,
        objective=ConsistencyTrainingConfig(uniform_share=0.25, warm_start=0.5),
        data=DataConfig(crop_seconds=192 / 8000, batch_size=4, num_workers=0),
        trainer=TrainerConfig(optimizers={"generator": radam}, **(settings | trainer)),
    )


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.stem}.{name}": tensor for name, tensor in read_tensors(file)[0].items()}
    return found


@pytest.fixture(scope="module")
def run(tones, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("consistency") / "run"
    train(config(), data=tones, output=folder, recipe="tiny", progress=False)
    return folder


def test_trained_model_encodes_and_decodes(run):
    model = Autoencoder.from_pretrained(run / "model")
    assert model.latent_spec.bounded and model.latent_spec.mean is not None
    audio = torch.randn(2, 2, 1001, generator=torch.Generator().manual_seed(0)) * 0.1
    latents = model.encode(audio)
    assert latents.values is not None and latents.values.shape == (2, 4, 2 * 21)
    assert model.decode(latents).shape == audio.shape
    lines = [line for line in read_log(run / "log.jsonl") if "total" in line]
    for line in lines:
        drawn = {name.removeprefix("metric/loss_sigma_") for name in line if name.startswith("metric/loss_sigma_")}
        assert drawn == {n.removeprefix("metric/error_sigma_") for n in line if n.startswith("metric/error_sigma_")}
        assert 1 <= len(drawn) <= 5
        assert line["metric/saturated_fraction"] < 0.5


@pytest.mark.slow
def test_resumed_consistency_run_equals_uninterrupted_run(tones, tmp_path, monkeypatch):
    """Resumed before the end of the warm start, which depends on the progress of the run."""
    from partita.training.time_budget import TimeBudget

    whole = config(accumulation=2)
    train(whole, data=tones, output=tmp_path / "whole", progress=False)
    is_over = TimeBudget.is_over
    with monkeypatch.context() as patch:  # killed after step 2, with the schedule of all six
        patch.setattr(TimeBudget, "is_over", lambda self, state: state.step >= 2 or is_over(self, state))
        train(whole, data=tones, output=tmp_path / "cut", progress=False)
    torch.manual_seed(99)
    train(whole, data=tones, output=tmp_path / "cut", resume=True, progress=False)
    ends = [tensors_of(checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
def test_consistency_loss_curve_equals_golden_curve(golden):
    golden("consistency_training.json", config(), ("total", "gradient/generator", "metric/pre_tanh_rms"))


@pytest.mark.slow
def test_loss_of_fixed_draws_decreases():
    torch.manual_seed(0)
    run = config()
    it = run.objective.build(model=run.model.build())
    t = torch.arange(384) / 8000
    audio = 0.3 * torch.sin(2 * torch.pi * torch.tensor([300.0, 700.0])[:, None, None] * t).expand(2, 2, -1)
    ones = torch.ones(2, dtype=torch.int64)
    batch = {"audio": audio, "audio_lengths": 384 * ones, "layout": ones, "target_layout": ones}
    optimizer = AdamWConfig().build(groups=it.parameter_groups("generator"))
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    totals = []
    for _ in range(30):
        torch.manual_seed(1)
        out = it(batch, TrainState(0, 100), "generator")
        out.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(float(out.total.detach()))
    assert totals[-1] < 0.8 * totals[0], totals


@pytest.mark.slow
def test_saturated_run_stops(tones, tmp_path):
    saturated = ["model.bottleneck.gain=30.0", "trainer.alarms.start_step=15"]
    wild = override(config(steps=200, evaluate_seconds=0.01), saturated)
    with pytest.raises(PartitaError, match=r"step 15: .* \d\d% .*50%"):
        train(wild, data=tones, output=tmp_path / "run", progress=False)
    last = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "total" in line][-1]
    assert last["step"] == 15 and not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_model_with_latents_and_codes(tones, tmp_path):
    """An attached quantizer adds codes to the latents, which keep their values."""
    from dataclasses import replace

    both = config()
    both = replace(both, model=replace(both.model, quantizer=FSQConfig((5, 5), "clamp", rounding_dropout=0.75)))
    train(both, data=tones, output=tmp_path / "run", progress=False)
    model = Autoencoder.from_pretrained(tmp_path / "run" / "model")
    latents = model.encode(torch.randn(1, 2, 480, generator=torch.Generator().manual_seed(0)) * 0.1)
    assert latents.codes is not None and latents.codes.shape == (1, 2, 20)
    rounded = model.codes_to_values(latents.codes)
    assert 0 < float((latents.values - rounded).abs().max()) <= 0.25 + 1e-6
    assert model.decode(latents.only_codes()).shape == (1, 2, 480)
    metrics = [name for name in read_log(tmp_path / "run" / "log.jsonl")[-2] if name.startswith("metric/")]
    assert {"metric/edge_fraction", "metric/saturated_fraction"} <= set(metrics)
