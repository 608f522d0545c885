"""Reports that people see and hear: one self-contained HTML page."""

from .clips import ReportClip
from .page import write_report

__all__ = ["ReportClip", "write_report"]
