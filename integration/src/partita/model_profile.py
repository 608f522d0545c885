"""Profile of a model, from its modules alone: rates, parameters, cost, and the context it leaves a language model."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from partita_core import Autoencoder, Codec, Config, DenoisingDecoder, Encoder
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

# Long enough that what happens at the ends does not count.
_SECONDS, _CHUNKS = 10, 16
# Frames per second of the Descript Audio Codec at 44.1 kHz, a baseline of GenAE.
DAC_FRAME_RATE = 44_100 / 512


def profile(model: Codec, *, minute: float = 60.0) -> dict[str, Any]:
    """Sample rate, frames, rates, parameters and cost of a model.

    The cost is that of one second of audio in all its channels, for autoencoders only; see `Cost`. Fourier transforms
    and element-wise work are not counted.
    """
    costs = costs_per_second(model) if isinstance(model, Autoencoder) else None
    audio, latents = model.audio_spec, model.latent_spec
    parts = {name: part for name, part in model.named_children() if isinstance(part, nn.Module)}
    return {
        "sample_rate": audio.sample_rate,
        "channels": audio.channels,
        "layouts": [layout.name.lower() for layout in audio.layouts],
        "hop": latents.hop,
        "frame_rate": float(latents.frame_rate),
        "latent_dim": latents.dim,
        "tokens_per_frame": latents.tokens_per_frame,
        "frames_60s": latents.frames(math.ceil(minute * audio.sample_rate)),
        "floats_per_second": latents.floats_per_second,
        "codebook_sizes": list(latents.codebook_sizes),
        "bit_rate": latents.bit_rate,
        "encode_context": list(model.encode_context),
        "decode_context": list(model.decode_context),
        "parts": {
            name: config.tag
            for name, part in parts.items()
            if isinstance(config := getattr(part, "config", None), Config)
        },
        "parameters": {name: count_parameters(part) for name, part in parts.items()}
        | {"total": count_parameters(model)},
        "macs_per_second": costs and {name: amount.macs for name, amount in costs.items()},
        "activations_per_second": costs and {name: amount.activations for name, amount in costs.items()},
    }


def count_parameters(module: nn.Module) -> int:
    """Numbers in a module that can be trained; weight norm's lengths are counted with the weights they scale."""
    return sum(parameter.numel() for parameter in module.parameters())


class Cost(NamedTuple):
    """What a module does with its input.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
        activations: numbers that these put out, which have to go through memory.
    """

    macs: float
    activations: float

    def __truediv__(self, seconds: float) -> "Cost":
        """The cost for a second."""
        return Cost(self.macs / seconds, self.activations / seconds)


def cost(part: Callable[..., Any], *arguments: Any) -> tuple[Any, Cost]:
    """What `part` returns for the arguments, and its cost; shapes decide it, so fake tensors serve."""
    outputs = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(flop_registry, _numbers_out))
    with FlopCounterMode(display=False) as flops, outputs, torch.no_grad():
        result = part(*arguments)
    return result, Cost(flops.get_total_flops() / 2, outputs.get_total_flops())


def encoder_cost(encoder: Encoder) -> Cost:
    """The cost of an encoder for a second of audio in all its channels."""
    audio, layout, seconds = _silence(encoder)
    return cost(encoder, audio, layout)[1] / seconds


def costs_per_second(model: Autoencoder) -> dict[str, Cost]:
    """The cost of each part for a second of audio, and of all; see `profile`.

    A decoder that denoises is run by its own sampler, chunk by chunk, so a few of these are enough.
    """
    decoder = model.decoder
    chunks = _CHUNKS * decoder.frames_per_chunk * decoder.hop if isinstance(decoder, DenoisingDecoder) else None
    audio, layout, seconds = _silence(model.encoder, chunks)
    costs: dict[str, Cost] = {}

    def count(name: str, part: Callable[..., Any], *arguments: Any) -> Any:
        result, whole = cost(part, *arguments)
        costs[name] = whole / seconds
        return result

    was_training = model.training
    model.eval()
    values = count("bottleneck", model.bottleneck, count("encoder", model.encoder, audio, layout)).values
    if model.quantizer is not None:
        count("quantizer", model.quantizer, values)
    seeds: Any = [0]  # a plain number: fake tensors hold none to seed noise with
    decode = partial(decoder.generate, seeds=seeds)
    count("decoder", decode, model.bottleneck.expand(values), layout)
    model.train(was_training)
    macs, activations = (sum(amounts) for amounts in zip(*costs.values()))
    return costs | {"total": Cost(macs, activations)}


def _silence(encoder: Encoder, most: int | None = None) -> tuple[Tensor, Tensor, float]:
    """Audio of `most` samples at most and its layout, as the encoder takes them, and the seconds that they last."""
    spec = encoder.audio_spec
    samples = -(-_SECONDS * spec.sample_rate // encoder.hop) * encoder.hop
    samples = samples if most is None else min(samples, most)
    device = next(encoder.parameters()).device
    layout = torch.tensor([int(spec.layouts[0])], device=device)
    return torch.zeros(1, spec.channels, samples, device=device), layout, samples / spec.sample_rate


def _numbers_out(*_: Any, out_shape: Any, **__: Any) -> int:
    # Attention kernels return more than their result, which comes first.
    return math.prod(out_shape if isinstance(out_shape, torch.Size) else out_shape[0])


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
