"""Base class and constants of the dummies."""

from typing import Self

from partita_core.registry import Config

HOP = 16


class Tiny(Config):
    """A Config whose defaults are tiny."""

    @classmethod
    def example(cls) -> Self:
        """Return the defaults."""
        return cls()
