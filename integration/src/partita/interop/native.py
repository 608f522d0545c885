"""Stable Audio Open's autoencoder as one of ours: the same layers, so the same weights, and free to be trained on."""

from typing import Any

from partita_bottlenecks import VAEConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import OobleckDecoderConfig
from partita_encoders import OobleckEncoderConfig
from torch import Tensor, nn


def oobleck_from_diffusers(model: nn.Module) -> Autoencoder:
    """An `Autoencoder` of `encoder/oobleck`, `bottleneck/vae` and `decoder/oobleck` with the weights of another.

    It makes the same latents and the same audio, and can be trained, saved and taken apart like any other. (For odd
    strides diffusers' audio is some samples shorter at its end.)

    Args:
        model: diffusers' `AutoencoderOobleck`, built or loaded there.

    Returns:
        The model in eval mode, with the dtype and on the device of the other.

    Raises:
        PartitaError: its encoder does not make a mean and a scale for each latent channel.
    """
    config: Any = model.config
    width, dim = config.encoder_hidden_size, config.decoder_input_channels
    if width != 2 * dim:
        raise PartitaError(
            f"the encoder makes {width} channels, {dim} latent channels need {2 * dim}: "
            "this AutoencoderOobleck cannot decode what it encodes"
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
    """Name and value of a weight with us; `change` is our name of what changes the rate in a stage."""
    *path, leaf = key.split(".")
    match path:
        case ["conv1"]:
            place = "stem"
        case ["snake1"]:
            place = "head.0"
        case ["conv2"]:
            place = "head.1"
        case ["block", stage, "snake1"]:
            place = f"stages.{stage}.{change}.0"
        case ["block", stage, "conv1" | "conv_t1"]:
            place = f"stages.{stage}.{change}.1"
        case ["block", stage, unit, layer]:
            place = f"stages.{stage}.units.{int(unit.removeprefix('res_unit')) - 1}.layers.{_UNIT[layer]}"
        case _:
            raise PartitaError(f"{key!r} is no weight of an Oobleck autoencoder")
    if leaf in ("alpha", "beta"):  # logarithms there as here
        return f"{place}.log_{leaf}", value[0]
    return f"{place}.{_WEIGHT_NORM.get(leaf, leaf)}", value
