"""Choice of `trainer.precision=auto`: bf16 on machines whose matrix products are much faster in it, else float32."""

import dataclasses

import torch
from partita_blocks.native.build import cpu_features

from .run import RunConfig, RunFolder

# Instructions that multiply matrices of bf16 several times faster than those of float32. AVX512_BF16 alone does not:
# it is lost in the conversions of autocast.
_CPU_FEATURES = {"amx_tile", "amx_bf16"}


def fastest_precision() -> str:
    """Value of `TrainerConfig.precision` for the device that accelerate chooses: "bf16" or "no"."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if cpu_features() >= _CPU_FEATURES else "no"


def resolve_precision(config: RunConfig, run: RunFolder, *, resume: bool) -> RunConfig:
    """Replace the precision "auto": in a resumed run by that of its start, in a new one by the fastest.

    Raises:
        PartitaError: the config of the resumed run cannot be read.
    """
    if config.trainer.precision != "auto":
        return config
    started = run.read_config().trainer.precision if resume and run.config.exists() else fastest_precision()
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, precision=started))
