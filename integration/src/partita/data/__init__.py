"""Data: audio files, data sets, corpora of latents, training crops, texts, and music where there is none."""

from .audio import AudioInfo, AudioSource, audio_info, read_audio, read_blocks, source_name, write_audio
from .augment import Augmentation, Example, augment, plain
from .clips import Clip, whole_files
from .contents import changed_file, row_contents, sample_contents
from .corpus import EncodedCorpus, encode_corpus
from .crops import Batch, Crops, DataConfig, Item, LatentCrops, LeftOut, collate
from .decoding import decode_pieces
from .encoding import encode_files, encode_source
from .listing import spread_rows
from .loader import CropLoader, EpochSampler, build_loader, reported_readers
from .pieces import is_silent, random_piece, random_pieces
from .resampling import AudioReader, read_resampled, resample, resampled_length
from .sources import audio_files, dataset_splits, names_hash, open_dataset
from .splits import SPLITS
from .stored import CorpusSpec, corpus_spec, stored_latents
from .streams import CropStream, Place, StreamLoader, first_rows
from .synth import synthesise
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
    "LeftOut",
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
    "synthesise",
    "whole_files",
    "write_audio",
]
