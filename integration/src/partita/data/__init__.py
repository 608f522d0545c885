"""Data: audio files, data sets, corpora of latents, training crops, text tasks, and synthesized music."""

from .audio.files import AudioInfo, AudioSource, audio_info, read_audio, read_blocks, source_name, write_audio
from .audio.resampling import AudioReader, read_resampled, resample, resampled_length
from .audio_crops import AudioCrops
from .augment import Augmentation, Example, augment, plain
from .batches import Batch, Item, SkippedFile, collate, move_batch
from .clips import Clip, whole_files
from .columns import NumericColumns
from .corpus.encode import EncodedCorpus, encode_corpus
from .corpus.read import stored_latents
from .corpus.spec import CorpusSpec, corpus_spec
from .crops import Crops
from .data_config import DataConfig
from .datasets import audio_files, dataset_splits, names_hash, open_dataset, open_splits
from .decode_latents import decode_pieces
from .file_digests import changed_file, row_digest, sample_digests
from .file_encoding import encode_files, encode_source
from .latent_crops import LatentCrops
from .loader import CropLoader, EpochSampler, build_loader, reported_readers
from .pieces import is_silent, random_piece, random_pieces
from .shards import first_rows
from .sources.listing import spread_rows
from .sources.splits import SPLITS
from .streaming import CropStream, StreamLoader, StreamPosition
from .synth.synthesize import synthesize
from .texts import SPEECH_AND_SOUND_TEXTS, TextTask, all_texts, check_texts, draw_text
from .where import filter_rows

__all__ = [
    "SPEECH_AND_SOUND_TEXTS",
    "SPLITS",
    "AudioCrops",
    "AudioInfo",
    "AudioReader",
    "AudioSource",
    "Augmentation",
    "Batch",
    "Clip",
    "CorpusSpec",
    "CropLoader",
    "CropStream",
    "Crops",
    "DataConfig",
    "EncodedCorpus",
    "EpochSampler",
    "Example",
    "Item",
    "LatentCrops",
    "NumericColumns",
    "SkippedFile",
    "StreamLoader",
    "StreamPosition",
    "TextTask",
    "all_texts",
    "audio_files",
    "audio_info",
    "augment",
    "build_loader",
    "changed_file",
    "check_texts",
    "collate",
    "corpus_spec",
    "dataset_splits",
    "decode_pieces",
    "draw_text",
    "encode_corpus",
    "encode_files",
    "encode_source",
    "filter_rows",
    "first_rows",
    "is_silent",
    "move_batch",
    "names_hash",
    "open_dataset",
    "open_splits",
    "plain",
    "random_piece",
    "random_pieces",
    "read_audio",
    "read_blocks",
    "read_resampled",
    "reported_readers",
    "resample",
    "resampled_length",
    "row_digest",
    "sample_digests",
    "source_name",
    "spread_rows",
    "stored_latents",
    "synthesize",
    "whole_files",
    "write_audio",
]
