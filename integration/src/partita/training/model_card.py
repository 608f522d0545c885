"""Model card: the README.md of a model folder, with its parts, its training and its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from partita_core import Codec, Config, Saved

from partita.evaluation import Interval
from partita.evaluation.results import format_interval, format_numbers, is_numbered
from partita.model_loading import codec_of
from partita.model_profile import count_parameters

# Task of codecs on the hub, which has none for the other models.
_TASK = "audio-to-audio"


@dataclass(frozen=True)
class ValidationMetric:
    """Mean of a metric in an evaluation during a run.

    Attributes:
        name: name in the log, without the split.
        title: title in tables, with unit and an arrow in the better direction, if any.
        value: mean over clips or crops.
        interval: confidence interval of the mean; None if it was not computed.
    """

    name: str
    title: str
    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class TrainingSummary:
    """Facts about the training of a model.

    Attributes:
        recipe: name of the recipe; may be empty.
        objective: tag of the objective.
        data: name of the training data.
        files: number of training files; None for a stream.
        hours: hours of training audio; None if unknown.
        steps: number of optimizer steps.
        seconds: training time.
        device: name of the device.
        split: split that `measured` comes from.
        measured: metrics of the last evaluation; those of single levels, such as `usage_3`, are left out of the card.
    """

    recipe: str
    objective: str
    data: str
    files: int | None
    hours: float | None
    steps: int
    seconds: float
    device: str
    split: str
    measured: Sequence[ValidationMetric]


def model_card(
    model: Saved, training: TrainingSummary, *, load: str = "PATH", license: str | None = None, body: str = ""
) -> str:
    """Write the card of a trained model, as Markdown with the header that the hub reads.

    Args:
        model: model in eval mode.
        training: facts about its training.
        load: name of the model in the example of its use.
        license: identifier of the license of the weights, in the form of the hub; None leaves it to the publisher.
        body: Markdown at the end, in place of the table of the metrics.
    """
    training = replace(training, measured=[each for each in training.measured if not is_numbered(each.name)])
    name = training.recipe or type(model).__name__
    parts = dict(model.named_children())
    rows = [
        f"| {part} | `{config.tag}` | {_millions(count_parameters(module))} |"
        for part, module in parts.items()
        if isinstance(config := getattr(module, "config", None), Config)
    ]
    trained = "The quantizer was trained, with the other parts frozen," if "quantizer" in parts else "Trained"
    amounts = [
        *([] if training.files is None else [f"{training.files:,} files"]),
        *([] if training.hours is None else [f"{_hours(training.hours)} of audio"]),
    ]
    amount = f" ({', '.join(amounts)})" if amounts else ""
    lines = [
        "---",
        _header(model, name, training, license),
        "---",
        "",
        f"# {name}",
        "",
        _about(model),
        "",
        "| part | component | parameters |",
        "|---|---|---:|",
        *rows,
        f"| all | | {_millions(count_parameters(model))} |",
        "",
        f"{trained} for {training.steps:,} steps of `{training.objective}` in {training.seconds / 60:.0f} minutes on "
        f"{training.device}, on `{training.data}`{amount}.",
        "",
        *([] if body else _metrics(training)),
        "```python",
        *_usage(model, load),
        "```",
        "",
        *([body] if body else []),
    ]
    return "\n".join(lines)


def _header(model: Saved, name: str, training: TrainingSummary, license: str | None) -> str:
    """Metadata for the hub, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData  # slow to import

    is_codec = isinstance(model, Codec)
    results = [
        EvalResult(
            task_type=_TASK if is_codec else "other",
            dataset_type=training.data,
            dataset_name=training.data,
            dataset_split=training.split,
            metric_type=each.name,
            metric_name=each.title,
            metric_value=each.value,
        )
        for each in training.measured
    ]
    kinds = ["autoencoder", "codec"] if is_codec else [type(model).__name__.lower()]
    data = ModelCardData(
        license=license,
        library_name="partita",
        pipeline_tag=_TASK if is_codec else None,
        tags=["audio", *kinds],
        model_name=name,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )
    return data.to_yaml()


def _about(model: Saved) -> str:
    codec = codec_of(model)
    audio, latents = codec.audio_spec, codec.latent_spec
    layouts = ", ".join(layout.name.lower() for layout in audio.layouts)
    sizes = latents.codebook_sizes
    codes = f" Codes of {len(sizes)} levels, {latents.bit_rate:.0f} bit/s." if sizes else ""
    sets = "" if latents.tokens_per_frame == 1 else f"{latents.tokens_per_frame} vectors of "
    text = (
        f"{audio.sample_rate} Hz, {layouts}; {sets}{latents.dim} numbers "
        f"{float(latents.frame_rate):g} times per second (hop {latents.hop}).{codes}"
    )
    return text if codec is model else f"A {type(model).__name__} on the latents of a frozen codec. {text}"


def _metrics(training: TrainingSummary) -> list[str]:
    if not training.measured:
        return ["Measured: none.", ""]
    rows = []
    for each in training.measured:
        (value,) = format_numbers(each.value)
        value = value if each.interval is None else format_interval(each.interval)
        rows.append(f"| {each.title} | {value} |")
    kind = "with 95 % bootstrap intervals" if any(each.interval for each in training.measured) else "without intervals"
    heading = f"Measured at the end of training on a few clips of the split `{training.split}`, {kind}:"
    return [heading, "", "| metric | |", "|---|---:|", *rows, ""]


def _usage(model: Saved, name: str) -> list[str]:
    lines = ["import partita", "", f'model = partita.load("{name}")']
    if isinstance(model, Codec):
        lines += ["latents = model.encode(audio)  # (batch, channels, samples)", "audio = model.decode(latents)"]
    return lines


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _hours(hours: float) -> str:
    return f"{60 * hours:.1f} minutes" if hours < 1 else f"{hours:,.1f} hours"
