"""Images seen at several scales and mirrored, the class probabilities averaged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infopro.errors import BadConfiguration
from infopro.prediction.windows import Size, default_stride, sliding, whole
from infopro.tasks import Task

__all__ = ["MULTI_SCALE", "Inference", "probabilities"]

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # MS of the paper's Table 5, as mmsegmentation has it


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How images are looked at when a class is predicted for every pixel; the default sees each once, whole.

    Args:
        window: rows and columns of sliding windows; None: the whole image at once.
        stride: of the windows; None: two thirds of the window.
        size: rows and columns that every image is brought to before all else, as a run with `image_size`
            does; None: its own.
        scales: of the image, each seen once; (1.0,) is SS of InfoPro's Table 5, `MULTI_SCALE` is MS.
        flip: see every scale mirrored left to right, too.
        multiple_of: what the network wants an image's sides to be divisible by.
        smallest: the least side that the network takes.
        batch_size: images or windows that go through the network at once.

    Errors:
        BadConfiguration: all that is out of range, in one message.

    Example:
        >>> Inference(window=(512, 1024), scales=MULTI_SCALE, flip=True).stride is None
        True
        >>> Inference(scales=(), batch_size=0)
        Traceback (most recent call last):
        infopro.errors.BadConfiguration: scales is (), allowed: one or more numbers above 0; also: ...
    """

    window: Size | None = None
    stride: Size | None = None
    size: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    multiple_of: int = 1
    smallest: int = 1
    batch_size: int = 4

    def __post_init__(self) -> None:
        problems = [*_window_problems(self), *_other_problems(self)]
        if problems:
            raise BadConfiguration("; also: ".join(problems))


def probabilities(
    model: nn.Module, images: Tensor, *, task: Task, inference: Inference | None = None
) -> Tensor:
    """The probability of each class at each pixel, averaged over scales, mirror images and windows.

    The network runs in eval mode, and its own mode comes back; no graph is made. Images are scaled
    bilinearly, with antialiasing; probabilities are brought back to the images' size bilinearly, and so add
    up to 1. With the default `Inference` this is the softmax of the plain forward pass.

    Shapes: float32 [N, channels, H, W], normalised -> [N, C, H, W] in at least float32.

    Errors:
        BadInput: images of another shape, or a network's output without logits.

    Example:
        >>> import torch
        >>> from infopro.tasks import Segmentation
        >>> images, task = torch.zeros(1, 3, 17, 20), Segmentation(num_classes=3)
        >>> probabilities(torch.nn.Identity(), images, task=task, inference=Inference(flip=True)).shape
        torch.Size([1, 3, 17, 20])
    """
    inference = inference or Inference()
    total: Tensor | None = None
    for scale in inference.scales:
        found = _at_scale(model, images, task, inference, scale)
        total = found if total is None else total + found
    assert total is not None
    return total if len(inference.scales) == 1 else total / len(inference.scales)


def _at_scale(model: nn.Module, images: Tensor, task: Task, inference: Inference, scale: float) -> Tensor:
    own = images.shape[-2], images.shape[-1]
    rows, columns = inference.size or own
    size = max(1, round(rows * scale)), max(1, round(columns * scale))
    scaled = _resized(images, size, antialias=True)
    found = _once(model, scaled, task, inference)
    if inference.flip:
        found = (found + _once(model, scaled.flip(-1), task, inference).flip(-1)) / 2
    return _resized(found, own, antialias=False)


def _once(model: nn.Module, images: Tensor, task: Task, inference: Inference) -> Tensor:
    if inference.window is None:
        sides = {"multiple_of": inference.multiple_of, "smallest": inference.smallest}
        parts = torch.split(images, inference.batch_size)
        return torch.cat([whole(model, part, task=task, **sides) for part in parts])
    return sliding(
        model,
        images,
        task=task,
        window=inference.window,
        stride=inference.stride,
        batch_size=inference.batch_size,
    )


def _resized(maps: Tensor, size: Size, *, antialias: bool) -> Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=antialias)


def _window_problems(inference: Inference) -> Iterator[str]:
    window, stride, multiple = inference.window, inference.stride, max(1, inference.multiple_of)
    smallest = max(1, inference.smallest)
    if window is None:
        if stride is not None:
            yield f"stride is {stride} without a window; pass window, too"
        return
    if min(window) < smallest or any(side % multiple for side in window):
        steps = f"{smallest} or more" + (f" and multiples of {multiple}" if multiple > 1 else "")
        yield f"window is {window}, allowed: rows and columns, {steps}"
        return
    rows, columns = stride or default_stride(window)
    if not (1 <= rows <= window[0] and 1 <= columns <= window[1]):
        yield f"stride is {stride}, allowed: from 1 to the window's sides {window}"


def _other_problems(inference: Inference) -> Iterator[str]:
    scales = inference.scales
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        yield f"scales is {scales}, allowed: one or more numbers above 0"
    if inference.size is not None and min(inference.size) < 1:
        yield f"size is {inference.size}, allowed: rows and columns, 1 or more"
    for name in ("multiple_of", "smallest", "batch_size"):
        if getattr(inference, name) < 1:
            yield f"{name} is {getattr(inference, name)}, allowed: 1 or more"
