"""The benchmark of chunked decoding: its functions, and the script on models of a few thousand parameters."""

import json
import math
from dataclasses import replace

import pytest
import soundfile
import torch
from partita.evaluation import evaluate
from partita.evaluation.metrics import DriftConfig, SeamExcess, SeamExcessConfig
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import ConsistencyDecoderConfig, GenAEDecoderConfig
from partita_decoders.samplers import Autoregressive, Independent, Parallel, TwoStep
from partita_encoders import GenAEEncoderConfig, SummaryEncoderConfig

MONO, STEREO = ChannelLayout.MONO, ChannelLayout.STEREO
CHUNK = 16_384


@pytest.fixture(scope="module")
def script(benchmark_module):
    return benchmark_module("chunked_decoding")


def build(tokens="summary"):
    torch.manual_seed(0)
    sizes = {"n_fft": 512, "stft_hop": 256, "chunk_frames": 64, "strides": ((16, 8), (4, 4))}
    encoder = replace(SummaryEncoderConfig.example(), **sizes, tokens=tokens)
    decoder = replace(ConsistencyDecoderConfig.example(), **sizes)
    model = AutoencoderConfig(AudioSpec(16_000, 1, (MONO,)), 4, encoder, TanhConfig(), decoder).build().eval()
    for weight in model.parameters():
        if not weight.any():  # layers initialized to zero would hide the latents
            torch.nn.init.normal_(weight, std=0.1)
    return model


def test_sweep_reuses_the_samplers_by_name(script):
    sweep = script.sweep()
    assert sweep[0.965, True] == ("two_step", TwoStep())
    assert sweep[0.0, True] == sweep[0.0, False] == ("autoregressive, clean context", TwoStep(0.0, refine=False))
    assert sweep[2.5, False] == ("two_step, context 2.5, no refinement", TwoStep(2.5, refine=False))
    assert len({name for name, _ in sweep.values()}) == len(set(sweep.values())) == 11


def test_recordings_join_the_clips_in_seeded_orders(script):
    clips = [("a", torch.full((1, 3), 1.0), MONO), ("b", torch.full((2, 2), 2.0), STEREO)]
    found = list(script.join(clips, samples=12, count=4, seed=1))
    assert [(audio.shape, layout) for _, audio, layout in found] == [((2, 12), STEREO)] * 4
    for _, audio, _ in found:
        assert audio[:, :5].sum() == 14 and audio[:, 5:10].sum() == 14
    again = list(script.join(clips, samples=12, count=4, seed=1))
    assert all(torch.equal(one[1], other[1]) for one, other in zip(found, again))
    assert len({tuple(audio[0].tolist()) for _, audio, _ in found}) > 1


def test_every_picks_evenly_spaced_clips(script):
    assert script.every(list(range(10)), 4) == [0, 2, 5, 7]
    assert script.every([1, 2], 4) == [1, 2]


def test_profile_has_the_seam_in_its_middle(script):
    metric = SeamExcess(chunk=32_768, edge=0)
    profile = script.Profile(metric)
    source = 0.1 * torch.randn(1, 8 * 32_768, generator=torch.Generator().manual_seed(0))
    estimate = source.clone()
    for seam in range(0, source.shape[-1], 32_768):
        estimate[:, max(0, seam - 256) : seam + 256] = 0
    profile("clip", source, {"ours": estimate, "same": source})
    curve = torch.tensor(profile.curves()["ours"])
    assert curve.shape == (256,)
    assert (curve.topk(4).indices - 127.5).abs().max() < 4
    assert curve[:100].std() < 1e-6 < curve[100:150].std()
    assert profile.curves()["same"] == [1.0] * 256


def test_forwards_per_chunk_by_sampler(script):
    model = build()
    expected_of = {TwoStep(): 1.25, TwoStep(refine=False): 1.0, Autoregressive(steps=2): 2.0, Parallel(steps=2): 1.25}
    for sampler, expected in expected_of.items():
        model.decoder.sampler = sampler
        assert script.forwards_per_chunk(model, chunks=4) == expected


def test_spread_table_has_paired_differences(script):
    first = [script.EffectSpread(0.9, 0.1, 0.0, 0.0), script.EffectSpread(0.8, 0.2, 0.0, 0.0)]
    second = [script.EffectSpread(0.5, 0.6, 1.0, 1.0), script.EffectSpread(0.4, 0.7, 1.0, 1.0)]
    rows = script.spread_table({"set": first, "rows": second}).splitlines()
    assert rows[0] == "|  | entropy | gini | order | placed |"
    assert rows[2].startswith("| set | 0.850 [0.800, 0.900] |")
    assert rows[4].startswith("| rows − set | −0.400 [−0.400, −0.400] | +0.500 [+0.500, +0.500] |")


def test_with_sampler_shares_the_weights(script):
    chunked = build()
    own = chunked.decoder.sampler
    twin = script.with_sampler(chunked, Independent())
    assert chunked.decoder.sampler is own and twin.decoder.sampler == Independent()
    for ours, theirs in zip(chunked.parameters(), twin.parameters(), strict=True):
        assert ours is theirs
    audio = 0.1 * torch.randn(1, 1, 2 * CHUNK, generator=torch.Generator().manual_seed(0))
    latents = chunked.encode(audio)
    expected = chunked.decode(latents, sampler=Independent(), seed=3)
    assert torch.equal(twin.decode(latents, seed=3), expected)


def test_samplers_are_compared_in_one_evaluation(script):
    chunked = build()
    systems = {
        "two steps": script.with_sampler(chunked, TwoStep()),
        "independent": script.with_sampler(chunked, Independent()),
    }
    audio = 0.1 * torch.randn(1, 3 * CHUNK, generator=torch.Generator().manual_seed(0))
    seams = SeamExcessConfig(chunk=CHUNK, edge=0)
    metrics = ("log_mel_l1", seams, DriftConfig(chunk=CHUNK))
    found = evaluate(systems, [("clip", audio, MONO)], metrics, references=False)
    assert [metric.title for metric in found.metrics[1:]] == ["seam excess, % ↓", "drift, % ↓"]
    assert all(len(each) == 1 and math.isfinite(each[0]) for table in found.scores.values() for each in table.values())


def test_with_sampler_needs_a_denoising_decoder(script):
    audio = AudioSpec(8000, 1, (MONO,))
    plain = AutoencoderConfig(audio, 4, GenAEEncoderConfig.example(), TanhConfig(), GenAEDecoderConfig.example())
    with pytest.raises(PartitaError, match="no denoising decoder"):
        script.with_sampler(plain.build(), Independent())


@pytest.mark.slow
def test_script_end_to_end(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "LEVELS", (0.0, 0.965, 2.5))
    build().save_pretrained(tmp_path / "set")
    build("ordered").save_pretrained(tmp_path / "rows")
    generator = torch.Generator().manual_seed(0)
    for i, samples in enumerate((CHUNK, 2 * CHUNK, 3 * CHUNK)):
        (tmp_path / "data" / "test").mkdir(parents=True, exist_ok=True)
        audio = 0.1 * torch.randn(samples, generator=generator).numpy()
        soundfile.write(tmp_path / "data" / "test" / f"{i}.wav", audio, 16_000)
    models = [f"{name}={tmp_path / name}" for name in ("set", "rows")]
    output = tmp_path / "out"
    arguments = [*models, "--data", str(tmp_path / "data"), "--output", str(output), "--threads", "1"]
    script.main([*arguments, "--recordings", "2", "--chunks", "3", "--effects", "1"])
    record = json.loads((output / "chunked_decoding.json").read_text())
    assert record["settings"] == {"chunk": CHUNK, "edge": 4096, "short": 1, "split": "test", "models": ["set", "rows"]}
    # The model with its own sampler and its default sampler by name are the same system.
    assert record["clips"]["scores"]["set"] == record["clips"]["scores"]["two_step"]
    assert all(len(row) == 3 for rows in record["errors by chunk"].values() for row in rows)
    assert len(record["effects"]["rows"]) == 1 and len(record["mean effect by latent and frame"]["set"]) == 2
    text = (output / "chunked_decoding.md").read_text()
    assert text.count("\n## ") == 5 and "| rows − set |" in text and "| output zeroed − set |" in text
    plots = {path.name for path in output.glob("*.svg")}
    assert plots == {
        f"{n}.svg" for n in ("samplers", "seam_profile", "sigma_context", "error_by_chunk", "latent_effects")
    }
