"""Model cards: the README.md of a model folder, with what it is made of and what was measured."""

from collections.abc import Mapping

from partita_core import Autoencoder, Codec, Config

from partita.figures import figures


def model_card(model: Codec, *, recipe: str, data: str, steps: int, measured: Mapping[str, float]) -> str:
    """The card of a trained model, as Markdown with the header that the hub reads.

    Args:
        model: in eval mode.
        recipe: what it was trained by.
        data: what it was trained on, in the words of whoever did.
        steps: optimizer steps it has seen.
        measured: figures by name, of the last evaluation of the run.
    """
    found = figures(model)
    configs = {name: getattr(part, "config", None) for name, part in model.named_children()}
    rows = [
        f"| {name} | `{config.tag}` | {found['parameters'][name] / 1e6:.2f} M |"
        for name, config in configs.items()
        if isinstance(config, Config)
    ]
    codes, trained = "", "Trained"
    if found["codebook_sizes"]:
        codes = f" Codes of {len(found['codebook_sizes'])} levels, {found['bit_rate']:.0f} bit/s."
    if "quantizer" in configs:
        trained = "The quantizer was trained, on the frozen latents of the rest,"
    module, name = ("partita", "Autoencoder") if isinstance(model, Autoencoder) else ("partita.models", "load_codec")
    load = f"{name}.from_pretrained" if name == "Autoencoder" else name
    lines = [
        "---",
        "library_name: partita",
        "tags: [audio, autoencoder]",
        "---",
        "",
        f"# {recipe or 'An autoencoder'}",
        "",
        f"{found['sample_rate']} Hz, {', '.join(found['layouts'])}; {found['latent_dim']} numbers "
        f"{found['frame_rate']:g} times a second (hop {found['hop']}).{codes}",
        "",
        "| part | component | parameters |",
        "|---|---|---|",
        *rows,
        "",
        f"{trained} for {steps} steps on `{data}`.",
        "",
        *_measured(measured),
        "```python",
        f"from {module} import {name}",
        "",
        f'model = {load}("PATH")',
        "latents = model.encode(audio)    # (batch, channels, samples)",
        "audio = model.decode(latents)",
        "```",
        "",
    ]
    return "\n".join(lines)


def _measured(measured: Mapping[str, float]) -> list[str]:
    if not measured:
        return []
    rows = [f"| {name} | {value:.4g} |" for name, value in measured.items()]
    return ["Measured at the end of training, on clips of the split named:", "", "| figure | |", "|---|---|", *rows, ""]
