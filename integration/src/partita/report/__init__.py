"""Reports that people see and hear: one self-contained HTML page."""

from .clips import ReportClip
from .comparisons import Robustness
from .page import write_report

__all__ = ["ReportClip", "Robustness", "write_report"]
