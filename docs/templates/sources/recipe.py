"""GenAE for tests on a CPU, with tanh-bounded latents."""

from partita.recipes.genae import genae_tiny
from partita.training import RunConfig
from partita_core import override


def newcomer() -> RunConfig:
    """`genae_tiny` with latents bounded by tanh: 2.8 M parameters.

    Data, objective and trainer are those of `genae_tiny`.
    """
    return override(genae_tiny(), ["model.bottleneck=tanh"])
