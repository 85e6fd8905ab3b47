"""Dataclasses -> tables, charts and one self-contained HTML page."""

from infopro.report._html import MARKER
from infopro.report._types import (
    DrawnSplit,
    MaskPictures,
    MaskRow,
    MethodResult,
    Reconstruction,
    ReportData,
    RunResult,
    StepBytes,
)
from infopro.report.page import render_report, write_report
from infopro.report.tables import result_table

__all__ = [
    "MARKER",
    "DrawnSplit",
    "MaskPictures",
    "MaskRow",
    "MethodResult",
    "Reconstruction",
    "ReportData",
    "RunResult",
    "StepBytes",
    "render_report",
    "result_table",
    "write_report",
]
