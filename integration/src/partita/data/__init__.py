"""Data: audio files, data sets, corpora of latents, training crops, texts, and music where there is none."""

from .audio.files import AudioInfo, AudioSource, audio_info, read_audio, read_blocks, source_name, write_audio
from .audio.resampling import AudioReader, read_resampled, resample, resampled_length
from .augment import Augmentation, Example, augment, plain
from .clips import Clip, whole_files
from .contents import changed_file, row_contents, sample_contents
from .corpus.encode import EncodedCorpus, encode_corpus
from .corpus.read import CorpusSpec, corpus_spec, stored_latents
from .crops import Batch, Crops, DataConfig, Item, LatentCrops, SkippedFile, collate
from .datasets import audio_files, dataset_splits, names_hash, open_dataset
from .decode_latents import decode_pieces
from .encode_files import encode_files, encode_source
from .loader import CropLoader, EpochSampler, build_loader, reported_readers
from .pieces import is_silent, random_piece, random_pieces
from .sources.listing import spread_rows
from .sources.splits import SPLITS
from .streaming import CropStream, Place, StreamLoader, first_rows
from .synth.dataset import synthesize
from .texts import SPEECH_AND_SOUND_TEXTS, TextTask, all_texts, check_texts, draw_text

__all__ = [
    "SPEECH_AND_SOUND_TEXTS",
    "SPLITS",
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
    "SkippedFile",
    "Place",
    "StreamLoader",
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
    "names_hash",
    "first_rows",
    "open_dataset",
    "is_silent",
    "plain",
    "random_piece",
    "random_pieces",
    "read_audio",
    "read_blocks",
    "read_resampled",
    "reported_readers",
    "resample",
    "resampled_length",
    "row_contents",
    "sample_contents",
    "source_name",
    "spread_rows",
    "stored_latents",
    "synthesize",
    "whole_files",
    "write_audio",
]
