"""Dataclasses -> tables, charts and one self-contained HTML page."""

from infopro.report._types import MethodResult, Reconstruction, ReportData
from infopro.report.page import render_report, write_report
from infopro.report.tables import result_table

__all__ = ["MethodResult", "Reconstruction", "ReportData", "render_report", "result_table", "write_report"]
