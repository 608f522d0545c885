"""Recipes for Music2Latent2 (arXiv 2501.17578) and its successor CoDiCodec (arXiv 2509.09836).

They are for stereo. A mono model comes of one override:
`model.audio={"sample_rate":44100,"channels":1,"layouts":["mono"]}`.

The base recipes are as published, as far as is known; docs/provenance.md lists what is not. The small and tiny ones add
changes of ours that make short runs learn.
"""

from dataclasses import replace
from typing import Any

from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, Config
from partita_decoders import ConsistencyDecoderConfig, Parallel
from partita_encoders import SummaryEncoderConfig
from partita_quantizers import FSQConfig

from partita.data import Augmentation, DataConfig
from partita.objectives import ConsistencyTrainingConfig
from partita.training import AdamWConfig, Cosine, RAdamConfig, RunConfig, TrainerConfig

_AUDIO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))
_CHUNK = 32_768
_HALF = AudioSpec(22_050, 2, (ChannelLayout.STEREO,))
# Four chunks are three pairs; with two, every chunk would begin or end its crop, as few do in a file.
_CROP_SECONDS = 4 * _CHUNK / 44_100
# Three pairs per crop make 24 pairs, and 1, 2, 4 or 8 processes share eight crops evenly.
_CROPS = 8
# Audio as it is; a mono model takes one channel of a stereo file at random, as Music2Latent does.
_PLAIN = Augmentation(
    stereo=1.0,
    mid_side=0.0,
    mono_average=0.0,
    mono_channel=1.0,
    pseudo_stereo=0.0,
    swap=0.0,
    switch_target=0.0,
    flip=0.0,
    level_db=None,
)


def music2latent2_base() -> RunConfig:
    """Music2Latent2 at full size: 44.1 kHz stereo, 8 x 64 numbers for 32768 samples, 128x, 147 M parameters.

    Sizes are those of CoDiCodec and training is that of Music2Latent (arXiv 2408.06500), since neither is published of
    Music2Latent2. Batches are 24 pairs of chunks, for 16 there. The plain tanh is known to saturate in stereo;
    `model.bottleneck.gain=0.5 model.encoder.norm_decay=0.99` guard against it, and are ours.
    """
    return RunConfig(
        model=AutoencoderConfig(
            _AUDIO, 64, SummaryEncoderConfig(norm_decay=None), TanhConfig(gain=None), ConsistencyDecoderConfig()
        ),
        objective=ConsistencyTrainingConfig(min_gap=0.0),
        data=DataConfig(crop_seconds=_CROP_SECONDS, batch_size=_CROPS, num_workers=8, augmentation=_PLAIN),
        trainer=TrainerConfig(
            steps=800_000,
            optimizers={"generator": _radam(lr=1e-4, warmup_steps=10_000)},
            precision="bf16",
            log_every=100,
            evaluate_every=10_000,
            statistics_seconds=1800.0,
        ),
    )


def music2latent2_small() -> RunConfig:
    """Music2Latent2 of 25 M parameters for a single GPU: widths and depth are half of the base's.

    It adds guards of ours against saturation (batch norm of the latents, RMS norm before the tanh), a limit on the
    weight of small steps, and variations of level, polarity and channels.
    """
    sizes: dict[str, Any] = {"channels": (32, 64, 128, 256), "head_dim": 64}
    encoder = SummaryEncoderConfig(**sizes, layers=6)
    decoder = ConsistencyDecoderConfig(**sizes, upsampler_layers=6, layers=6, condition_dim=256)
    base = music2latent2_base()
    return replace(
        base,
        model=AutoencoderConfig(_AUDIO, 64, encoder, TanhConfig(), decoder),
        objective=ConsistencyTrainingConfig(),
        data=replace(base.data, augmentation=Augmentation()),
        trainer=replace(base.trainer, steps=400_000),
    )


def codicodec_base() -> RunConfig:
    """CoDiCodec at full size: 44.1 kHz stereo, 128 x 4 numbers or codes of 11^4 for 32768 samples, 147 M parameters.

    Sizes are those of the published code, of which 148.5 M are counted; a run at 48 kHz is one override,
    `model.audio.sample_rate=48000`. The quantizer stands beside the bottleneck and leaves three items in four unrounded
    in training (FSQ-dropout), so one model makes latents and codes. Half of the crops are mixed with another. Batches
    are 24 pairs of chunks, for 20 there.
    """
    sizes: dict[str, Any] = {
        "stft_hop": 1024,
        "chunk_frames": 32,
        "companding": "component",
        "strides": ((2, 2), (4, 1), (2, 2)),
        "registers": 8,
    }
    encoder = SummaryEncoderConfig(**sizes, tokens_per_frame=128, norm_decay=None, zero_init=True, out_std=0.0)
    decoder = ConsistencyDecoderConfig(**sizes, latents_in_decoder=True, sampler=Parallel())
    base = music2latent2_base()
    return replace(
        base,
        model=AutoencoderConfig(_AUDIO, 4, encoder, TanhConfig(gain=None), decoder, _fsq()),
        objective=ConsistencyTrainingConfig(min_gap=0.0, step_exponent=2.0),
        data=replace(base.data, augmentation=replace(_PLAIN, mix=0.5)),
        trainer=replace(base.trainer, steps=2_000_000),
    )


def music2latent2_tiny() -> RunConfig:
    """Music2Latent2 of 6 M parameters that trains on one CPU core in an hour.

    Of audio at half the rate, 22.05 kHz: a chunk lasts as long as the base's and has as many latents, so that 64 times
    fewer numbers stand for it. Its spectrogram has a quarter of the points. High frequencies are raised, so that they
    weigh as much as low ones; the latents tell a spectral envelope directly, and one matrix beside attention takes to
    the latents, and from them, what is said of single places. What differs in training is for short runs: three steps
    in five learn the envelope alone, which takes half the time of the others; a quarter of the noise levels are drawn
    evenly over all times; large levels, where the latents are all there is to go by, weigh more; and distances are
    taken point by point, so that the noise is not raised to the mean power of what the latents leave open.
    """
    encoder = SummaryEncoderConfig(**_TINY, layers=2, magnitudes=True, norm_decay=0.95)
    decoder = ConsistencyDecoderConfig(**_TINY, upsampler_layers=2, layers=2, condition_dim=128, envelope_weight=50.0)
    return RunConfig(
        model=AutoencoderConfig(_HALF, 64, encoder, TanhConfig(), decoder),
        objective=ConsistencyTrainingConfig(
            step_exponent=1.0,
            uniform_share=0.25,
            conditioning_start=0.6,
            offset=0.1,
            pointwise=True,
            min_gap=1.0,
            max_gap=1.0,
        ),
        # Pairs of chunks of several recordings: a batch norm learns nothing of what all its items share.
        data=DataConfig(crop_seconds=_CROP_SECONDS / 2, batch_size=4, num_workers=1),
        trainer=TrainerConfig(
            steps=2000,
            optimizers={
                "generator": AdamWConfig(
                    lr=7e-4, betas=(0.9, 0.99), weight_decay=0.0, schedule=Cosine(warmup_steps=50, final=0.01)
                )
            },
            ema_decay=0.995,
        ),
    )


def codicodec_tiny() -> RunConfig:
    """CoDiCodec of 6 M parameters, 22.05 kHz: 128 x 4 numbers for 16384 samples, or as many codes of 11^4, 2.38 kbit/s.

    The quantizer stands beside the bottleneck and leaves three items in four unrounded in training, so one model
    serves both: latents keep their values, and codes come with them. A token has four numbers, of which the tanh is to
    keep all, so their RMS is not normalized. For vectors of 64 numbers, see `partita_core.regroup`.
    """
    sizes: dict[str, Any] = _TINY | {"companding": "component", "registers": 8}
    # One channel a place for so many tokens: the matrix is as large as that for 8 tokens and 16 channels.
    narrow: dict[str, Any] = sizes | {"direct": 1}
    encoder = SummaryEncoderConfig(**narrow, layers=2, tokens_per_frame=128, magnitudes=True, norm_decay=0.95)
    decoder = ConsistencyDecoderConfig(**sizes, upsampler_layers=2, layers=2, condition_dim=128, envelope_weight=50.0)
    bottleneck = TanhConfig(gain=None, hinge_weight=1e-3)
    return replace(music2latent2_tiny(), model=AutoencoderConfig(_HALF, 4, encoder, bottleneck, decoder, _fsq()))


_TINY: dict[str, Any] = {
    "n_fft": 1024,
    "stft_hop": 512,
    "chunk_frames": 32,
    "tilt": 6.0,
    "companding_scale": 0.17,
    "channels": (8, 32, 64, 128),
    "blocks": (1, 1, 1, 1),
    "heads": 2,
    "head_dim": 64,
    "direct": 16,
}


def _fsq() -> Config:
    return FSQConfig(bound="clamp", rounding_dropout=0.75)


def _radam(*, lr: float, warmup_steps: int) -> RAdamConfig:
    return RAdamConfig(lr=lr, betas=(0.9, 0.999), weight_decay=0.0, schedule=Cosine(warmup_steps, final=0.01), clip=1.0)
