"""What each block of a network knows: of the image, of its class and of its nuisance, by probes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from infopro.analysis._types import ProbeResults
from infopro.analysis.blocks import blocks_of
from infopro.analysis.linear import require_solver
from infopro.analysis.network_pass import INPUT, OnStep, unreported
from infopro.analysis.probe_images import choose_images
from infopro.analysis.probe_settings import ProbeSettings
from infopro.analysis.probing import Probing
from infopro.analysis.reconstructions import frozen_features
from infopro.data import ImageData
from infopro.errors import BadInput, UnknownName
from infopro.tasks import Task

__all__ = ["ESTIMATES", "probe_blocks"]

ESTIMATES = ("linear", "input", "task", "nuisance")


def probe_blocks(
    model: nn.Module,
    task: Task,
    data: ImageData,
    *,
    blocks: Sequence[str] | None = None,
    module_of: Mapping[str, int] | None = None,
    estimates: Collection[str] = ESTIMATES,
    settings: ProbeSettings | None = None,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    on_step: OnStep | None = None,
) -> ProbeResults:
    """Probe what the output of each block says of the image, of its class and of its nuisance.

    The network is frozen and in eval mode, its images are not augmented. They run through it once; probes of
    all blocks and seeds are trained together on what comes out, on a class-balanced part of `data.train`, and
    are tested on one of `data.test`. The network, its modes, its hooks and the random streams stay as they
    were. On the CPU the same seed gives the same numbers bit for bit, whatever other blocks are probed.

    Args:
        task: what undoes the images' normalisation.
        blocks: names of modules, in order of execution; None for all of `blocks_of`.
        module_of: the local module, 1 to K, of each block, as `modules_of_blocks` gives it; None: all are 1.
        estimates: which of "linear", "input", "task", "nuisance".
        device: where the network is; None: that of its parameters.
        num_workers: processes that read image files.
        on_step: called with (what is being done, steps done, steps in all).

    Returns:
        `.references`, `.blocks` (the image itself first, as block "input" at depth 0), `.images` (the decoded
        ones), `.settings` and `.notes`.

    Raises:
        BadData: too few images for the probes, or a class that has none.
        BadInput: a block without features of each image, features that are not finite, or a task whose `mean`
            and `std` are not the data's.
        UnknownName: a block that the network does not have, or an unknown estimate.
        BadConfiguration: no room for the features. MissingPackage: scikit-learn is not installed.
    """
    settings = settings or ProbeSettings()
    _check_estimates(estimates)
    device = _device_of(model) if device is None else torch.device(device)
    images = choose_images(data, settings)
    example = torch.zeros(2, *data.image_shape, device=device)
    names = tuple(blocks_of(model, example) if blocks is None else blocks)
    with frozen_features(model, names) as features_of:
        probing = Probing(
            images,
            {INPUT: data.image_shape, **_shapes(features_of(example), names, num_images=len(example))},
            estimates=frozenset(estimates),
            settings=settings,
            device=device,
            on_step=on_step or unreported,
        )
        return probing.run(
            features_of, copy.deepcopy(task).to(device), num_workers=num_workers, module_of=module_of or {}
        )


def _device_of(model: nn.Module) -> torch.device:
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _check_estimates(estimates: Collection[str]) -> None:
    for name in estimates:
        if name not in ESTIMATES:
            raise UnknownName("estimate", name, ESTIMATES)
    if "linear" in estimates:
        require_solver()  # before everything else is trained


def _shapes(
    features: Mapping[str, Tensor], names: Sequence[str], *, num_images: int
) -> dict[str, tuple[int, ...]]:
    """What each block returns for one image."""
    for name in names:
        if name not in features or features[name].shape[:1] != (num_images,):
            raise BadInput(
                f"the block {name!r} returns no features of each image",
                got=list(features[name].shape) if name in features else "nothing: it did not run",
                remedy="infopro.blocks(model, x) lists blocks that do",
            )
    return {name: tuple(features[name].shape[1:]) for name in names}
