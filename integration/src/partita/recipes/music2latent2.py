"""Recipes for Music2Latent2 (arXiv 2501.17578) and its successor CoDiCodec (arXiv 2509.09836).

They are for stereo. A mono model comes of one override:
`model.audio={"sample_rate":44100,"channels":1,"layouts":["mono"]}`.
"""

from dataclasses import replace
from typing import Any

from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import ConsistencyDecoderConfig
from partita_encoders import SummaryEncoderConfig
from partita_quantizers import FSQConfig

from partita.data import DataConfig
from partita.training import ConsistencyTrainingConfig, OptimizerConfig, RunConfig, TrainerConfig

_AUDIO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))
_CHUNK = 32_768
_HALF = AudioSpec(22_050, 2, (ChannelLayout.STEREO,))
# Four chunks are three pairs; with two, every chunk would begin or end its crop, as few do in a file.
_CROP_SECONDS = 4 * _CHUNK / 44_100


def music2latent2_base() -> RunConfig:
    """Music2Latent2 at the paper's scale: 44.1 kHz stereo, 8 x 64 numbers for 32768 samples, 128x, 155 M parameters.

    With the training of Music2Latent (arXiv 2408.06500) where the paper is silent, and batches of 18 pairs of chunks.
    """
    return RunConfig(
        model=AutoencoderConfig(_AUDIO, 64, SummaryEncoderConfig(), TanhConfig(), ConsistencyDecoderConfig()),
        objective=ConsistencyTrainingConfig(),
        data=DataConfig(crop_seconds=_CROP_SECONDS, batch_size=6, num_workers=8),
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
    """Music2Latent2 of 25 M parameters for a single GPU: widths and depth are halved, all else as in the base."""
    sizes: dict[str, Any] = {"channels": (32, 64, 128, 256), "head_dim": 64}
    encoder = SummaryEncoderConfig(**sizes, layers=6)
    decoder = ConsistencyDecoderConfig(**sizes, upsampler_layers=6, layers=6, condition_dim=256)
    base = music2latent2_base()
    return replace(
        base,
        model=AutoencoderConfig(_AUDIO, 64, encoder, TanhConfig(), decoder),
        trainer=replace(base.trainer, steps=400_000),
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
                "generator": OptimizerConfig(
                    lr=7e-4, betas=(0.9, 0.99), weight_decay=0.0, schedule="cosine", warmup_steps=50, final=0.01
                )
            },
            ema_decay=0.995,
        ),
    )


def codicodec_tiny() -> RunConfig:
    """CoDiCodec of 6 M parameters, 22.05 kHz: 128 x 4 numbers for 16384 samples, or as many codes of 11^4, 2.38 kbit/s.

    The quantizer stands beside the bottleneck and leaves three items in four unrounded in training, so one model
    serves both: latents keep their values, and codes come with them. A token has four numbers, of which the tanh is to
    keep all, so their RMS is not normalised. For vectors of 64 numbers, see `partita_core.regroup`.
    """
    sizes: dict[str, Any] = _TINY | {"companding": "component", "registers": 8}
    # One channel a place for so many tokens: the matrix is as large as that for 8 tokens and 16 channels.
    narrow: dict[str, Any] = sizes | {"direct": 1}
    encoder = SummaryEncoderConfig(**narrow, layers=2, tokens_per_frame=128, magnitudes=True, norm_decay=0.95)
    decoder = ConsistencyDecoderConfig(**sizes, upsampler_layers=2, layers=2, condition_dim=128, envelope_weight=50.0)
    bottleneck = TanhConfig(gain=None, hinge_weight=1e-3)
    quantizer = FSQConfig(bound="clamp", rounding_dropout=0.75)
    return replace(music2latent2_tiny(), model=AutoencoderConfig(_HALF, 4, encoder, bottleneck, decoder, quantizer))


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


def _radam(*, lr: float, warmup_steps: int) -> OptimizerConfig:
    settings: dict[str, Any] = {"name": "radam", "betas": (0.9, 0.999), "weight_decay": 0.0, "schedule": "cosine"}
    return OptimizerConfig(lr=lr, warmup_steps=warmup_steps, final=0.01, clip=1.0, **settings)
