"""Default values of the settings of all components, as users rely on them."""

import json
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import partita.recipes  # noqa: F401  (registers what the umbrella package defines)
import pytest
from partita_core import Config, components, to_dict

STORED = Path(__file__).with_name("defaults.json")


def plain(value: Any) -> Any:
    """A default value as JSON."""
    if isinstance(value, Config):
        return to_dict(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def default(field: Field[Any]) -> Any:
    """Default value of a field; MISSING if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def test_defaults_are_those_that_are_stored():
    """If a default changes on purpose, delete the file and run the test again."""
    found = {
        tag: {field.name: plain(value) for field in fields(cls) if (value := default(field)) is not MISSING}
        for tag, cls in components().items()
        if cls.__module__.startswith("partita")
    }
    if not STORED.exists():
        STORED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        pytest.fail(f"{STORED.name} was missing and has been written")
    assert json.loads(json.dumps(found)) == json.loads(STORED.read_text(encoding="utf-8"))
