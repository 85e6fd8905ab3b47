"""What `analyze` asks for on the command line: runs, what to find out about them, how much to spend."""

from __future__ import annotations

from typing import Any, Literal

from infopro.data_options import add_data_and_device

__all__ = ["add_analyze"]


def add_analyze(commands: Any, parser_class: Any) -> None:
    """`infopro analyze RUN [RUN ...]`."""
    analyze = parser_class(
        description="Find out what each block of trained networks keeps of the image, of its class and of "
        "its nuisance, how alike blocks are (CKA), and how far each module's gradient points from end-to-end "
        "training's. Of several runs, the blocks of the first are compared with those of each other one, too."
    )
    analyze.add_argument("runs", type=str, nargs="+", help="folders that infopro train wrote")
    _add_extent(analyze)
    _add_probes(analyze)
    analyze.add_argument("--overwrite", action="store_true", help="replace the analysis that a run has")
    analyze.add_argument("--resume", action="store_true", help="leave runs out that have an analysis")
    add_data_and_device(analyze, usual="the run's")
    commands.add_subcommand("analyze", analyze, help="what each layer of a trained run keeps and loses")


def _add_extent(analyze: Any) -> None:
    from infopro.analysis import QUANTITIES

    analyze.add_argument(
        "--only",
        type=Literal[QUANTITIES],
        nargs="+",
        default=None,
        help=f"what to find out: some of {', '.join(QUANTITIES)} (default: all)",
    )
    analyze.add_argument(
        "--blocks", type=str, nargs="+", default=None, help="which blocks, by name (default: all)"
    )
    analyze.add_argument(
        "--compare-with",
        type=str,
        default=None,
        metavar="RUN",
        help="compare blocks with those of this run (default: the first of several)",
    )


def _add_probes(analyze: Any) -> None:
    from jsonargparse.typing import PositiveInt

    from infopro.analysis import ProbeSettings
    from infopro.memory import format_bytes

    usual = ProbeSettings()
    analyze.add_argument(
        "--train-images",
        type=PositiveInt,
        default=usual.train_images,
        help="that probes learn from: a class-balanced part of the training set",
    )
    analyze.add_argument(
        "--test-images", type=PositiveInt, default=usual.test_images, help="that probes are tested on"
    )
    analyze.add_argument(
        "--probe-epochs", type=PositiveInt, default=usual.epochs, help="of the auxiliary networks"
    )
    analyze.add_argument(
        "--probe-seeds", type=PositiveInt, default=usual.num_seeds, help="of every probe that is trained"
    )
    analyze.add_argument(
        "--memory",
        type=str,
        default=format_bytes(usual.memory).replace(" ", ""),
        help="for stored features, such as 4GiB; what is more goes to a temporary file",
    )
