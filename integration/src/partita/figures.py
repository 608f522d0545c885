"""What a person choosing a model wants to know of it, from the real modules, without training or audio."""

import math
from typing import Any

import torch
from partita_core import Autoencoder, AutoencoderConfig, Codec, Encoder, LatentSpec
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from partita.evaluation import bit_rate, numbers_per_second

# Long enough that what happens at the ends does not count.
_SECONDS = 10


def figures(model: Codec, *, minute: float = 60.0) -> dict[str, Any]:
    """Sample rate, frames, rates, parameters and cost of a model.

    Multiply-accumulates are those of convolutions and matrix products for one second of audio in all its channels;
    Fourier transforms and element-wise work are not counted. They are there for autoencoders only.
    """
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
        "parameters": {name: count_parameters(part) for name, part in parts.items()}
        | {"total": count_parameters(model)},
        "macs_per_second": macs_per_second(model) if isinstance(model, Autoencoder) else None,
    }


def count_parameters(module: nn.Module) -> int:
    """Numbers in a module that can be trained; weight norm's lengths are counted with the weights they scale."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs_per_second(model: Autoencoder) -> dict[str, float]:
    """Multiply-accumulates for a second of audio, by part; see `figures`."""
    spec: LatentSpec = model.latent_spec
    frames = spec.frames(_SECONDS * spec.sample_rate)
    seconds = frames * spec.hop / spec.sample_rate
    device = next(model.parameters()).device
    audio = torch.zeros(1, model.audio_spec.channels, frames * spec.hop, device=device)
    layout = torch.tensor([int(model.audio_spec.layouts[0])], device=device)
    counts: dict[str, float] = {}

    def count(name: str, part: nn.Module, *arguments: Any) -> Any:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            result = part(*arguments)
        counts[name] = counter.get_total_flops() / 2 / seconds
        return result

    was_training = model.training
    model.eval()
    encoder: Encoder = model.encoder
    output = count("encoder", encoder, audio, layout)
    values = count("bottleneck", model.bottleneck, output).values
    if model.quantizer is not None:
        count("quantizer", model.quantizer, values)
    count("decoder", model.decoder, model.bottleneck.expand(values), layout)
    model.train(was_training)
    return counts | {"total": sum(counts.values())}


def recipe_figures(config: AutoencoderConfig) -> dict[str, Any]:
    """The figures of a model that is built of shapes alone: at once, and without its memory, whatever its size."""
    with FakeTensorMode():
        return figures(config.build())
