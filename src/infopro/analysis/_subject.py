"""What is analysed: a network with the images and the task that it was made for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infopro.analysis.blocks import blocks_of
from infopro.data import ImageData, Images
from infopro.errors import BadInput, UnknownName
from infopro.splitting.inputs import check_network, check_runs
from infopro.tasks import Classification, Task
from infopro.training.reading import plain_batches

__all__ = ["Subject", "absent"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network, what it is for and where it is."""

    network: nn.Module
    task: Task
    data: ImageData
    device: torch.device
    num_workers: int

    def example(self) -> Tensor:
        """Two images of the data's shape, without its content."""
        shape = self.data.image_shape
        return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def batches(self, images: Images, *, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, since a data set may come class by class; normalised, without augmentation."""
        return plain_batches(
            images,
            self.data,
            batch_size=batch_size,
            device=self.device,
            num_workers=self.num_workers,
            shuffle=True,
            seed=seed,
        )

    def blocks(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """The blocks to look at, by name or all, of a network that then is known to fit task and data.

        Raises:
            BadInput: a network that does not classify one image tensor into the task's classes.
            UnknownName: no block of that name.
        """
        self._check()
        if names is None:
            return blocks_of(self.network, self.example())
        wrong = absent(self.network, names)
        if wrong:
            known = [name for name, _ in self.network.named_modules() if name]
            own = ", ".join(blocks_of(self.network, self.example()))
            raise UnknownName("block", wrong[0], known, remedy=f"without names these are analysed: {own}")
        return tuple(names)

    def _check(self) -> None:
        if not isinstance(self.task, Classification):
            raise BadInput(
                "an analysis is of one class per image",
                got=type(self.task).__name__,
                allowed="a network that classifies, and tasks.Classification",
            )
        inputs = (self.example(),)
        check_network(self.network, inputs)
        with torch.no_grad():
            self.task.check_output(check_runs(self.network, inputs))


def absent(network: nn.Module, blocks: Sequence[str]) -> list[str]:
    """The names that no module of the network has."""
    known = {name for name, _ in network.named_modules() if name}
    return [name for name in blocks if name not in known]
