"""Recipes for codecs of at most 6 M parameters that learn to sound well in minutes to hours on one processor core.

Their construction and training are ours. They consist of transforms and of networks over frames; no layer runs at the
sample rate.
"""

from typing import Any

from partita_bottlenecks import AdaptiveConfig, IdentityConfig, NoiseRegularizedConfig, TanhConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import (
    AdaptiveDecoderConfig,
    Autoregressive,
    ConsistencyDecoderConfig,
    FrameDecoderConfig,
    LinearPathDecoderConfig,
    SourceFilterDecoderConfig,
)
from partita_encoders import AdaptiveEncoderConfig, FrameEncoderConfig, LinearPathEncoderConfig
from partita_losses import CompandedSTFTLossConfig, LogErrorConfig, LoudnessConfig, MultiScaleMelConfig
from partita_quantizers import ResidualVQConfig, SplitConfig

from partita.data import Augmentation, DataConfig
from partita.objectives import AdversarialReconstructionConfig, ConsistencyTrainingConfig
from partita.training import AdamWConfig, Cosine, RunConfig, TrainerConfig

_MONO_16 = AudioSpec(16_000)
# Speech keeps roughly its level, and its spectrum.
_SPEECH = Augmentation(level_db=-23.0, level_range_db=8.0)
_AUDIO = AudioSpec(44_100, 2, (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE))


def f3_pocket() -> RunConfig:
    """F3's latents about a linear path, for speech: 16 kHz mono, 64 channels at 25 Hz, 1.5 M parameters.

    54 numbers of a frame are principal components of an MDCT, with the level of the frame in channels of its own, and 8
    are learned. The decoder adds noise in 32 bands of eight sub-frames.
    """
    path: dict[str, Any] = {"numbers": 54, "level": "channel"}
    encoder = LinearPathEncoderConfig(
        FrameEncoderConfig(hop=640, steps=8, window=0.02, bands=48, width=160, inner=320), **path, weighting=0.5
    )
    network = FrameDecoderConfig(
        sub_frames=8, bins=0, noise_bands=32, width=160, inner=320, sub_width=96, sub_inner=192, refines=True
    )
    return RunConfig(
        model=AutoencoderConfig(
            _MONO_16, 64, encoder, NoiseRegularizedConfig(gamma=0.25), LinearPathDecoderConfig(network, **path)
        ),
        objective=_waveform_of_speech(),
        data=DataConfig(crop_seconds=1.0, batch_size=8, num_workers=1, augmentation=_SPEECH),
        trainer=TrainerConfig(
            steps=20_000,
            optimizers={"generator": AdamWConfig(lr=2e-3, betas=(0.9, 0.98), schedule=Cosine(warmup_steps=50))},
            ema_decay=0.995,
            log_every=50,
        ),
    )


def music2latent2_pocket() -> RunConfig:
    """Music2Latent2 about a linear mean, for speech: 16 kHz mono, 64 channels at 31.25 Hz, 2.0 M parameters.

    52 numbers of a frame are principal components of an MDCT, whose audio is the mean about which chunks of 0.512 s are
    denoised. The other channels are learned; the envelope of what the mean lacks is decoded from all of them. The
    network is trained as a denoiser of least squared error, and few steps along its probability flow decode.
    """
    path: dict[str, Any] = {"numbers": 52, "level": "channel"}
    encoder = LinearPathEncoderConfig(
        FrameEncoderConfig(hop=512, steps=4, bands=64, width=128, inner=256), **path, weighting=0.5, corrects=False
    )
    network = ConsistencyDecoderConfig(
        n_fft=512,
        stft_hop=256,
        chunk_frames=32,
        tilt=6.0,
        companding_scale=0.17,
        channels=(8, 24, 48, 96),
        strides=((4, 1), (4, 2), (4, 2)),
        blocks=(1, 1, 1, 1),
        upsampler_layers=2,
        layers=2,
        heads=2,
        head_dim=64,
        condition_dim=128,
        direct=48,
        local=True,
        envelope_weight=50.0,
        refines=True,
        noise_passes=False,
        sigma_max=5.0,
        sampler=Autoregressive(steps=2, new_noise=False),
    )
    decoder = LinearPathDecoderConfig(network, **path)
    return RunConfig(
        model=AutoencoderConfig(_MONO_16, 64, encoder, TanhConfig(), decoder),
        objective=ConsistencyTrainingConfig(
            uniform_share=0.25,
            conditioning_start=0.1,
            warm_start=1.0,
            offset=1.0,
            pointwise=True,
            min_gap=1.0,
            max_gap=1.0,
        ),
        data=DataConfig(crop_seconds=1.024, batch_size=4, num_workers=1, augmentation=_SPEECH),
        trainer=TrainerConfig(
            steps=8000,
            optimizers={"generator": AdamWConfig(lr=1.5e-3, betas=(0.9, 0.98), schedule=Cosine(warmup_steps=50))},
            ema_decay=0.995,
            log_every=50,
        ),
    )


def music_pocket() -> RunConfig:
    """Linear path and noise in bands for music: 44.1 kHz, three formats, 64 channels at 36.75 Hz, 2.4 M parameters.

    60 numbers of a frame are principal components of an MDCT; 4 are learned and, with those, tell the decoder the level
    of noise in 40 bands of four sub-frames.
    """
    encoder = LinearPathEncoderConfig(
        FrameEncoderConfig(hop=1200, steps=4, window=0.032, bands=64, width=160, inner=320),
        numbers=60,
        level="root",
        weighting=0.5,
        corrects=False,
    )
    network = FrameDecoderConfig(
        sub_frames=4, bins=0, noise_bands=40, width=192, inner=384, sub_width=192, sub_inner=384, refines=True
    )
    decoder = LinearPathDecoderConfig(network, numbers=60, level="root")
    losses = {
        "companded": CompandedSTFTLossConfig(n_ffts=(2048, 1024, 512), complex_weight=1.0, resolutions_per_step=1),
        "error": LogErrorConfig(limit_db=30.0),
        "mel": MultiScaleMelConfig(num_mels=(40, 80, 120), win_lengths=(512, 1024, 2048), resolutions_per_step=1),
    }
    return RunConfig(
        model=AutoencoderConfig(_AUDIO, 64, encoder, IdentityConfig(), decoder),
        objective=AdversarialReconstructionConfig(
            losses=losses, weights={"companded": 1.0, "error": 0.5, "mel": 0.5}, discriminator=None
        ),
        data=DataConfig(
            crop_seconds=1.3, batch_size=4, num_workers=1, augmentation=Augmentation(level_db=-18.0, level_range_db=8.0)
        ),
        trainer=TrainerConfig(
            steps=20_000,
            optimizers={"generator": AdamWConfig(lr=1.5e-3, betas=(0.9, 0.99), schedule=Cosine(warmup_steps=50))},
            ema_decay=0.995,
            log_every=50,
        ),
    )


def speech_pocket() -> RunConfig:
    """Adaptive transform codec for speech: 16 kHz mono, 64 channels at 50 Hz, 2.3 M parameters.

    Of the 320 MDCT bins of a frame, the 56 that an envelope predicts to be largest are kept; the envelope is decoded
    from 8 learned numbers.
    """
    sizes: dict[str, Any] = {"width": 160, "inner": 288}
    encoder, decoder = AdaptiveEncoderConfig(**sizes), AdaptiveDecoderConfig(width=192, inner=384)
    model = AutoencoderConfig(_MONO_16, 64, encoder, AdaptiveConfig(**sizes), decoder)
    return RunConfig(
        model=model,
        objective=_waveform_of_speech(),
        data=DataConfig(crop_seconds=1.0, batch_size=8, num_workers=1, augmentation=_SPEECH),
        trainer=TrainerConfig(
            steps=20_000,
            optimizers={"generator": AdamWConfig(lr=2e-3, betas=(0.9, 0.98), schedule=Cosine(warmup_steps=50))},
            ema_decay=0.995,
            log_every=50,
        ),
    )


def speech_pocket_vq() -> RunConfig:
    """Voice codec with 2.0 M parameters at 350 to 2850 bit/s, by fundamental frequency and spectral envelopes.

    A frame of 20 ms has 7 bits for the fundamental frequency and up to 5 codes of 10 bits for the envelopes. It trains
    on one CPU core in 8 minutes. In the first 35 % of the run the latents are continuous, and the only loss is the
    likelihood of spectra, which needs no synthesis. Then codes and losses on samples enter: those of magnitudes and of
    loudness, since the phase of a voice is not coded.
    """
    # A commitment of the usual weight pulled the latents to the codes of the first level, and slowed learning.
    vq = ResidualVQConfig(num_quantizers=5, codebook_size=1024, codebook_dim=None, commitment_weight=0.03)
    losses = {
        "stft": CompandedSTFTLossConfig(complex_weight=0.0, resolutions_per_step=1),
        "mel": MultiScaleMelConfig(num_mels=(80, 64, 40), win_lengths=(1024, 512, 256), resolutions_per_step=1),
        "loudness": LoudnessConfig(),
    }
    adamw = AdamWConfig(lr=2e-3, schedule=Cosine(warmup_steps=50), betas=(0.9, 0.98), weight_decay=1e-3)
    return RunConfig(
        model=AutoencoderConfig(
            _MONO_16,
            25,
            FrameEncoderConfig(pitch=True, width=160, inner=320),
            SplitConfig(rest=vq),
            SourceFilterDecoderConfig(),
        ),
        objective=AdversarialReconstructionConfig(
            losses=losses,
            weights={"stft": 1.0, "mel": 0.25, "loudness": 0.5},
            discriminator=None,
            losses_from=0.35,
            quantize_from=0.35,
        ),
        data=DataConfig(crop_seconds=1.0, batch_size=8, num_workers=1, augmentation=_SPEECH),
        trainer=TrainerConfig(steps=2400, optimizers={"generator": adamw}, ema_decay=0.99),
    )


def _waveform_of_speech() -> AdversarialReconstructionConfig:
    """Losses on samples of speech, whose weights were chosen on validation clips of read speech."""
    losses = {
        "companded": CompandedSTFTLossConfig(complex_weight=0.8, resolutions_per_step=1),
        "error": LogErrorConfig(limit_db=30.0),
        "mel": MultiScaleMelConfig(num_mels=(32, 64, 80), win_lengths=(256, 512, 1024), resolutions_per_step=1),
        "loudness": LoudnessConfig(),
    }
    weights = {"companded": 1.0, "error": 0.5, "mel": 0.15, "loudness": 0.5}
    return AdversarialReconstructionConfig(losses=losses, weights=weights, discriminator=None)
