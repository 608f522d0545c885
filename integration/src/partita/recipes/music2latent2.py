"""Recipes for Music2Latent2 (arXiv 2501.17578) and its successor CoDiCodec (arXiv 2509.09836).

They are for stereo. A mono model is one override:
`model.audio={"sample_rate":44100,"channels":1,"layouts":["mono"]}`.

The base recipes are as published, as far as known; docs/provenance.md lists the rest. The small and tiny ones contain
changes of ours for short runs.
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
# Four chunks are three pairs; in crops of two, every chunk would be the first or the last, as few in a file are.
_CROP_SECONDS = 4 * _CHUNK / 44_100
# Eight crops of three pairs are 24 pairs, and can be shared by 1, 2, 4 or 8 processes.
_CROPS = 8
# Audio without changes; a mono model is trained on a random channel of a stereo file, as Music2Latent is.
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
    """Music2Latent2 at full size: 44.1 kHz stereo, 8 x 64 values for 32768 samples, 128x, 147 M parameters.

    Sizes are those of CoDiCodec, and training is that of Music2Latent (arXiv 2408.06500), because neither is published
    for Music2Latent2. Batches are 24 pairs of chunks instead of 16. The plain tanh is known to saturate in stereo; the
    overrides `model.bottleneck.gain=0.5 model.encoder.norm_decay=0.99`, which are ours, prevent it.
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
    """Music2Latent2 with 25 M parameters for a single GPU: half the widths and the depth of the base recipe.

    Ours are measures against saturation (batch norm of the latents, RMS norm before the tanh), a limit on the weight of
    small steps, and augmentation of level, polarity and channels.
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
    """CoDiCodec at full size: 44.1 kHz stereo, 128 x 4 values or codes of 11^4 for 32768 samples, 147 M parameters.

    Sizes are those of the published code, which has 148.5 M; a run at 48 kHz is one override,
    `model.audio.sample_rate=48000`. The quantizer is attached after the bottleneck and leaves three of four items
    unrounded in training (FSQ-dropout), so one model has both latents and codes. Half of the crops are mixed with
    another crop. Batches are 24 pairs of chunks instead of 20.
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
    """Music2Latent2 with 6 M parameters that trains on one CPU core in an hour.

    For audio at half the rate, 22.05 kHz: a chunk has the duration and the latents of the base recipe, a compression of
    64x, and a quarter of its spectrogram. High frequencies are amplified to have the weight of low ones; the decoder
    predicts a spectral envelope directly from the latents, and position-dependent matrices bypass attention on the way
    to and from the latents. Changes for short runs: the first 60 % of the steps train the envelope alone, which takes
    half the time; a quarter of the noise levels are drawn uniformly in time; large levels, at which the latents are the
    only information, have more weight; and distances are pointwise, so that the noise floor does not rise to the mean
    power of what the latents leave undetermined.
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
        # One pair of chunks per recording: batch norm removes what all items of a batch share.
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
    """CoDiCodec with 6 M parameters, 22.05 kHz: 128 x 4 values for 16384 samples, or 128 codes of 11^4, 2.38 kbit/s.

    The quantizer is attached after the bottleneck and leaves three of four items unrounded in training, so one model
    has both: latents keep their values, with codes in addition. The RMS of a token is not normalized, which would
    remove one of its four dimensions. For vectors of 64 values, see `partita_core.regroup`.
    """
    sizes: dict[str, Any] = _TINY | {"companding": "component", "registers": 8}
    # One channel per position: for 128 tokens, the matrix is as large as for 8 tokens and 16 channels.
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
