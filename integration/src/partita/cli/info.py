"""Print what a recipe's or a saved model's figures are: rates, frames, parameters, cost."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", metavar="RECIPE|MODEL", help="a recipe, or a model folder or name on the hub")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import AutoencoderConfig, PartitaError, nearest

    from partita.figures import figures, recipe_figures
    from partita.models import load_codec
    from partita.recipes import RECIPES

    if options.name in RECIPES:
        config = RECIPES[options.name]().model
        assert isinstance(config, AutoencoderConfig)
        found = recipe_figures(config)
    elif Path(options.name).exists() or "/" in options.name:
        found = figures(load_codec(options.name))
    else:
        hint = nearest(options.name, RECIPES)
        raise PartitaError(f"{options.name!r} is neither a recipe nor a model folder; {hint}")
    found = {"name": options.name} | found
    print(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found)))


def _lines(found: dict) -> list[str]:
    rate = found["frame_rate"]
    lines = [
        f"{found['name']}",
        f"  audio         {found['sample_rate']} Hz, {', '.join(found['layouts'])}",
        f"  latents       {found['latent_dim']} x {rate:g} Hz (hop {found['hop']}), "
        f"{found['numbers_per_second']:g} numbers/s",
        f"  60 s          {found['frames_60s']} frames",
        f"  codes         {_codes(found)}",
        f"  context       encoder {found['encode_context']}, decoder {found['decode_context']} frames",
    ]
    for name, count in found["parameters"].items():
        macs = (found["macs_per_second"] or {}).get(name)
        cost = "" if macs is None else f"{macs / 1e9:9.3f} GMAC per second of audio"
        lines.append(f"  {name:13} {count / 1e6:8.3f} M parameters {cost}")
    return lines


def _codes(found: dict) -> str:
    if not found["codebook_sizes"]:
        return "none (continuous)"
    return f"{len(found['codebook_sizes'])} levels, {found['bit_rate']:.0f} bit/s"
