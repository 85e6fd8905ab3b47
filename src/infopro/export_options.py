"""What `export` asks for on the command line: a run and a new folder."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["add_export"]


def add_export(commands: Any, parser_class: Any) -> None:
    """`infopro export RUN -o FOLDER`."""
    export = parser_class(
        description="The plain network of a run, without its heads: weights as safetensors, how to build and "
        "feed it as JSON, and a few lines that load it without this package. The run's data are not needed."
    )
    export.add_argument("run", type=str, help="a folder that infopro train wrote")
    export.add_argument("-o", "--output", type=str, required=True, help="new folder; nothing is overwritten")
    export.add_argument(
        "--checkpoint",
        type=Literal["last", "best"],
        default="last",
        help="of the last epoch, or of the one with the best test result",
    )
    export.add_argument(
        "--onnx", action="store_true", help="also model.onnx: any number of images of the run's size"
    )
    export.add_argument(
        "--pt2", action="store_true", help="also model.pt2, for torch.export.load: needs no class either"
    )
    commands.add_subcommand("export", export, help="a trained network for others, without this package")
