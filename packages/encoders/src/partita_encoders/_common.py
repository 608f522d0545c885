"""Setting types shared by the encoders."""

from typing import Literal

ActivationName = Literal["snake_lite", "snake", "snake_beta", "elu"]
"""Names in `partita_blocks.ACTIVATIONS`."""
