"""What `report` asks for on the command line: runs, and where the page goes."""

from __future__ import annotations

from typing import Any

__all__ = ["add_report"]


def add_report(commands: Any, parser_class: Any) -> None:
    """`infopro report RUN [RUN ...]`."""
    report = parser_class(
        description="Write one HTML file about one run or several compared; it opens without a network. "
        "Runs that differ in the seed only are one method, with mean and standard deviation. Neither data "
        "nor a GPU is needed, and a run may still be training."
    )
    report.add_argument(
        "runs", type=str, nargs="+", help="folders that infopro train wrote, or folders of them"
    )
    report.add_argument(
        "-o",
        "--output",
        type=str,
        default=None,
        help="HTML file; an infopro report is replaced (default: FOLDER/report.html)",
    )
    report.add_argument("--title", type=str, default=None, help="of the page (default: network and data)")
    commands.add_subcommand(
        "report", report, help="one page about runs: errors, memory, what each block knows"
    )
