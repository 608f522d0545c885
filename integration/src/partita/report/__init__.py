"""Self-contained HTML reports with metrics, plots and audio players."""

from .clips import ReportClip
from .comparisons import Robustness
from .figure import write_figure
from .page import write_report

__all__ = ["ReportClip", "Robustness", "write_figure", "write_report"]
