"""Data: reading and writing audio, data sets, training crops, and music to train on where there is none."""

from .audio import AudioInfo, AudioSource, audio_info, read_audio, read_blocks, source_name, write_audio
from .augment import Augmentation, Example, augment, plain
from .clips import Clip, whole_files
from .crops import Batch, Crops, DataConfig, Item, collate
from .loader import CropLoader, EpochSampler, build_loader
from .resampling import AudioReader, read_resampled, resample, resampled_length
from .sources import SPLITS, audio_files, open_dataset
from .synth import synthesise

__all__ = [
    "SPLITS",
    "AudioInfo",
    "AudioReader",
    "AudioSource",
    "Augmentation",
    "Batch",
    "Clip",
    "CropLoader",
    "Crops",
    "DataConfig",
    "EpochSampler",
    "Example",
    "Item",
    "audio_files",
    "audio_info",
    "augment",
    "build_loader",
    "collate",
    "open_dataset",
    "plain",
    "read_audio",
    "read_blocks",
    "read_resampled",
    "resample",
    "resampled_length",
    "source_name",
    "synthesise",
    "whole_files",
    "write_audio",
]
