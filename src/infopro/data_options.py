"""Where the data are and on what to compute: what several commands ask for."""

from __future__ import annotations

from typing import Any

__all__ = ["add_data_and_device"]


def add_data_and_device(parser: Any, *, usual: str = "data") -> None:
    """`--data-dir`, `--download`, `--device` and `--num-workers`.

    Args:
        usual: the folder that is looked in without `--data-dir`.
    """
    from jsonargparse.typing import NonNegativeInt

    parser.add_argument(
        "--data-dir", type=str, default=None, help=f"folder with the downloaded sets (default: {usual})"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch a missing set; nothing else uses the network"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--num-workers", type=NonNegativeInt, default=2, help="processes that read image files"
    )
