"""Profile of a model: latent rates, parameters, compute cost, and the context length of a language model on it."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from partita_core import Autoencoder, Codec, Config, DenoisingDecoder, Encoder
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

# Duration of profiled audio in seconds and chunks, long enough that the ends do not matter.
_SECONDS, _CHUNKS = 10, 16
# Frames per second of the Descript Audio Codec at 44.1 kHz, a baseline of GenAE.
DAC_FRAME_RATE = 44_100 / 512


def profile(model: Codec, *, minute: float = 60.0) -> dict[str, Any]:
    """Profile a model: sample rate, frames, rates, parameters and cost.

    The cost is per second of audio with all its channels, and for autoencoders only; see `Cost`. Fourier transforms and
    element-wise operations are not counted.

    Args:
        model: codec to profile.
        minute: seconds of audio for the entry `frames_60s`.
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
    """Number of parameters of a module, including the lengths of weight normalization."""
    return sum(parameter.numel() for parameter in module.parameters())


class Cost(NamedTuple):
    """Compute cost of a module.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
        activations: output elements of these operations, which pass through memory.
    """

    macs: float
    activations: float

    def __truediv__(self, seconds: float) -> "Cost":
        """Cost per second."""
        return Cost(self.macs / seconds, self.activations / seconds)


def cost(part: Callable[..., Any], *arguments: Any) -> tuple[Any, Cost]:
    """Call `part`, and return its result and cost; only shapes matter, so fake tensors are sufficient."""
    outputs = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(flop_registry, _numbers_out))
    with FlopCounterMode(display=False) as flops, outputs, torch.no_grad():
        result = part(*arguments)
    return result, Cost(flops.get_total_flops() / 2, outputs.get_total_flops())


def encoder_cost(encoder: Encoder) -> Cost:
    """Cost of an encoder per second of audio with all its channels."""
    audio, layout, seconds = _silence(encoder)
    return cost(encoder, audio, layout)[1] / seconds


def costs_per_second(model: Autoencoder) -> dict[str, Cost]:
    """Cost of each part per second of audio, and in total; see `profile`.

    A denoising decoder is run with its default sampler, on a few chunks.
    """
    decoder = model.decoder
    chunks = _CHUNKS * decoder.frames_per_chunk * decoder.hop if isinstance(decoder, DenoisingDecoder) else None
    audio, layout, seconds = _silence(model.encoder, chunks)
    costs: dict[str, Cost] = {}

    def count(name: str, part: Callable[..., Any], *arguments: Any) -> Any:
        result, amount = cost(part, *arguments)
        costs[name] = amount / seconds
        return result

    was_training = model.training
    model.eval()
    values = count("bottleneck", model.bottleneck, count("encoder", model.encoder, audio, layout)).values
    if model.quantizer is not None:
        count("quantizer", model.quantizer, values)
    seeds: Any = [0]  # a plain number, because fake tensors have no values
    decode = partial(decoder.generate, seeds=seeds)
    count("decoder", decode, model.bottleneck.expand(values), layout)
    model.train(was_training)
    macs, activations = (sum(amounts) for amounts in zip(*costs.values()))
    return costs | {"total": Cost(macs, activations)}


def _silence(encoder: Encoder, max_samples: int | None = None) -> tuple[Tensor, Tensor, float]:
    """Silent audio of at most `max_samples` samples for an encoder, its layout, and its duration in seconds."""
    spec = encoder.audio_spec
    samples = -(-_SECONDS * spec.sample_rate // encoder.hop) * encoder.hop
    samples = samples if max_samples is None else min(samples, max_samples)
    device = next(encoder.parameters()).device
    layout = torch.tensor([int(spec.layouts[0])], device=device)
    return torch.zeros(1, spec.channels, samples, device=device), layout, samples / spec.sample_rate


def _numbers_out(*_: Any, out_shape: Any, **__: Any) -> int:
    # Attention kernels return several tensors; the result is the first.
    return math.prod(out_shape if isinstance(out_shape, torch.Size) else out_shape[0])


@dataclass(frozen=True)
class ContextBudget:
    """Memory budget of a language model in training; the defaults reproduce the values reported for GenAE.

    An estimate, not a measurement: no model is run. The activations per token were solved for from the 832 s at
    13.125 Hz that a reader of arXiv 2602.15749 reports; they equal 24 layers that keep 8 tensors of width 1024.

    Attributes:
        memory: GPU memory in bytes; 40 GiB.
        activation_share: share of the memory for activations.
        batch_size: sequences per batch.
        bytes_per_scalar: bytes per activation; 2 for bfloat16.
        scalars_per_token: activations stored per token.
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
        token_rate: tokens per second. A token is one latent vector with all its codes: frames per second times tokens
            per frame.
        budget: memory budget; None for the defaults.
    """
    return (budget or ContextBudget()).tokens / token_rate


def context_estimate(token_rate: float) -> dict[str, Any]:
    """Return `context_seconds` with the default budget, next to DAC's, and the budget, as plain values for JSON."""
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
