"""Benchmark of learning to generate the latents of several codecs with one small generator.

    python benchmarks/learnability.py NAME=MODEL [NAME=MODEL ...] --data DIR [--steps N] [--limit N] [--json F]

The same language model with the same flow head is trained unconditionally on the latents of each codec, on the same
crops. Then, on the clips of the validation split:

1. the velocity error over the velocity's variance, with a time drawn per patch: 1 is predicting the mean;
2. log-mel L1 and MR-STFT of decoded latents of which each patch is sampled with the clip's own patches as its past
   (teacher-forced), next to those of the codec itself;
3. five seconds of audio sampled without a prompt (free-running): Frechet distance of its log-mel frames to those of the
   clips, and the drift of the scale of the latents, the RMS of the last second over that of the first.

If a bottleneck fixes the scale of frames, 2 and 3 are repeated without projecting samples to it. Prints a Markdown
table; equal for equal models, data and seed on one machine.
"""

# ruff: noqa: E402
import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import machine, table
from latent_noise import frame_rms
from partita.data import open_dataset, spread_rows, whole_files
from partita.data.clip_latents import codec_input, truncate_clip
from partita.evaluation import Bootstrap, Interval, frechet_distance
from partita.evaluation.references import fit
from partita.evaluation.results import format_interval
from partita.generation import FlowHead, FlowHeadConfig, Generator, GeneratorConfig, LlamaBackboneConfig, Sampling
from partita.model_loading import load_codec
from partita.probing import log_mel
from partita_core import Codec, Latents, Metric, lookup, to_dict, write_json
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

METRICS = ("log_mel_l1", "multi_resolution_stft")
FREE_SECONDS, DRAWS = 5.0, 8
UNPROJECTED = ", not projected"


class Example(NamedTuple):
    """A clip as the codec's input, and its latents."""

    name: str
    audio: Tensor
    latents: Latents


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=128, help="width of the language model and the head")
    parser.add_argument("--patch-rate", type=float, default=12.5, help="approximate number of patches per second")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="length of a crop, and maximum length of a validation clip"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="maximum number of clips per split, spread over it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="F")
    options = parser.parse_args(arguments)

    rows: dict[str, Any] = {}
    for name, _, path in (text.partition("=") for text in options.models):
        codec = load_codec(path).eval()
        train, validation = (read(codec, options, split) for split in ("train", "validation"))
        torch.manual_seed(options.seed)
        generator = build(codec, options)
        learn(generator, train, options, name)
        generator.eval()
        assert isinstance(generator.head, FlowHead)
        probe = torch.ones(1, codec.latent_spec.dim, 1)
        frozen = generator.head.codec
        for projection in (frozen, None) if codec.project(probe) is not probe else (None,):
            generator.head.codec = projection
            label = name + UNPROJECTED * (projection is None and name in rows)
            rows[label] = measure(generator, validation, options)
    if options.json is not None:
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "models", "data")}
        write_json(options.json, {"machine": machine(), "settings": settings, "rows": to_dict(rows)})
    print(summary(rows))


def read(codec: Codec, options: argparse.Namespace, split: str) -> list[Example]:
    """Clips of a split with their latents; validation clips are truncated to `options.seconds`."""
    dataset = open_dataset(options.data, split)
    if options.limit:
        dataset = dataset.select(spread_rows(len(dataset), options.limit))
    found = []
    for clip in tqdm(whole_files(dataset), total=len(dataset), desc=split):
        clip = truncate_clip(clip, options.seconds if split == "validation" else 60.0)
        audio, layout = codec_input(codec, clip)
        found.append(Example(clip.name, audio, codec.encode(audio[None], layout=layout)))
    return found


def build(codec: Codec, options: argparse.Namespace) -> Generator:
    """The generator: equal for all codecs, except for the frames per patch if frame rates differ."""
    heads = max(1, options.width // 64)
    patch = max(1, round(float(codec.latent_spec.frame_rate) / options.patch_rate))
    head = FlowHeadConfig(patch=patch, width=options.width, layers=2, heads=heads, head_dim=64)
    backbone = LlamaBackboneConfig(width=options.width, layers=4, heads=heads, mlp_width=3 * options.width)
    return GeneratorConfig(head, backbone).build(codec=codec)


def learn(generator: Generator, examples: list[Example], options: argparse.Namespace, name: str) -> None:
    """Train with AdamW on crops; clips and positions are the same for all codecs."""
    draws = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=options.lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options.steps))
    generator.train()
    for _ in tqdm(range(options.steps), desc=name):
        chosen = torch.randint(len(examples), (options.batch,), generator=draws).tolist()
        starts = torch.rand(options.batch, generator=draws).tolist()
        target, frames, layout = batch([examples[i].latents for i in chosen], starts, options.seconds)
        loss = generator(target, frames, [""] * options.batch, layout).head.loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over a twentieth of the steps, then cosine decay."""
    return min((step + 1) / (0.05 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))


def batch(items: list[Latents], starts: Sequence[float], seconds: float) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of latents: values `(batch, dim, tokens)`, padded at their ends, and frames and layouts `(batch,)`."""
    spec = items[0].spec
    longest = max(1, round(seconds * spec.frame_rate))
    crops, frames = [], []
    for item, start in zip(items, starts):
        assert item.values is not None
        count = min(longest, int(item.frames))
        first = round(start * (int(item.frames) - count))
        tokens = item.values[0, :, first * spec.tokens_per_frame : (first + count) * spec.tokens_per_frame]
        crops.append(F.pad(tokens, (0, (longest - count) * spec.tokens_per_frame)))
        frames.append(count)
    return torch.stack(crops), torch.tensor(frames), torch.cat([item.layout for item in items])


@torch.no_grad()
def measure(generator: Generator, examples: list[Example], options: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one generator."""
    codec, rate = generator.codec, generator.codec.audio_spec.sample_rate
    metrics: list[Metric] = [lookup(name, ("metric",))().build(sample_rate=rate) for name in METRICS]
    errors, variances = [], []
    scores: dict[str, dict[str, list[float]]] = {
        kind: {metric.name: [] for metric in metrics} for kind in ("codec", "forced")
    }
    mels = []
    for index, example in enumerate(examples):
        torch.manual_seed(options.seed + index)
        target, frames = example.latents.values, example.latents.frames
        assert target is not None
        found = [generator(target, frames, [""], example.latents.layout) for _ in range(DRAWS)]
        errors.append(sum(float(each.head.loss) for each in found) / DRAWS)
        variances.append(sum(float(each.head.loss / each.head.metrics["velocity_error"]) for each in found) / DRAWS)
        forced = teacher_forced(generator, example.latents, found[0].states, options.seed + index)
        for kind, latents in (("codec", example.latents), ("forced", forced)):
            decoded = fit(codec.decode(latents)[0].cpu(), example.audio.shape[-1])
            for metric in metrics:
                scores[kind][metric.name].append(metric(decoded, example.audio))
        mels.append(log_mel(example.audio, rate))
    bootstrap = Bootstrap(len(examples))
    variance = sum(variances) / len(variances)
    drawn = generator.generate([""] * len(examples), FREE_SECONDS, seed=range(len(examples)), guidance=1.0)
    free = codec.decode(drawn)
    made = [log_mel(audio, rate) for audio in free]
    second = round(rate / codec.latent_spec.hop)
    rms = frame_rms(drawn).view(len(examples), -1)
    return {
        "velocity": bootstrap.interval([error / variance for error in errors]),
        **{f"{kind} {name}": bootstrap.interval(row) for kind, each in scores.items() for name, row in each.items()},
        "frechet": frechet_distance(torch.cat(made), torch.cat(mels)),
        "drift": bootstrap.interval((rms[:, -second:].mean(1) / rms[:, :second].mean(1)).tolist()),
        "finite": bool(torch.isfinite(free).all()),
    }


def teacher_forced(generator: Generator, latents: Latents, states: Tensor, seed: int) -> Latents:
    """Latents of which each patch is sampled given the clip's own past patches."""
    head = generator.head
    assert isinstance(head, FlowHead) and latents.values is not None
    truth = head.scale.normalize(latents.values)
    truth = F.pad(truth, (0, -truth.shape[-1] % head.tokens))
    rollout = head.rollout(
        int(latents.frames), torch.tensor([seed]), Sampling(1.0, 1.0, None, None), generator.backbone
    )
    drawn = []
    for step in range(states.shape[1]):
        rollout.push(states[:, step], None)
        drawn.append(rollout.patches[-1])
        rollout.patches[-1] = truth[..., step * head.tokens : (step + 1) * head.tokens]
    rollout.patches = drawn
    return Latents(rollout.result(), None, latents.audio_lengths, latents.layout, latents.spec, latents.space_id)


def summary(rows: Mapping[str, Any]) -> str:
    """One row per model."""
    columns = {
        "velocity": "velocity error over variance ↓",
        "codec log_mel_l1": "log-mel L1: codec",
        "forced log_mel_l1": "teacher-forced ↓",
        "codec multi_resolution_stft": "MR-STFT: codec",
        "forced multi_resolution_stft": "teacher-forced ↓",
        "frechet": "Fréchet log-mel, free-running ↓",
        "drift": "RMS, last second over first",
    }
    lines = [[name, *(_text(found[key]) for key in columns)] for name, found in rows.items()]
    return table(["model", *columns.values()], lines)


def _text(value: Interval | float) -> str:
    return format_interval(value) if isinstance(value, Interval) else f"{value:.3f}"


if __name__ == "__main__":
    main()
