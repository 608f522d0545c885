"""Self-contained HTML reports with metrics, plots and audio players."""

from .clips import ReportClip
from .comparisons import Robustness
from .page import write_report

__all__ = ["ReportClip", "Robustness", "write_report"]
