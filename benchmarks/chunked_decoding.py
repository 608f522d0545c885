"""Benchmark of decoding in chunks: seams, samplers, drift, and the effect of each latent of a chunk.

    python benchmarks/chunked_decoding.py NAME=MODEL [NAME=MODEL ...] --data DIR [--output DIR]

The first model decodes in chunks and is run with every sampler. The others use their own sampler and are compared with
it: variants of its latents, and controls without chunks, measured on the same grid of seams. On the clips of one split:

1. every model and every sampler: log-mel L1, MR-STFT, SI-SDR, seam excess, and forward passes per chunk; and the first
   model without the output of its denoising network, and with a wrong chunk before each chunk;
2. two-step decoding at several noise levels of the context, with and without refinement;
3. the error from chunk to chunk of long recordings, joined from the clips in random orders;
4. the change over time if one latent of a chunk is replaced by the mean of its position over the data set.

Writes `chunked_decoding.json`, `.md` and plots; equal for equal models, data and seed on one machine.
"""

# ruff: noqa: E402
import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from chunked_decoding_plots import plot_all
from denoising_ablations import ablations, with_sampler
from harness import RESULTS, table
from latent_effects import EffectSpread, effect_spread, latent_effects, mean_tokens
from partita.data import open_dataset, spread_rows, whole_files
from partita.evaluation import Bootstrap, Evaluation, Interval, chunk_samples, evaluate
from partita.evaluation.metrics import Drift, SeamExcess
from partita.evaluation.results import format_interval
from partita.model_loading import load_codec
from partita_core import (
    Autoencoder,
    ChannelLayout,
    Codec,
    Latents,
    PartitaError,
    Sampler,
    atomic_write,
    write_json,
)
from partita_decoders.samplers import Autoregressive, Independent, Overlap, Parallel, TwoStep
from torch import Tensor

Clip = tuple[str, Tensor, ChannelLayout]

SAMPLERS: dict[str, Sampler] = {
    "two_step": TwoStep(),
    "two_step, no refinement": TwoStep(refine=False),
    "autoregressive, clean context": TwoStep(sigma_context=0.0, refine=False),
    "autoregressive, 2 steps": Autoregressive(steps=2),
    "independent": Independent(),
    "independent, 2 steps": Independent(steps=2),
    "parallel, 4 steps": Parallel(steps=4),
    "overlap": Overlap(),
}
LEVELS = (0.0, 0.1, 0.3, 0.5, 0.965, 2.5)
DRIFTING = ("two_step", "two_step, no refinement", "autoregressive, clean context", "overlap", "independent")
# Our own files begin at full level, so little has to be left out at their ends.
EDGE = 4096


def sweep() -> dict[tuple[float, bool], tuple[str, Sampler]]:
    """Name and sampler by (noise level of the context, refined); at level 0 refinement changes nothing."""
    known = {sampler: name for name, sampler in SAMPLERS.items()}
    found: dict[tuple[float, bool], tuple[str, Sampler]] = {}
    for level in LEVELS:
        for refine in (False, True):
            sampler = TwoStep(sigma_context=level, refine=refine and level > 0)
            name = f"two_step, context {level:g}{', no refinement' * (not refine)}"
            found[level, refine] = known.get(sampler, name), sampler
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, default=RESULTS / "chunked_decoding")
    parser.add_argument(
        "--limit", type=int, default=1000, metavar="N", help="maximum number of clips, spread over the split"
    )
    parser.add_argument("--recordings", type=int, default=8, help="number of long recordings, for drift")
    parser.add_argument("--chunks", type=int, default=64, help="chunks per long recording")
    parser.add_argument(
        "--effects", type=int, default=16, metavar="N", help="number of clips whose latents are replaced"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    models = {name: load_codec(path) for name, _, path in (text.partition("=") for text in options.models)}
    first = next(iter(models.values()))
    chunk, rate = chunk_samples(first), first.audio_spec.sample_rate
    if chunk is None:
        raise PartitaError(f"{options.models[0]} decodes without chunks; the first model must decode in chunks")
    dataset = open_dataset(options.data, split=options.split)
    clips = [(clip.name, clip.audio, clip.layout) for clip in whole_files(dataset, sample_rate=rate)]
    measurable = [clip for clip in clips if clip[1].shape[-1] >= chunk + EDGE]
    clips, short = every(measurable, options.limit), len(clips) - len(measurable)
    print(f"{len(clips)} clips; {short} are too short to have a seam and are left out", flush=True)

    samplers = SAMPLERS | dict(sweep().values())
    systems = models | {name: with_sampler(first, sampler) for name, sampler in samplers.items()}
    ablated = ablations(first)
    systems |= ablated
    seams = SeamExcess(chunk=chunk, edge=EDGE)
    profile = Profile(seams)
    found = evaluate(
        systems,
        clips,
        ("log_mel_l1", "multi_resolution_stft", "si_sdr", seams.config),
        sample_rate=rate,
        seed=options.seed,
        on_clip=profile,
    )
    forwards = {name: forwards_per_chunk(systems[name]) for name in SAMPLERS}

    drift = Drift(rate, chunk=chunk)
    errors: dict[str, list[list[float]]] = {name: [] for name in DRIFTING}

    def note_errors(name: str, audio: Tensor, estimates: dict[str, Tensor]) -> None:
        for system, rows in errors.items():
            rows.append(drift.errors(estimates[system], audio).tolist())

    drifts = evaluate(
        {name: systems[name] for name in DRIFTING},
        join(clips, samples=options.chunks * chunk, count=options.recordings, seed=options.seed),
        (drift.config, "log_mel_l1"),
        sample_rate=rate,
        references=False,
        seed=options.seed,
        on_clip=note_errors,
    )

    spreads: dict[str, list[EffectSpread]] = {}
    maps: dict[str, list[list[float]]] = {}
    for name, model in models.items():
        if chunk_samples(model) == chunk and model.audio_spec.sample_rate == rate:
            spreads[name], maps[name] = effects_of(model, clips, every(clips, options.effects), options.seed)

    text = [
        "## Models with their own samplers",
        system_table(found, [*models, *(system.name for system in found.systems if system.reference)]),
        *([difference_table(found, list(models)[1:], next(iter(models)))] if len(models) > 1 else []),
        f"## Samplers of {next(iter(models))}",
        system_table(found, list(SAMPLERS), forwards),
        difference_table(found, [name for name in SAMPLERS if name != "two_step"], "two_step"),
        f"## Ablations of {next(iter(models))}",
        system_table(found, list(ablated)),
        difference_table(found, list(ablated), next(iter(models))),
        "## Two-step decoding by noise level of the context",
        sweep_table(found),
        f"## Drift over {options.recordings} recordings of {options.chunks} chunks",
        system_table(drifts, list(DRIFTING)),
        difference_table(drifts, [name for name in DRIFTING if name != "independent"], "independent"),
        "## Effects of latents",
        spread_table(spreads),
    ]
    record = {
        "settings": {"chunk": chunk, "edge": EDGE, "short": short, "split": options.split, "models": list(models)},
        "clips": found.to_dict(),
        "forwards per chunk": forwards,
        "flux over the chunk, over the source's": profile.curves(),
        "recordings": drifts.to_dict(),
        "errors by chunk": errors,
        "effects": {name: [asdict(each) for each in row] for name, row in spreads.items()},
        "mean effect by latent and frame": maps,
    }
    write_json(options.output / "chunked_decoding.json", record)
    with atomic_write(options.output / "chunked_decoding.md") as aside:
        aside.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    plot_all(options.output, record, {key: name for key, (name, _) in sweep().items()}, list(SAMPLERS))
    print("\n\n".join(text))


class Profile:
    """Spectral flux along a chunk, with the seam in the middle, summed over clips.

    Args:
        metric: metric with the flux and the grid of chunks.
    """

    def __init__(self, metric: SeamExcess) -> None:
        self.metric = metric
        self.bins = int(metric.chunk) // metric.transform.hop
        self.sums: dict[str, Tensor] = {}

    def __call__(self, name: str, audio: Tensor, estimates: Mapping[str, Tensor]) -> None:
        """Add a clip; the callback `on_clip` of `evaluate`."""
        for system, signal in {"source": audio, **estimates}.items():
            signal = signal.detach().cpu().double()
            positions, flux = self.metric.positions(signal), self.metric.flux(signal)
            inner = (positions >= self.metric.edge) & (positions <= signal.shape[-1] - self.metric.edge)
            where = ((positions / self.metric.chunk + 0.5) % 1 * self.bins).long()
            total = self.sums.setdefault(system, torch.zeros(self.bins, dtype=torch.float64))
            total.index_add_(0, where[inner], flux[inner])

    def curves(self) -> dict[str, list[float]]:
        """Per system, the flux at each position over its mean, divided by the same of the source."""
        shapes = {system: total / total.mean() for system, total in self.sums.items() if total.any()}
        source = shapes.pop("source")
        return {system: (shape / source).tolist() for system, shape in shapes.items()}


def every(clips: list[Clip], count: int) -> list[Clip]:
    """At most `count` clips, evenly spaced."""
    return [clips[i] for i in spread_rows(len(clips), count)]


def join(clips: list[Clip], *, samples: int, count: int, seed: int) -> Iterator[Clip]:
    """Recordings of `samples`: clips in random orders, end to end, repeated as needed; mono is copied to stereo."""
    width = max(audio.shape[0] for _, audio, _ in clips)
    layout = ChannelLayout.STEREO if width == 2 else ChannelLayout.MONO
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        pieces: list[Tensor] = []
        while sum(piece.shape[-1] for piece in pieces) < samples:
            pieces += [clips[i][1].expand(width, -1) for i in torch.randperm(len(clips), generator=generator).tolist()]
        yield f"recording {number}", torch.cat(pieces, dim=-1)[:, :samples].clone(), layout


def forwards_per_chunk(model: Codec, chunks: int = 16) -> float:
    """Mean number of windows of one or two chunks that are denoised per chunk, in a recording of `chunks`."""
    assert isinstance(model, Autoencoder)
    spec, windows = model.latent_spec, []
    samples = chunk_samples(model)
    assert samples is not None
    frames = chunks * samples // spec.hop
    layout = torch.tensor([int(model.audio_spec.layouts[0])])
    values = torch.zeros(1, spec.dim, frames * spec.tokens_per_frame)
    hook = model.decoder.register_forward_pre_hook(lambda _, inputs: windows.append(len(inputs[0])))
    try:
        model.decode(Latents(values, None, torch.tensor([frames * spec.hop]), layout, spec))
    finally:
        hook.remove()
    return sum(windows) / chunks


def effects_of(
    model: Codec, clips: list[Clip], chosen: list[Clip], seed: int
) -> tuple[list[EffectSpread], list[list[float]]]:
    """Spread over time of the latents' effects, per chosen clip, and their mean share by latent and frame."""
    tokens, sampler = mean_tokens(model, clips), Independent()
    effects = [
        latent_effects(model, audio, layout, tokens, chunk=model.latent_spec.hop, sampler=sampler, seed=seed)
        for _, audio, layout in chosen
    ]
    total = torch.cat(effects, dim=1).mean(1)
    return [effect_spread(each) for each in effects], (total / total.mean()).tolist()


def system_table(found: Evaluation, names: list[str], forwards: Mapping[str, float] | None = None) -> str:
    """Means with intervals, and forward passes per chunk if they are given."""
    header, rows = ["", *(metric.title for metric in found.metrics)], []
    for name in names:
        rows.append([name, *(format_interval(found.means[name][metric.name]) for metric in found.metrics)])
    if forwards is not None:
        header.append("forwards per chunk")
        rows = [[*row, f"{forwards[row[0]]:.2f}"] for row in rows]
    return table(header, rows)


def difference_table(found: Evaluation, names: list[str], baseline: str) -> str:
    """Paired differences of systems from a baseline, with intervals."""
    rows = [[f"{name} − {baseline}", *_differences(found, name, baseline)] for name in names]
    return table(["paired difference", *(metric.title for metric in found.metrics)], rows)


def sweep_table(found: Evaluation) -> str:
    """Per noise level of the context: without and with refinement, and the paired difference."""
    rows, metrics = [], found.metrics
    for level in LEVELS:
        (plain, _), (refined, _) = sweep()[level, False], sweep()[level, True]
        for kind, name in (("no refinement", plain), ("refined", refined)):
            rows.append([f"{level:g}", kind, *(format_interval(found.means[name][m.name]) for m in metrics)])
        rows.append([f"{level:g}", "difference", *_differences(found, refined, plain)])
    return table(["context", "", *(metric.title for metric in metrics)], rows)


def spread_table(spreads: Mapping[str, list[EffectSpread]]) -> str:
    """Means over clips with intervals, and paired differences from the first model."""
    names = [field.name for field in fields(EffectSpread)]
    columns = {model: [[getattr(each, name) for each in row] for name in names] for model, row in spreads.items()}
    first = next(iter(columns))
    bootstrap = Bootstrap(len(spreads[first]))
    rows = [[model, *map(format_interval, bootstrap.intervals(values))] for model, values in columns.items()]
    for model in list(columns)[1:]:
        pairs: list[Interval] = [bootstrap.difference(a, b) for a, b in zip(columns[model], columns[first])]
        rows.append([f"{model} − {first}", *(format_interval(each, sign=True) for each in pairs)])
    return table(["", *names], rows)


def _differences(found: Evaluation, name: str, baseline: str) -> list[str]:
    bootstrap = Bootstrap(len(found.clips))
    ours, theirs = found.scores[name], found.scores[baseline]
    pairs: list[Any] = [bootstrap.difference(ours[m.name], theirs[m.name]) for m in found.metrics]
    return [format_interval(each, sign=True) for each in pairs]


if __name__ == "__main__":
    main()
