"""Networks by name: the papers' CIFAR networks, and every classifier of timm and torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn

from infopro.errors import BadConfiguration, InfoProError, MissingPackage, UnknownName
from infopro.models import _own, _timm, _torchvision
from infopro.models._registry import InputRequirement, Registry
from infopro.models.cifar_densenet import cifar_densenet_bc
from infopro.models.cifar_resnet import cifar_resnet, demo_resnet

__all__ = [
    "InputRequirement",
    "UnknownModel",
    "cifar_densenet_bc",
    "cifar_resnet",
    "create",
    "demo_resnet",
    "list_models",
    "required_input",
]

_REGISTRIES: tuple[Registry, ...] = (_own, _timm, _torchvision)


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
    image_size: int | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build a classifier by name: images [N, in_channels, H, W] to logits [N, num_classes].

    Names: this package's own (`cifar_resnet32`, `cifar_densenet_bc_100_12`, `demo_resnet`), `timm/NAME` and
    `torchvision/NAME`. `image_size`, the images' side in pixels, reaches only networks that are built for one
    size (vision transformers); for the others it is only checked.

    Raises:
        UnknownName: no source has the name; the message lists near ones.
        BadConfiguration: the network cannot have these channels, this image size, or pretrained weights.
        MissingPackage: timm or torchvision is missing or does not import.

    Example:
        >>> network = create("cifar_resnet20", num_classes=10, in_channels=1)
        >>> network.conv1.weight.shape
        torch.Size([16, 1, 3, 3])
    """
    registry, bare = _find(name)
    problems = [
        *_range_problems(num_classes=num_classes, in_channels=in_channels),
        *_image_problems(name, registry.requirement(bare), in_channels, image_size),
    ]
    if problems:
        raise BadConfiguration("; also: ".join(problems))
    return registry.build(
        bare, num_classes=num_classes, in_channels=in_channels, image_size=image_size, pretrained=pretrained
    )


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create` knows and that match a pattern of `*` and `?`.

    timm's and torchvision's are among them if the library imports.

    Example:
        >>> list_models("cifar_resnet?*0")
        ['cifar_resnet110', 'cifar_resnet20']
    """
    return [name for registry in _REGISTRIES for name in _names(registry) if fnmatchcase(name, pattern)]


def required_input(name: str) -> InputRequirement:
    """What images a network takes, without building it.

    Example:
        >>> required_input("cifar_resnet32").fixed
        False
    """
    registry, bare = _find(name)
    return registry.requirement(bare)


def _find(name: str) -> tuple[Registry, str]:
    for registry in reversed(_REGISTRIES):  # our own, without prefix, last
        bare = name.removeprefix(registry.PREFIX)
        if name.startswith(registry.PREFIX) and registry.has(bare):
            return registry, bare
    missing = [registry.PREFIX for registry in _REGISTRIES if not _names(registry)]
    remedy = f'{" and ".join(missing)} names need: pip install "infopro[vision]"' if missing else None
    raise UnknownModel(name, list_models(), remedy=remedy)


def _names(registry: Registry) -> list[str]:
    try:
        return [registry.PREFIX + name for name in registry.names()]
    except MissingPackage:
        return []


def _nearest(name: str, known: list[str]) -> list[str]:
    """Full names, best first: those that differ only by the prefix, else those spelt like it."""
    bare = name.rpartition("/")[2].lower()
    same = [full for full in known if full.rpartition("/")[2] == bare]
    if same:
        return same
    spellings = difflib.get_close_matches(bare, {full.rpartition("/")[2] for full in known}, n=3, cutoff=0.6)
    return [full for spelling in spellings for full in known if full.rpartition("/")[2] == spelling][:5]


def _range_problems(**counts: int) -> Iterator[str]:
    for option, value in counts.items():
        if value < 1:
            yield f"{option} is {value}; allowed: 1 or more"


def _image_problems(
    name: str, needed: InputRequirement, in_channels: int, image_size: int | None
) -> Iterator[str]:
    if needed.channels not in (None, in_channels):
        yield (
            f"{name} takes images of {needed.channels} channels: got in_channels {in_channels}; "
            f"repeat the channel {needed.channels} times, or take a timm/ network, which takes any number"
        )
    if image_size is not None and image_size < needed.smallest:
        yield (
            f"image size too small for {name}: got {image_size}; allowed: {needed.smallest} or more; "
            "enlarge the images with image_size, or take a cifar_ network"
        )
