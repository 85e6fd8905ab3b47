"""Augmentation and normalisation of whole batches on their device: no Python per image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.data._transfer import to_device
from infopro.data._types import Augmentation
from infopro.errors import BadInput

__all__ = ["augment", "normalize", "random_boxes"]

SMALLEST_AREA = 0.08  # share of the image that a random resized crop covers at least
LARGEST_ASPECT = 4 / 3  # of such a crop, either way
TRIES = 10  # boxes drawn per image; the first that fits is taken


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Randomly cropped and flipped images.

    Shapes: uint8 [N, C, H, W] in and out. The random numbers are drawn on the generator's device and then
    moved, so that a CPU generator varies images on every device alike. Crop and flip are one gather.

    Errors:
        BadInput: images that are not uint8 [N, C, H, W], or reflected padding as wide as the image.

    Example:
        >>> images = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
        >>> augment(images, Augmentation(crop_padding=1), torch.Generator().manual_seed(0)).shape
        torch.Size([1, 1, 3, 3])
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        got = f"{images.dtype} {list(images.shape)}"
        raise BadInput(
            "images to augment have the wrong type or shape", got=got, allowed="uint8 [N, C, H, W]"
        )
    if augmentation.random_resized_crop:
        images = _resized_crop(images, generator)
    if augmentation.crop_padding or augmentation.flip:
        images = _shift_and_flip(images, augmentation, generator)
    return images


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images as the network takes them: (x / 255 - mean) / std per channel.

    Shapes: uint8 [N, C, H, W] in, float32 of the same shape and memory format out; `mean` and `std` hold C
    numbers in units of images in [0, 1].
    """
    # scaled by 255 instead of the image: one pass over the pixels less
    center, scale = (
        to_device(255 * torch.tensor(values, dtype=torch.float32), images.device) for values in (mean, std)
    )
    if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return images.to(torch.float32).sub_(center.view(-1, 1, 1)).div_(scale.view(-1, 1, 1))
    num_images, channels, height, width = images.shape
    # row by row: with a loop over C channels inside, a CPU is eight times slower
    rows_NHR = images.permute(0, 2, 3, 1).flatten(2)
    rows_NHR = rows_NHR.to(torch.float32).sub_(center.repeat(width)).div_(scale.repeat(width))
    return rows_NHR.view(num_images, height, width, channels).permute(0, 3, 1, 2)


def random_boxes(
    num_boxes: int, *, height: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes of random area (8 to 100 %) and aspect (3/4 to 4/3) in an image: tops, lefts, heights, widths.

    Each int64 [num_boxes], in pixels. Where none of 10 tries fits, the largest square in the middle.
    """
    area_draw, aspect_draw, *place_draws = torch.rand(
        (4, num_boxes, TRIES), generator=generator, dtype=torch.float64, device=generator.device
    )
    area = height * width * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area_draw)
    aspect = torch.exp((2 * aspect_draw - 1) * math.log(LARGEST_ASPECT))
    heights, widths = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.long().argmax(1, keepdim=True)
    found = fits.any(1)
    heights = torch.where(found, heights.gather(1, first)[:, 0], min(height, width))
    widths = torch.where(found, widths.gather(1, first)[:, 0], min(height, width))
    down, right = (draw[:, 0] for draw in place_draws)
    down, right = torch.where(found, down, 0.5), torch.where(found, right, 0.5)
    tops, lefts = (down * (height - heights + 1)).long(), (right * (width - widths + 1)).long()
    return tops, lefts, heights, widths


def _shift_and_flip(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """[N, C, H, W]: a crop of the padded image, read backwards where it is flipped."""
    num_images, channels, height, width = images.shape
    padding = augmentation.crop_padding
    if padding >= min(height, width) and augmentation.padding_mode == "reflect":
        raise BadInput(
            "reflected crop padding is as wide as the image",
            got=padding,
            allowed=f"below {min(height, width)}",
        )
    offsets = torch.randint(
        0, 2 * padding + 1, (2, num_images, 1), generator=generator, device=generator.device
    )
    flips = torch.rand((num_images, 1), generator=generator, device=generator.device) < 0.5
    offsets, flips = to_device(offsets, images.device) - padding, to_device(flips, images.device)
    if not padding:  # no gather, whose places weigh eight times what the pixels do
        chosen = flips[:, :, None, None].to(torch.uint8)
        return images.flip(3) * chosen + images * (1 - chosen)  # torch.where takes thrice the time
    rows = (
        torch.arange(height, device=images.device) + offsets[0]
    )  # [N, H] into the unpadded image, also outside it
    columns = torch.arange(width, device=images.device) + offsets[1]
    if augmentation.flip:
        columns = torch.where(flips, columns.flip(1), columns)
    # reflection at both edges, the edge pixel not repeated; in zero mode these places are blanked below
    inner_rows, inner_columns = _reflect(rows, height), _reflect(columns, width)
    if augmentation.padding_mode == "zero":
        inner_rows, inner_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    places = (inner_rows[:, :, None] * width + inner_columns[:, None, :]).view(num_images, 1, -1)
    crops = images.reshape(num_images, channels, -1).gather(2, places.expand(-1, channels, -1))
    crops = crops.view_as(images)
    if padding and augmentation.padding_mode == "zero":
        inside = (rows == inner_rows)[:, None, :, None] & (columns == inner_columns)[:, None, None, :]
        crops = crops * inside
    return crops


def _reflect(places: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - places.abs()).abs()


def _resized_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """[N, C, H, W]: a random box of each image, enlarged bilinearly to H x W."""
    num_images, _, height, width = images.shape
    boxes = random_boxes(num_images, height=height, width=width, generator=generator)
    tops, lefts, heights, widths = (to_device(side, images.device) for side in boxes)
    rows = _sample_places(tops, heights, height)
    columns = _sample_places(lefts, widths, width)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)], dim=-1
    )  # [N, H, W, (x, y)] in -1..1
    crops = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.round_().to(torch.uint8)


def _sample_places(starts: Tensor, lengths: Tensor, size: int) -> Tensor:
    """[N, size] where the pixels of an enlarged box lie in the image, in grid_sample's -1..1."""
    steps = (torch.arange(size, device=starts.device, dtype=torch.float32) + 0.5) / size
    places = starts[:, None] + steps * lengths[:, None] - 0.5
    places = torch.maximum(torch.minimum(places, (starts + lengths - 1)[:, None]), starts[:, None])
    return (2 * places + 1) / size - 1
