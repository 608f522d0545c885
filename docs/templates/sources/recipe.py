"""GenAE for tests on a CPU, with tanh-bounded latents."""

from dataclasses import replace

from partita.recipes.genae import genae_tiny
from partita.training import RunConfig
from partita_bottlenecks import TanhConfig


def newcomer() -> RunConfig:
    """`genae_tiny` with tanh-bounded latents: 2.8 M parameters.

    Data, objective and trainer are those of `genae_tiny`.
    """
    tiny = genae_tiny()
    return replace(tiny, model=replace(tiny.model, bottleneck=TanhConfig()))
