"""What `predict` asks for on the command line: a run, photos, and how every pixel's class is predicted."""

from __future__ import annotations

import re
from typing import Any

from infopro.errors import BadConfiguration

__all__ = ["add_inference", "add_predict", "inference_of", "refuse_inference"]


def add_predict(commands: Any, parser_class: Any) -> None:
    """`infopro predict RUN IMAGE [IMAGE ...]`."""
    from jsonargparse.typing import PositiveInt

    predict = parser_class(
        description="What a trained network sees in photos. Segmentation: for every photo a palette PNG of "
        "class numbers and the photo with the classes' colours laid over and a legend. Classification: the "
        "most probable classes as a table, and as JSON. The run's folder is enough; its data are not needed."
    )
    predict.add_argument("run", type=str, help="a folder that infopro train wrote")
    predict.add_argument(
        "images", type=str, nargs="+", help="image files of any usual format, and folders of such"
    )
    predict.add_argument(
        "-o",
        "--output",
        type=str,
        default=None,
        help="segmentation: folder for the pictures; classification: JSON file. Nothing is overwritten",
    )
    predict.add_argument("--top", type=PositiveInt, default=5, help="classes that are named for every photo")
    predict.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    add_inference(predict)
    commands.add_subcommand("predict", predict, help="what a trained network sees in photos")


def add_inference(parser: Any, *, usual: str = "the crop that the run trained on; whole, if none") -> None:
    """`--window`, `--scales`, `--flip` and `--batch-size`: how images are looked at; see `inference_of`."""
    from jsonargparse.typing import PositiveFloat, PositiveInt

    parser.add_argument(
        "--window",
        type=str,
        default=None,
        metavar="ROWS,COLUMNS",
        help="segmentation: slide a window of this size over the image, or see it whole: 'whole' (default: "
        f"{usual})",
    )
    parser.add_argument(
        "--scales",
        type=PositiveFloat,
        nargs="+",
        default=None,
        help="segmentation: sizes of the image to average, as in 0.5 0.75 1 1.25 1.5 1.75 (default: 1)",
    )
    parser.add_argument("--flip", action="store_true", help="segmentation: average with the mirror image's")
    parser.add_argument(
        "--batch-size", type=PositiveInt, default=4, help="images or windows that are predicted at once"
    )


def inference_of(
    options: Any,
    *,
    needs: Any,
    built_for: tuple[int, int],
    usual_window: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> Any:
    """What the options of `add_inference` ask for, an `infopro.prediction.Inference`.

    Args:
        needs: what images the network takes, an `infopro.models.InputRequirement`.
        built_for: rows and columns that the network was built for. One that takes no other size sees windows
            of it.
        usual_window: without `--window`.
        size: that images are brought to before all else.

    Raises:
        BadConfiguration: an option that is out of range or cannot be read, a window that the network does
            not take.
    """
    from infopro.prediction import Inference

    window = usual_window if options.window is None else _window(options.window)
    if needs.fixed:
        # an image of that size is one such window
        if options.window is not None and (window or size) != built_for:
            rows, columns = built_for
            raise BadConfiguration(
                "the network takes one size only",
                got=f"--window {options.window}",
                allowed=f"--window {rows},{columns}, as without the option",
            )
        window = built_for
    return Inference(
        window=window,
        size=size,
        scales=tuple(options.scales or (1.0,)),
        flip=options.flip,
        multiple_of=needs.multiple_of,
        smallest=needs.smallest,
        batch_size=options.batch_size,
    )


def refuse_inference(options: Any, *, because: str) -> None:
    """Raise where an option is set that only a network with a class for every pixel reads.

    Raises:
        BadConfiguration: one is.
    """
    set_options = [name for name in ("window", "scales", "flip") if getattr(options, name)]
    if set_options:
        raise BadConfiguration(
            f"{' and '.join(f'--{name}' for name in set_options)}: nothing reads this",
            got=because,
            remedy="drop it",
        )


def _window(text: str) -> tuple[int, int] | None:
    if text == "whole":
        return None
    sides = re.fullmatch(r"\s*(\d+)\s*[,x]\s*(\d+)\s*", text.strip("[]()"))
    if sides is None:
        raise BadConfiguration(
            "--window cannot be read", got=repr(text), allowed="ROWS,COLUMNS as in 512,1024; or whole"
        )
    return int(sides[1]), int(sides[2])
