"""What `reproduce` asks for on the command line: a run, and where the new one goes."""

from __future__ import annotations

from typing import Any

__all__ = ["add_reproduce"]


def add_reproduce(commands: Any, parser_class: Any) -> None:
    """`infopro reproduce RUN`."""
    reproduce = parser_class(
        description="Train a run anew as its record says, as far as it had come, and compare the two bit for "
        "bit: logs, weights, optimizer. Exit status 0: identical; 1: not, and where they first differ."
    )
    reproduce.add_argument("run", type=str, help="a folder that infopro train wrote")
    reproduce.add_argument(
        "-o", "--output", type=str, default=None, help="folder of the new run (default: RUN-reproduced)"
    )
    reproduce.add_argument("--resume", action="store_true", help="go on with a reproduction that was stopped")
    reproduce.add_argument(
        "--data-dir", type=str, default=None, help="folder with the downloaded sets (default: the run's)"
    )
    reproduce.add_argument("--download", action="store_true", help="fetch a missing set")
    reproduce.add_argument(
        "--device", type=str, default=None, help="auto, cpu, cuda or cuda:N (default: the run's kind)"
    )
    commands.add_subcommand("reproduce", reproduce, help="train a run anew and compare, bit for bit")
