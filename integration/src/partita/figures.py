"""What a person choosing a model wants to know of it, from the real modules, without training or audio."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from partita_core import Autoencoder, Codec, Config, DenoisingDecoder, Encoder
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from partita.evaluation import bit_rate, numbers_per_second

if TYPE_CHECKING:
    from partita.training import RunConfig

# Long enough that what happens at the ends does not count.
_SECONDS, _CHUNKS = 10, 16


def figures(model: Codec, *, minute: float = 60.0) -> dict[str, Any]:
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
        "numbers_per_second": numbers_per_second(latents),
        "codebook_sizes": list(latents.codebook_sizes),
        "bit_rate": bit_rate(latents),
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
    """The cost of each part for a second of audio, and of all; see `figures`.

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


def recipe_figures(config: "RunConfig") -> dict[str, Any]:
    """The figures of a model that is built of shapes alone: at once, and without its memory, whatever its size.

    Raises:
        PartitaError: the parts, the layouts and the objective do not go together.
    """
    with FakeTensorMode():
        model = config.model.build()
        found = figures(model)
    config.objective.build(model=model)  # what shapes alone cannot build, such as filter banks, is small
    if config.data.augmentation is not None:
        config.data.augmentation.formats(model.audio_spec.layouts)
    return found


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
