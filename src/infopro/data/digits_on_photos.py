"""Digits on photos, the embedded data set: real digits on real photographs, as MNIST-M has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.data._bad_images import BadImages
from infopro.data._order import balanced_order
from infopro.data._packages import import_package
from infopro.data._seeds import counter_generator
from infopro.data._types import Augmentation, ImageData, ImageTensors
from infopro.errors import BadConfiguration, BadInput

__all__ = ["SETS", "digits_on_photos", "render_digits"]

SIDE = 32  # pixels, of the images
SCALES = (1, 2, 4)  # photo pixels per image pixel
SMALLEST_DIGIT, LARGEST_DIGIT = 20, 30  # pixels, of the digit's frame: its 8x8 cells and a margin of one
NUM_TEST_SOURCES = 450  # of the 1797 digits
NUM_HELD_OUT_SOURCES = 270  # of the remaining 1347
CHUNK = 4096  # images rendered at once
NUISANCE = (
    "source", "photo", "crop_scale", "crop_top", "crop_left", "digit_top", "digit_left", "digit_size",
)  # fmt: skip


def digits_on_photos(
    *, train_size: int = 5700, test_size: int = 2000, seed: int = 0, holdout: bool = False
) -> ImageData:
    """Handwritten digits blended into random crops of two photographs, with everything that made them.

    The digits are scikit-learn's `load_digits` (1797 of 8x8), the photographs its `load_sample_images`.
    Each digit is enlarged bilinearly to a random size, put at a random place of a random 32x32 crop, and
    blended in as in MNIST-M (Ganin et al. 2016): |photo - digit| per channel. Deviations:
    smaller source digits, two photographs at three scales instead of BSDS500, random position and size.

    Shapes: images uint8 [N, 3, 32, 32]; labels int64 [N]; masks uint8 [N, 32, 32], 1 where the digit is at
    least half dark; nuisance int64 [N] each: `source` (the digit's number in load_digits), `photo`,
    `crop_scale`, `crop_top`, `crop_left` (in pixels of the photo shrunk by `crop_scale`), `digit_top`,
    `digit_left`, `digit_size` (in image pixels).

    The train, test and held-out digits are three disjoint sets of source digits, the same for every `seed`,
    so that settings chosen with `holdout=True` never saw a test digit, whatever seed comes later.
    `holdout=True` gives, instead of the test images, images of 270 digits that the training images then
    leave out. `seed` decides the rendering, which is in whole numbers: no rounding differs between machines.

    Errors:
        BadConfiguration: a size below 1. MissingPackage: scikit-learn or Pillow is not installed.

    Example:
        >>> data = digits_on_photos(train_size=100, test_size=20)
        >>> data.train.images.shape, sorted(data.train.nuisance)[:2]
        (torch.Size([100, 3, 32, 32]), ['crop_left', 'crop_scale'])
    """
    if min(train_size, test_size) < 1:
        got = f"train_size {train_size}, test_size {test_size}"
        raise BadConfiguration("number of images to render is too small", got=got, allowed="1 or more")
    train_sources, held_sources, test_sources = _sources()
    if holdout:
        train = _make("train without held-out", train_sources, train_size, seed)
        test = _make("held-out", held_sources, test_size, seed)
    else:
        train = _make("train", torch.cat([held_sources, train_sources]), train_size, seed)
        test = _make("test", test_sources, test_size, seed)
    return ImageData(
        name="digits-on-photos",
        train=train,
        test=test,
        num_classes=10,
        class_names=tuple("0123456789"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_shape=(3, SIDE, SIDE),
        augmentation=Augmentation(crop_padding=2),
    )


def render_digits(nuisance: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Images and masks from what determines them: change one entry to see another crop, place or digit.

    Shapes: each entry int64 [N], as in `digits_on_photos`; out: images uint8 [N, 3, 32, 32], masks uint8
    [N, 32, 32], on the CPU.

    Errors:
        BadInput: an entry is missing, or places a crop outside its photo or a digit outside the image.
    """
    missing = [name for name in NUISANCE if name not in nuisance]
    if missing:
        raise BadInput("the nuisance of digits on photos is incomplete", got=f"no {', '.join(missing)}")
    nuisance = {name: nuisance[name].cpu().contiguous() for name in NUISANCE}
    _check_ranges(nuisance)
    columns = [torch.split(values, CHUNK) for values in nuisance.values()]
    chunks = [_render_chunk(dict(zip(NUISANCE, chunk, strict=True))) for chunk in zip(*columns, strict=True)]
    images, masks = zip(*chunks, strict=True)
    return torch.cat(images), torch.cat(masks)


def _check_ranges(nuisance: Mapping[str, Tensor]) -> None:
    sound_scale = torch.isin(nuisance["crop_scale"], torch.tensor(SCALES))
    if not bool(sound_scale.all()):
        got = int(nuisance["crop_scale"][~sound_scale][0])
        raise BadInput("unknown crop scale", got=got, allowed=", ".join(map(str, SCALES)))
    _, heights, widths = _photos()
    row = _photo_row(nuisance).clamp(0, len(heights) - 1)
    highest: dict[str, Tensor | int] = {
        "source": len(_digits()[1]) - 1,
        "photo": 1,
        "crop_top": heights[row] - SIDE,
        "crop_left": widths[row] - SIDE,
        "digit_size": SIDE,
        "digit_top": SIDE - nuisance["digit_size"],
        "digit_left": SIDE - nuisance["digit_size"],
    }
    for name, limit in highest.items():
        outside = (nuisance[name] < (name == "digit_size")) | (nuisance[name] > limit)
        if bool(outside.any()):
            got = int(nuisance[name][outside][0])
            raise BadInput(f"{name} lies outside the photo or the image", got=got)


def _photo_row(nuisance: Mapping[str, Tensor]) -> Tensor:
    """int64 [N]: which of the photographs in `_photos` is cut."""
    return nuisance["photo"] * len(SCALES) + torch.bucketize(nuisance["crop_scale"], torch.tensor(SCALES))


def _make(part: str, sources: Tensor, number: int, seed: int) -> ImageTensors:
    nuisance = _draw(sources, number, counter_generator(f"digits-on-photos/{part}", seed))
    images, masks = render_digits(nuisance)
    return ImageTensors(images, _digits()[1][nuisance["source"]], masks, nuisance)


def _draw(sources: Tensor, number: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random placements; every source digit is used equally often, give or take one."""

    def below(limits: Tensor | int) -> Tensor:  # whole numbers from 0 to limits - 1
        return (torch.rand(number, generator=generator, dtype=torch.float64) * limits).long()

    source = sources[torch.randperm(number, generator=generator) % len(sources)]
    photo, level = below(2), below(len(SCALES))
    _, heights, widths = _photos()
    row = photo * len(SCALES) + level
    size = SMALLEST_DIGIT + below(LARGEST_DIGIT - SMALLEST_DIGIT + 1)
    drawn = (
        source, photo, torch.tensor(SCALES)[level],
        below(heights[row] - SIDE + 1), below(widths[row] - SIDE + 1),
        below(SIDE - size + 1), below(SIDE - size + 1), size,
    )  # fmt: skip
    return dict(zip(NUISANCE, drawn, strict=True))


def _render_chunk(nuisance: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    digits = _enlarge(nuisance)
    blended = (_crop(nuisance).short() - digits[:, None].short()).abs().to(torch.uint8)
    return blended, (digits >= 128).to(torch.uint8)


def _crop(nuisance: Mapping[str, Tensor]) -> Tensor:
    """uint8 [N, 3, 32, 32], cut from the photographs."""
    photos, _, _ = _photos()
    row = _photo_row(nuisance)[:, None, None]
    places = torch.arange(SIDE)
    rows = nuisance["crop_top"][:, None, None] + places[:, None]
    columns = nuisance["crop_left"][:, None, None] + places
    return photos[row, rows, columns].permute(0, 3, 1, 2).contiguous()


def _enlarge(nuisance: Mapping[str, Tensor]) -> Tensor:
    """uint8 [N, 32, 32]: the digits at their size and place on black."""
    cells, _ = _digits()
    size = nuisance["digit_size"]
    down, right = _weights(size, nuisance["digit_top"]), _weights(size, nuisance["digit_left"])
    # whole numbers below 2**24, hence exact in float32 whatever the order of summation
    ink = (down @ cells[nuisance["source"]] @ right.transpose(1, 2)).long()
    full = (16 * (2 * size) ** 2)[:, None, None]  # 16: the darkest cell
    return ((2 * 255 * ink + full) // (2 * full)).to(torch.uint8)


def _weights(size: Tensor, start: Tensor) -> Tensor:
    """[N, 32, 10]: how much of each cell a pixel gets, times 2 * size; bilinear, pixel centres aligned."""
    unit = 2 * size[:, None, None]  # one cell
    place = 10 * (2 * (torch.arange(SIDE) - start[:, None]) + 1) - size[:, None]
    return (unit - (place[:, :, None] - unit * torch.arange(10)).abs()).clamp(min=0).float()


def _sources() -> tuple[Tensor, Tensor, Tensor]:
    """Source digits to train on, to hold out, to test on: disjoint, balanced, the same for every seed."""
    order = balanced_order(_digits()[1], counter_generator("digits-on-photos/sources"))
    first = NUM_TEST_SOURCES + NUM_HELD_OUT_SOURCES
    return order[first:], order[NUM_TEST_SOURCES:first], order[:NUM_TEST_SOURCES]


@lru_cache(maxsize=1)
def _digits() -> tuple[Tensor, Tensor]:
    """float32 [1797, 10, 10] with cells 0 to 16 and a margin of one, and int64 [1797]."""
    datasets = import_package("sklearn.datasets", extra="demo", purpose="the data set digits-on-photos")
    cells, labels = datasets.load_digits(return_X_y=True)
    images = torch.as_tensor(cells, dtype=torch.float32).view(-1, 8, 8)
    return F.pad(images, (1, 1, 1, 1)), torch.as_tensor(labels, dtype=torch.int64)


@lru_cache(maxsize=1)
def _photos() -> tuple[Tensor, Tensor, Tensor]:
    """uint8 [6, 427, 640, 3]: both photographs at each scale, padded; their heights and widths, [6]."""
    purpose = "the data set digits-on-photos"
    import_package("PIL", extra="demo", purpose=purpose)  # scikit-learn reads the photographs with it
    datasets = import_package("sklearn.datasets", extra="demo", purpose=purpose)
    photos = [torch.tensor(photo) for photo in datasets.load_sample_images().images]
    levels = [_shrink(photo, scale) for photo in photos for scale in SCALES]
    table = torch.zeros((len(levels), *photos[0].shape), dtype=torch.uint8)
    for row, level in enumerate(levels):
        table[row, : level.shape[0], : level.shape[1]] = level
    return (
        table,
        torch.tensor([len(level) for level in levels]),
        torch.tensor([level.shape[1] for level in levels]),
    )


def _shrink(photo: Tensor, scale: int) -> Tensor:
    """uint8 [H // scale, W // scale, 3]: means over scale x scale pixels, in whole numbers."""
    height, width = photo.shape[0] // scale, photo.shape[1] // scale
    squares = photo[: height * scale, : width * scale].long().view(height, scale, width, scale, 3)
    return ((squares.sum((1, 3)) + scale**2 // 2) // scale**2).to(torch.uint8)


def _load(*, seed: int, bad_images: BadImages, **unused: Any) -> ImageData:
    bad_images.require_unread("digits-on-photos")
    return digits_on_photos(seed=seed)


SETS: dict[str, Callable[..., ImageData]] = {"digits-on-photos": _load}
