"""From run folders to one page: nothing but what the runs left is read, neither data nor GPU is needed."""

from infopro.run_report.writing import default_output, report_runs

__all__ = ["default_output", "report_runs"]
