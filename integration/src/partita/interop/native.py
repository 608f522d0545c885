"""Conversion of diffusers' AutoencoderOobleck (Stable Audio Open) to a native, trainable `Autoencoder`."""

from typing import Any

from partita_bottlenecks import VAEConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import OobleckDecoderConfig
from partita_encoders import OobleckEncoderConfig
from torch import Tensor, nn


def oobleck_from_diffusers(model: nn.Module) -> Autoencoder:
    """Convert diffusers' `AutoencoderOobleck` to `encoder/oobleck`, `bottleneck/vae` and `decoder/oobleck`.

    The result gives the same latents and audio, and can be trained, saved and taken apart like any `Autoencoder`. (For
    odd strides diffusers' audio is some samples shorter at its end.)

    Args:
        model: diffusers' `AutoencoderOobleck`.

    Returns:
        The autoencoder in eval mode, with the dtype and on the device of `model`.

    Raises:
        PartitaError: the encoder does not have a mean and a scale per latent channel.
    """
    config: Any = model.config
    width, dim = config.encoder_hidden_size, config.decoder_input_channels
    if width != 2 * dim:
        raise PartitaError(
            f"the encoder of this AutoencoderOobleck has {width} output channels; {dim} latent channels need {2 * dim}"
        )
    stereo = config.audio_channels == 2
    layout = ChannelLayout.STEREO if stereo else ChannelLayout.MONO
    multiples = (1, *config.channel_multiples)
    strides = tuple(config.downsampling_ratios)
    ours = AutoencoderConfig(
        AudioSpec(config.sampling_rate, config.audio_channels, (layout,)),
        dim,
        OobleckEncoderConfig(strides=strides, channels=tuple(width * multiple for multiple in multiples)),
        VAEConfig(),
        OobleckDecoderConfig(
            strides=strides[::-1], channels=tuple(config.decoder_channels * multiple for multiple in multiples[::-1])
        ),
    ).build()
    weights = model.state_dict()
    for name, part, change in (("encoder", ours.encoder, "down"), ("decoder", ours.decoder, "up")):
        mine = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        part.load_state_dict(dict(_translate(key, value, change) for key, value in mine.items()))
    return ours.to(next(model.parameters())).eval()


_UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
_WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


def _translate(key: str, value: Tensor, change: str) -> tuple[str, Tensor]:
    """Native name and value of a weight; `change` is the native name of the resampling layers of a stage."""
    *path, leaf = key.split(".")
    match path:
        case ["conv1"]:
            layer_name = "stem"
        case ["snake1"]:
            layer_name = "head.0"
        case ["conv2"]:
            layer_name = "head.1"
        case ["block", stage, "snake1"]:
            layer_name = f"stages.{stage}.{change}.0"
        case ["block", stage, "conv1" | "conv_t1"]:
            layer_name = f"stages.{stage}.{change}.1"
        case ["block", stage, unit, layer]:
            layer_name = f"stages.{stage}.units.{int(unit.removeprefix('res_unit')) - 1}.layers.{_UNIT[layer]}"
        case _:
            raise PartitaError(f"{key!r} is not a weight of an Oobleck autoencoder")
    if leaf in ("alpha", "beta"):  # diffusers stores logarithms too
        return f"{layer_name}.log_{leaf}", value[0]
    return f"{layer_name}.{_WEIGHT_NORM.get(leaf, leaf)}", value
