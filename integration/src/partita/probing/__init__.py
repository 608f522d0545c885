"""Probes: what a linear classifier, or a frozen language model, reads from latents and features."""

from .features import LOG_MEL, beginning, encode_clip, heard, log_mel, pooled_features, stack_tokens
from .head import Examples, LinearProbe, ProbeSettings, fit_probe, masked_mean
from .probe import probe, probe_features
from .results import ProbeTask, Probing
from .tasks import LabelTask, find_tasks
from .transcripts import Transcripts, character_edits, probe_answers

__all__ = [
    "LOG_MEL",
    "Examples",
    "LabelTask",
    "LinearProbe",
    "ProbeSettings",
    "ProbeTask",
    "Probing",
    "Transcripts",
    "beginning",
    "character_edits",
    "encode_clip",
    "find_tasks",
    "fit_probe",
    "heard",
    "log_mel",
    "masked_mean",
    "pooled_features",
    "probe",
    "probe_answers",
    "probe_features",
    "stack_tokens",
]
