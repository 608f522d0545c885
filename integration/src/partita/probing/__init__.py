"""Probing of latents and features: linear classifiers of labels, and transcripts by a frozen language model."""

from .features import LOG_MEL, log_mel, pooled_features
from .head import Examples, LinearProbe, ProbeSettings, fit_probe
from .probe import probe, probe_features
from .results import ProbeTask, Probing
from .tasks import LabelTask, find_tasks, open_tasks
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
    "character_edits",
    "find_tasks",
    "fit_probe",
    "log_mel",
    "open_tasks",
    "pooled_features",
    "probe",
    "probe_answers",
    "probe_features",
]
