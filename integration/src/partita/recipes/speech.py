"""Recipes for speech at 16 kHz, for processors without a GPU.

Parts, sizes and training are ours; see `partita_decoders.SourceFilterDecoder`.
"""

from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import SourceFilterDecoderConfig
from partita_encoders import FrameEncoderConfig
from partita_losses import CompandedSTFTConfig, LoudnessConfig, MultiScaleMelConfig
from partita_quantizers import ResidualVQConfig, SplitConfig

from partita.data import DataConfig
from partita.objectives import AdversarialReconstructionConfig
from partita.training import AdamWConfig, Cosine, RunConfig, TrainerConfig

_AUDIO = AudioSpec(16_000, 1, (ChannelLayout.MONO,))


def speech_pocket_vq() -> RunConfig:
    """Voice codec with 2.3 M parameters at 350 to 2850 bit/s, by fundamental frequency and spectral envelopes.

    A frame of 20 ms has 7 bits for the fundamental frequency and up to 5 codes of 10 bits for the envelopes. It trains
    on one CPU core in 8 minutes. In the first 35 % of the run the latents are continuous, and the only loss is the
    likelihood of spectra, which needs no synthesis. Then codes and losses on samples enter: those of magnitudes and of
    loudness, since the phase of a voice is not coded.
    """
    # A commitment of the usual weight pulled the latents to the codes of the first level, and slowed learning.
    vq = ResidualVQConfig(num_quantizers=5, codebook_size=1024, codebook_dim=None, commitment_weight=0.01)
    losses = {
        "stft": CompandedSTFTConfig(complex_weight=0.0, resolutions_per_step=1),
        "mel": MultiScaleMelConfig(num_mels=(80, 64, 40), win_lengths=(1024, 512, 256), resolutions_per_step=1),
        "loudness": LoudnessConfig(),
    }
    adamw = AdamWConfig(lr=2e-3, schedule=Cosine(warmup_steps=50), betas=(0.9, 0.98), weight_decay=1e-3)
    return RunConfig(
        model=AutoencoderConfig(
            _AUDIO, 25, FrameEncoderConfig(pitch=True), SplitConfig(rest=vq), SourceFilterDecoderConfig()
        ),
        objective=AdversarialReconstructionConfig(
            losses=losses,
            weights={"stft": 1.0, "mel": 0.25, "loudness": 0.5},
            discriminator=None,
            losses_from=0.35,
            quantize_from=0.35,
        ),
        data=DataConfig(crop_seconds=1.0, batch_size=8, num_workers=1),
        trainer=TrainerConfig(steps=3000, optimizers={"generator": adamw}, ema_decay=0.99),
    )
