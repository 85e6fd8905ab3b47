"""Networks by name: the papers' CIFAR networks, the classifiers of timm and torchvision, and the segmentation
networks of torchvision and segmentation_models_pytorch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn

from infopro.errors import BadConfiguration, InfoProError, MissingPackage, UnknownName
from infopro.models import _own, _smp, _timm, _torchvision, _torchvision_segmentation
from infopro.models._registry import Construction, ImageSize, InputRequirement, Registry
from infopro.models.cifar_densenet import cifar_densenet_bc
from infopro.models.cifar_resnet import cifar_resnet, demo_resnet

__all__ = [
    "Construction",
    "InputRequirement",
    "UnknownModel",
    "check_targets",
    "cifar_densenet_bc",
    "cifar_resnet",
    "construction",
    "create",
    "demo_resnet",
    "list_models",
    "required_input",
]

_REGISTRIES: tuple[Registry, ...] = (_own, _timm, _torchvision, _torchvision_segmentation, _smp)


class UnknownModel(UnknownName):
    """A name no source has; for `resnet50` the message offers `timm/resnet50` and `torchvision/resnet50`."""

    def __init__(self, name: str, known: Iterable[str], *, remedy: str | None = None):
        near = " or ".join(_nearest(name, list(known)))
        advice = [f"did you mean {near}?" if near else 'see infopro.models.list_models("*")', remedy]
        InfoProError.__init__(self, "unknown model", got=repr(name), remedy="; ".join(filter(None, advice)))


def create(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build a network by name: images [N, in_channels, H, W] to logits, per image [N, num_classes], or of a
    segmentation network per pixel [N, num_classes, H, W].

    Names: this package's own (`cifar_resnet32`, `cifar_densenet_bc_100_12`, `demo_resnet`), `timm/NAME`,
    `torchvision/NAME` and `smp/ARCHITECTURE/ENCODER` (`smp/unet/resnet18`; any encoder of timm as
    `smp/unet/tu-NAME`). torchvision's segmentation networks return {"out": logits, "aux": logits}: their
    auxiliary FCN head is on where they have one. `pretrained` loads what the library publishes: all of a
    classifier, of a segmentation network the backbone or encoder.

    `image_size`, one side in pixels or (rows, columns), reaches only networks that are built for one size
    (vision transformers); for the others it is only checked.

    Raises:
        UnknownName: no source has the name; the message lists near ones.
        BadConfiguration: the network cannot have these channels, this image size, or pretrained weights.
        MissingPackage: the library that the name is of is missing or does not import.

    Example:
        >>> network = create("cifar_resnet20", num_classes=10, in_channels=1)
        >>> network.conv1.weight.shape
        torch.Size([16, 1, 3, 3])
    """
    registry, bare = _find(name)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    problems = [
        *_range_problems(num_classes=num_classes, in_channels=in_channels),
        *_image_problems(name, registry.requirement(bare), in_channels, size),
    ]
    if problems:
        raise BadConfiguration("; also: ".join(problems))
    return registry.build(
        bare, num_classes=num_classes, in_channels=in_channels, image_size=size, pretrained=pretrained
    )


def construction(
    name: str, *, num_classes: int, in_channels: int = 3, image_size: tuple[int, int] | None = None
) -> Construction:
    """The call to the library itself that builds what `create` would, without pretrained weights.

    Raises:
        UnknownName, MissingPackage: as `create`.

    Example:
        >>> construction("cifar_resnet20", num_classes=10).function
        'infopro.models.create'
    """
    registry, bare = _find(name)
    return registry.construction(
        bare, num_classes=num_classes, in_channels=in_channels, image_size=image_size
    )


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create` knows and that match a pattern of `*` and `?`.

    A library's are among them if it imports. Of segmentation_models_pytorch it is every architecture with
    every encoder of its own that fits; `create` knows those with timm's encoders, too.

    Example:
        >>> list_models("cifar_resnet?*0")
        ['cifar_resnet110', 'cifar_resnet20']
    """
    return [name for registry in _REGISTRIES for name in _names(registry) if fnmatchcase(name, pattern)]


def required_input(name: str) -> InputRequirement:
    """What images a network takes, and whether it predicts per pixel, without building it.

    Example:
        >>> required_input("cifar_resnet32").fixed, required_input("torchvision/fcn_resnet50").dense
        (False, True)
    """
    registry, bare = _find(name)
    return registry.requirement(bare)


def check_targets(name: str, *, dense: bool, data: str) -> None:
    """Refuse a network whose predictions are not of the kind of the data's targets.

    Args:
        name: of the network.
        dense: whether the data has a class per pixel, a mask, rather than one per image.
        data: the data set's name, for the message.

    Raises:
        UnknownName: no source has the network's name.
        BadConfiguration: the network predicts per pixel and the data has a label per image, or the reverse.

    Example:
        >>> check_targets("cifar_resnet32", dense=False, data="cifar10")
        >>> check_targets("torchvision/fcn_resnet50", dense=False, data="cifar10")
        Traceback (most recent call last):
        infopro.errors.BadConfiguration: torchvision/fcn_resnet50 predicts a class per pixel: got cifar10, ...
    """
    if required_input(name).dense == dense:
        return
    network, other = ("pixel", "image") if not dense else ("image", "pixel")
    example = "torchvision/resnet50" if not dense else "torchvision/deeplabv3_resnet50"
    raise BadConfiguration(
        f"{name} predicts a class per {network}",
        got=f"{data}, which has one per {other}",
        remedy=f"take a network with a prediction per {other}, such as {example}, or other data",
    )


def _find(name: str) -> tuple[Registry, str]:
    for registry in reversed(_REGISTRIES):  # our own, without prefix, last
        bare = name.removeprefix(registry.PREFIX)
        if name.startswith(registry.PREFIX) and registry.has(bare):
            return registry, bare
    missing: dict[str, list[str]] = {}  # extra -> prefixes
    for registry in _REGISTRIES:
        if not _names(registry) and registry.PREFIX not in missing.setdefault(registry.EXTRA, []):
            missing[registry.EXTRA].append(registry.PREFIX)
    needs = [
        f'{" and ".join(prefixes)} names need: pip install "infopro[{extra}]"'
        for extra, prefixes in missing.items()
        if prefixes
    ]
    raise UnknownModel(name, list_models(), remedy="; ".join(needs) or None)


def _names(registry: Registry) -> list[str]:
    try:
        return [registry.PREFIX + name for name in registry.names()]
    except MissingPackage:
        return []


def _nearest(name: str, known: list[str]) -> list[str]:
    """Full names, best first: those that differ only by the prefix, else those spelt like it."""
    bare = _bare(name).lower()
    same = [full for full in known if _bare(full) == bare]
    if same:
        return same
    inside = [full for full in known if f"/{bare}/" in full]  # an architecture without its encoder
    if inside:
        return inside[:3]
    spellings = difflib.get_close_matches(bare, {_bare(full) for full in known}, n=3, cutoff=0.6)
    return [full for spelling in spellings for full in known if _bare(full) == spelling][:5]


def _bare(name: str) -> str:
    """Without the library: `resnet50`, `unet/resnet18`."""
    prefix, _, rest = name.partition("/")
    return rest if f"{prefix}/" in {registry.PREFIX for registry in _REGISTRIES} else name


def _range_problems(**counts: int) -> Iterator[str]:
    for option, value in counts.items():
        if value < 1:
            yield f"{option} is {value}; allowed: 1 or more"


def _image_problems(
    name: str, needed: InputRequirement, in_channels: int, image_size: ImageSize | None
) -> Iterator[str]:
    if needed.channels not in (None, in_channels):
        other = "an smp/ network" if needed.dense else "a timm/ network"
        yield (
            f"{name} takes images of {needed.channels} channels: got in_channels {in_channels}; "
            f"repeat the channel {needed.channels} times, or take {other}, which takes any number"
        )
    if image_size is None:
        return
    size = _size_text(image_size)
    if min(image_size) < needed.smallest:
        other = "another network" if needed.dense else "a cifar_ network"
        yield (
            f"image size too small for {name}: got {size}; allowed: {needed.smallest} or more; "
            f"enlarge the images with image_size, or take {other}"
        )
    step = needed.multiple_of
    if any(side % step for side in image_size):
        larger = _size_text((-(-image_size[0] // step) * step, -(-image_size[1] // step) * step))
        yield (
            f"{name} takes images whose sides are multiples of {step}: got {size}; change image_size or "
            f"crop to {larger}, or take a torchvision/ or smp/unet/ network, which take any"
        )


def _size_text(image_size: ImageSize) -> str:
    rows, columns = image_size
    return f"{rows}" if rows == columns else f"{rows}x{columns}"
