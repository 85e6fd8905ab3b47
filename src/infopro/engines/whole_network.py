"""The network as a whole, where one process holds all of its modules."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from infopro.engines.replicas import Replica
from infopro.errors import NotYetSupported
from infopro.local import LocalModel

__all__ = ["whole_network"]


def whole_network(local: LocalModel, runs: Sequence[Replica], images: Tensor) -> Any:
    """What the caller's own forward makes of images of any size: modules are recorded for one size.

    Raises:
        NotYetSupported: this process holds some of the modules only.
    """
    if len(runs) < len(local.stages):
        raise NotYetSupported(
            "a pipeline tests on images of the size that it is trained on",
            got=list(images.shape[1:]),
            allowed=str(list(local.stages[0].context.image_shape)),
            remedy="let every process run all modules (parallel data), or train without a crop",
        )
    with ExitStack() as held:
        for run in runs:
            held.enter_context(run.whole())
        return local.model(images)
