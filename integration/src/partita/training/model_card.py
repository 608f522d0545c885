"""Model cards: the README.md of a model folder, with what it is made of and what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from huggingface_hub import EvalResult, ModelCardData
from partita_core import Autoencoder, Codec, Config, Saved

from partita.evaluation import Interval
from partita.evaluation.results import format_interval, format_numbers, is_numbered
from partita.model_loading import codec_of
from partita.model_profile import count_parameters, profile

# What the hub calls models that put out audio for audio; nothing that it knows fits the others.
_TASK = "audio-to-audio"


@dataclass(frozen=True)
class Measured:
    """A figure of the last evaluation of a run.

    Attributes:
        name: as the log has it, without the split.
        title: as a table has it, with its unit and an arrow to the better side where it has them.
        value: the mean over clips, or over crops.
        interval: of the mean; None where it has none.
    """

    name: str
    title: str
    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Training:
    """How a model came to be.

    Attributes:
        recipe: what it was trained by; may be empty.
        objective: the tag of what it was trained for.
        data: what it was trained on, in the words of whoever did.
        files: of the split that it was trained on; None of a stream.
        hours: of audio in them; None where that is not known.
        steps: optimizer steps that it has seen.
        seconds: that they took.
        device: what they ran on.
        split: where the figures are from.
        measured: figures of the last evaluation; a card leaves out those of single levels, as `usage_3`.
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
    measured: Sequence[Measured]


def model_card(model: Saved, training: Training) -> str:
    """The card of a trained model, as Markdown with the header that the hub reads.

    The header names no licence: that is for whoever publishes the model to say.

    Args:
        model: in eval mode.
        training: how it came to be.
    """
    training = replace(training, measured=[each for each in training.measured if not is_numbered(each.name)])
    name = training.recipe or type(model).__name__
    parts = dict(model.named_children())
    rows = [
        f"| {part} | `{config.tag}` | {_millions(count_parameters(module))} |"
        for part, module in parts.items()
        if isinstance(config := getattr(module, "config", None), Config)
    ]
    trained = "The quantizer was trained, on the frozen latents of the rest," if "quantizer" in parts else "Trained"
    amounts = [
        *([] if training.files is None else [f"{training.files:,} files"]),
        *([] if training.hours is None else [f"{_hours(training.hours)} of audio"]),
    ]
    amount = f" ({', '.join(amounts)})" if amounts else ""
    lines = [
        "---",
        _header(model, name, training),
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
        *_figures(training),
        "```python",
        *_usage(model),
        "```",
        "",
    ]
    return "\n".join(lines)


def _header(model: Saved, name: str, training: Training) -> str:
    """What the hub reads, as YAML."""
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
    found = profile(codec)
    codes = ""
    if found["codebook_sizes"]:
        codes = f" Codes of {len(found['codebook_sizes'])} levels, {found['bit_rate']:.0f} bit/s."
    sets = "" if found["tokens_per_frame"] == 1 else f"{found['tokens_per_frame']} vectors of "
    latents = (
        f"{found['sample_rate']} Hz, {', '.join(found['layouts'])}; {sets}{found['latent_dim']} numbers "
        f"{found['frame_rate']:g} times a second (hop {found['hop']}).{codes}"
    )
    return latents if codec is model else f"A {type(model).__name__} on the latents of a frozen codec. {latents}"


def _figures(training: Training) -> list[str]:
    if not training.measured:
        return ["Measured: none.", ""]
    rows = []
    for each in training.measured:
        (value,) = format_numbers(each.value)
        value = value if each.interval is None else format_interval(each.interval)
        rows.append(f"| {each.title} | {value} |")
    what = "with 95 % bootstrap intervals" if any(each.interval for each in training.measured) else "without intervals"
    heading = f"Measured at the end of training on a few clips of the split `{training.split}`, {what}:"
    return [heading, "", "| figure | |", "|---|---:|", *rows, ""]


def _usage(model: Saved) -> list[str]:
    if not isinstance(model, Codec):
        kind = type(model)
        return [
            f"from {kind.__module__} import {kind.__name__}",
            "",
            f'model = {kind.__name__}.from_pretrained("PATH")',
        ]
    module, name = (
        ("partita", "Autoencoder") if isinstance(model, Autoencoder) else ("partita.model_loading", "load_codec")
    )
    load = f"{name}.from_pretrained" if name == "Autoencoder" else name
    return [
        f"from {module} import {name}",
        "",
        f'model = {load}("PATH")',
        "latents = model.encode(audio)    # (batch, channels, samples)",
        "audio = model.decode(latents)",
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _hours(hours: float) -> str:
    return f"{60 * hours:.1f} minutes" if hours < 1 else f"{hours:,.1f} hours"
