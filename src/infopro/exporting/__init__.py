"""A run's network for others: weights, how to build and feed it, and programs that need no Python class."""

from infopro.exporting.writing import Exported, export_run

__all__ = ["Exported", "export_run"]
