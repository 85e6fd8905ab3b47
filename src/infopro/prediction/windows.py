"""A class for every pixel: of the whole image at once, or in windows that overlap."""

from __future__ import annotations

from itertools import islice, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infopro.data._mask_types import padded_side
from infopro.errors import BadInput
from infopro.heads import at_least_float32
from infopro.tasks import Task
from infopro.training.evaluation import evaluation_mode

__all__ = ["default_stride", "sliding", "whole", "window_starts"]

Size = tuple[int, int]  # rows, columns


def whole(model: nn.Module, images: Tensor, *, task: Task, multiple_of: int = 1, smallest: int = 1) -> Tensor:
    """Class probabilities of images that go through the network as they are.

    Where `multiple_of` does not divide a side, or it is below `smallest`, the image is padded below and on
    the right by zeros, the normalised mean, and what was predicted there is cut off. A network's map of
    another size than its input is resized before the softmax, bilinearly, corners not aligned.

    Shapes: float32 [N, channels, H, W], normalised -> [N, C, H, W] in at least float32.

    Errors:
        BadInput: images of another shape.

    Example:
        >>> import torch
        >>> from infopro.tasks import Segmentation
        >>> task, network = Segmentation(num_classes=2), torch.nn.MaxPool2d(2)
        >>> whole(network, torch.zeros(1, 2, 3, 5), task=task, multiple_of=2).unique()
        tensor([0.5000])
    """
    _check(images)
    rows, columns = images.shape[-2:]
    size = (
        padded_side(rows, multiple_of=multiple_of, smallest=smallest),
        padded_side(columns, multiple_of=multiple_of, smallest=smallest),
    )
    return _through(model, _padded(images, size), task)[..., :rows, :columns]


def sliding(
    model: nn.Module,
    images: Tensor,
    *,
    task: Task,
    window: Size,
    stride: Size | None = None,
    batch_size: int = 4,
) -> Tensor:
    """Class probabilities of images of any size, seen through windows of one size; their mean where several
    windows show a pixel.

    Windows are laid out as usual (mmsegmentation): every `stride` pixels, the last ones ending where the
    image does. There, logits are averaged, here probabilities. An image smaller than the window is padded as
    by `whole`. Besides the result, the activations of `batch_size` windows are alive at a time.

    Shapes: float32 [N, channels, H, W], normalised -> [N, C, H, W] in at least float32.

    Args:
        window: rows and columns.
        stride: from one window to the next; if not given, two thirds of the window.
        batch_size: windows that go through the network at once, of all N images.

    Errors:
        BadInput: images of another shape.

    Example:
        >>> import torch
        >>> from infopro.tasks import Segmentation
        >>> network, images = torch.nn.Identity(), torch.zeros(1, 2, 50, 70)
        >>> sliding(network, images, task=Segmentation(num_classes=2), window=(24, 24)).shape
        torch.Size([1, 2, 50, 70])
    """
    _check(images)
    padded = _padded(images, (max(images.shape[-2], window[0]), max(images.shape[-1], window[1])))
    starts = _starts(padded, window, stride or default_stride(window))
    places = product(range(len(padded)), *starts)
    sums: Tensor | None = None
    while chosen := list(islice(places, batch_size)):
        boxes = [(image, _side(top, window[0]), _side(left, window[1])) for image, top, left in chosen]
        seen = torch.cat([padded[image : image + 1, :, rows, columns] for image, rows, columns in boxes])
        found = _through(model, seen, task)
        if sums is None:
            sums = found.new_zeros((len(padded), found.shape[1], *padded.shape[-2:]))
        for (image, rows, columns), values in zip(boxes, found, strict=True):
            sums[image, :, rows, columns] += values
    assert sums is not None
    return (sums / _covered(sums, starts, window))[..., : images.shape[-2], : images.shape[-1]]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride` pixels, the last one ending where the side does.

    Example:
        >>> window_starts(10, 6, 3), window_starts(6, 6, 3), window_starts(4, 6, 3)
        ([0, 3, 4], [0], [0])
    """
    last = max(0, length - window)
    return [min(step * stride, last) for step in range(-(-last // stride) + 1)]


def default_stride(window: Size) -> Size:
    """Two thirds of a window, in whole pixels.

    Example:
        >>> default_stride((769, 1024))
        (513, 683)
    """
    rows, columns = window
    return max(1, round(rows * 2 / 3)), max(1, round(columns * 2 / 3))


@torch.no_grad()
def _through(model: nn.Module, images: Tensor, task: Task) -> Tensor:
    """Probabilities [N, C, H, W] of what the network makes of images [N, channels, H, W]."""
    with evaluation_mode(model):
        logits = at_least_float32(task.logits(model(images)))
    return _resized(logits, images).softmax(dim=1)


def _resized(logits: Tensor, images: Tensor) -> Tensor:
    size = images.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def _padded(images: Tensor, size: Size) -> Tensor:
    below, right = size[0] - images.shape[-2], size[1] - images.shape[-1]
    return F.pad(images, (0, right, 0, below)) if below or right else images


def _starts(images: Tensor, window: Size, stride: Size) -> tuple[list[int], list[int]]:
    """Of rows, of columns."""
    rows, columns = images.shape[-2:]
    return window_starts(rows, window[0], stride[0]), window_starts(columns, window[1], stride[1])


def _side(start: int, length: int) -> slice:
    return slice(start, start + length)


def _covered(sums: Tensor, starts: tuple[list[int], list[int]], window: Size) -> Tensor:
    """How many windows show each pixel, [H, W]."""
    down, across = sums.new_zeros(sums.shape[-2]), sums.new_zeros(sums.shape[-1])
    for counts, places, length in zip((down, across), starts, window, strict=True):
        for start in places:
            counts[_side(start, length)] += 1
    return down[:, None] * across


def _check(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise BadInput(
            "images are not a normalised batch",
            got=f"{images.dtype} {list(images.shape)}",
            allowed="floating point [N, C, H, W]",
        )
