"""Model cards: the README.md of a model folder, with what it is made of and what was measured."""

from collections.abc import Mapping

from partita_core import Autoencoder, Codec, Config, Saved

from partita.figures import figures
from partita.models import codec_of


def model_card(model: Saved, *, recipe: str, data: str, steps: int, measured: Mapping[str, float]) -> str:
    """The card of a trained model, as Markdown with the header that the hub reads.

    Args:
        model: in eval mode.
        recipe: what it was trained by.
        data: what it was trained on, in the words of whoever did.
        steps: optimizer steps it has seen.
        measured: figures by name, of the last evaluation of the run.
    """
    parts = dict(model.named_children())
    rows = [
        f"| {name} | `{config.tag}` | {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M |"
        for name, part in parts.items()
        if isinstance(config := getattr(part, "config", None), Config)
    ]
    trained = "The quantizer was trained, on the frozen latents of the rest," if "quantizer" in parts else "Trained"
    lines = [
        "---",
        "library_name: partita",
        "tags: [audio, autoencoder]",
        "---",
        "",
        f"# {recipe or type(model).__name__}",
        "",
        _about(model),
        "",
        "| part | component | parameters |",
        "|---|---|---|",
        *rows,
        "",
        f"{trained} for {steps} steps on `{data}`.",
        "",
        *_measured(measured),
        "```python",
        *_usage(model),
        "```",
        "",
    ]
    return "\n".join(lines)


def _about(model: Saved) -> str:
    codec = codec_of(model)
    found = figures(codec)
    codes = ""
    if found["codebook_sizes"]:
        codes = f" Codes of {len(found['codebook_sizes'])} levels, {found['bit_rate']:.0f} bit/s."
    latents = (
        f"{found['sample_rate']} Hz, {', '.join(found['layouts'])}; {found['latent_dim']} numbers "
        f"{found['frame_rate']:g} times a second (hop {found['hop']}).{codes}"
    )
    return latents if codec is model else f"A {type(model).__name__} on the latents of a frozen codec. {latents}"


def _usage(model: Saved) -> list[str]:
    if not isinstance(model, Codec):
        kind = type(model)
        return [
            f"from {kind.__module__} import {kind.__name__}",
            "",
            f'model = {kind.__name__}.from_pretrained("PATH")',
        ]
    module, name = ("partita", "Autoencoder") if isinstance(model, Autoencoder) else ("partita.models", "load_codec")
    load = f"{name}.from_pretrained" if name == "Autoencoder" else name
    return [
        f"from {module} import {name}",
        "",
        f'model = {load}("PATH")',
        "latents = model.encode(audio)    # (batch, channels, samples)",
        "audio = model.decode(latents)",
    ]


def _measured(measured: Mapping[str, float]) -> list[str]:
    if not measured:
        return []
    rows = [f"| {name} | {value:.4g} |" for name, value in measured.items()]
    return ["Measured at the end of training, on clips of the split named:", "", "| figure | |", "|---|---|", *rows, ""]
