"""How much audio a language model or a diffusion model sees at once: an estimate from a budget of memory."""

from dataclasses import asdict, dataclass
from typing import Any

# Frames per second of the Descript Audio Codec at 44.1 kHz, a baseline of GenAE.
DAC_FRAME_RATE = 44_100 / 512


@dataclass(frozen=True)
class ContextBudget:
    """The conditions under which contexts are compared; the defaults give the values reported of GenAE.

    They are an account of memory, not a measurement: no model is run. The activations per token were found by solving
    for the 832 s at 13.125 Hz that a reader of arXiv 2602.15749 reports; they are those of 24 layers that keep 8
    tensors of width 1024.

    Attributes:
        memory: bytes of the card; 40 GiB.
        activation_share: of the memory, what is left for activations.
        batch_size: sequences in a batch.
        bytes_per_scalar: 2 in bfloat16.
        scalars_per_token: activations kept for a token.
    """

    memory: int = 40 * 2**30
    activation_share: float = 0.8
    batch_size: int = 8
    bytes_per_scalar: int = 2
    scalars_per_token: int = 24 * 8 * 1024

    @property
    def tokens(self) -> float:
        """Tokens that fit in one sequence."""
        token = self.batch_size * self.bytes_per_scalar * self.scalars_per_token
        return self.memory * self.activation_share / token


def context_seconds(token_rate: float, budget: ContextBudget | None = None) -> float:
    """Seconds of audio that fit in one sequence.

    Args:
        token_rate: tokens a second. A token is one latent vector, with all its codes if it has any: frames a second,
            times the tokens a frame of a model whose frames are sets.
        budget: the conditions; None for the defaults.
    """
    return (budget or ContextBudget()).tokens / token_rate


def context_estimate(token_rate: float) -> dict[str, Any]:
    """`context_seconds` under the default conditions, beside DAC's, and the conditions; all that JSON can hold."""
    budget = ContextBudget()
    seconds, dac_seconds = context_seconds(token_rate, budget), context_seconds(DAC_FRAME_RATE, budget)
    return {
        "seconds": seconds,
        "tokens": budget.tokens,
        "tokens_per_second": token_rate,
        "dac_seconds": dac_seconds,
        "over_dac": seconds / dac_seconds,
        "budget": asdict(budget),
    }
