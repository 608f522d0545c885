"""Print the size and cost of a recipe or a saved model: rates, frames, parts, parameters.

Overrides change a recipe as in training, which checks a combination of parts before it is trained:
`partita info genae_tiny model.bottleneck=tanh`. A recipe comes before a pretrained model of the same name.
"""

import argparse
import json
from pathlib import Path

from ._models import MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.usage = "partita info RECIPE|MODEL [options] [path.to.key=value ...]"
    parser.set_defaults(overrides=[])
    parser.add_argument("name", metavar="RECIPE|MODEL", help=f"name of a recipe, or {MODEL}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--config", action="store_true", help="print a recipe with all settings, as JSON that `partita train` accepts"
    )
    parser.add_argument(
        "--context", action="store_true", help="also estimate the seconds of audio a generator can train on"
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError, override, suggest, to_dict

    from partita.model_loading import load_codec, pretrained_names
    from partita.model_profile import context_estimate, profile
    from partita.recipes import load_run, recipe_names
    from partita.recipes.profile import recipe_profile

    recipes = recipe_names()
    if options.name in recipes or options.name.endswith(".json"):
        config, recipe = load_run(options.name)
        config = override(config, options.overrides)
        found = recipe_profile(config)
        if options.config:
            print(json.dumps({"recipe": recipe, "config": to_dict(config)}, indent=2))
            return
    elif options.overrides:
        hint = suggest(options.name, recipes)
        raise PartitaError(f"{options.overrides[0]!r} changes a recipe, but {options.name!r} is not one; {hint}")
    elif _names_model(options.name):
        found = profile(load_codec(options.name))
    else:
        hint = suggest(options.name, [*recipes, *pretrained_names()])
        raise PartitaError(f"{options.name!r} is neither a recipe nor a model; {hint}")
    if options.config:
        raise PartitaError(f"--config prints recipes, and {options.name!r} is a model; see its config.json")
    found = {"name": options.name} | found
    if options.context:
        found["context_estimate"] = context_estimate(found["frame_rate"] * found["tokens_per_frame"])
    print(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found)))


def _names_model(name: str) -> bool:
    """True for a path, a pretrained model, and what can be a repository on the hub."""
    from partita.model_loading import HF_PREFIX, pretrained_names

    return Path(name).exists() or "/" in name or name.startswith(HF_PREFIX) or name in pretrained_names()


def _lines(found: dict) -> list[str]:
    rate = found["frame_rate"]
    lines = [
        f"{found['name']}",
        f"  audio         {found['sample_rate']} Hz, {', '.join(found['layouts'])}",
        f"  latents       {_vectors(found)}{found['latent_dim']} x {rate:g} Hz (hop {found['hop']}), "
        f"{found['floats_per_second']:g} floats/s",
        f"  60 s          {found['frames_60s']} frames",
        f"  codes         {_codes(found)}",
        f"  context       encoder {found['encode_context']}, decoder {found['decode_context']} frames",
    ]
    for name, count in found["parameters"].items():
        part = found["parts"].get(name, "").split("/")[-1]
        lines.append(f"  {name:13} {part:17} {count / 1e6:8.3f} M parameters {_cost(found, name)}")
    return lines + (_context(found) if "context_estimate" in found else [])


def _context(found: dict) -> list[str]:
    estimate, tokens = found["context_estimate"], found["tokens_per_frame"]
    budget = estimate["budget"]
    token = "one latent frame" if tokens == 1 else f"one of the {tokens} latent vectors of a frame"
    return [
        f"  generation    {estimate['seconds']:.0f} s in a sequence of {estimate['tokens']:.0f} tokens, "
        f"{estimate['over_dac']:.2f} x the {estimate['dac_seconds']:.0f} s of DAC at 44.1 kHz",
        f"                an estimate from a memory budget, not a measurement: {budget['memory'] / 2**30:g} GiB, "
        f"{budget['activation_share']:.0%} for activations,",
        f"                batch {budget['batch_size']}, {budget['bytes_per_scalar']} bytes per scalar, "
        f"{budget['scalars_per_token']} scalars per token; a token is {token}, including its codes",
    ]


def _vectors(found: dict) -> str:
    return "" if found["tokens_per_frame"] == 1 else f"{found['tokens_per_frame']} x "


def _cost(found: dict, name: str) -> str:
    if name not in (found["macs_per_second"] or {}):
        return ""
    macs, activations = found["macs_per_second"][name], found["activations_per_second"][name]
    return f"{macs / 1e9:9.3f} GMAC {activations / 1e6:8.2f} M activations per second of audio"


def _codes(found: dict) -> str:
    if not found["codebook_sizes"]:
        return "none (continuous)"
    return f"{len(found['codebook_sizes'])} levels, {found['bit_rate']:.0f} bit/s"
