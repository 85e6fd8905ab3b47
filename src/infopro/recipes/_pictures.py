"""What a run's own decoders make of a few test images, as training goes on: what modules forget."""

from __future__ import annotations

import torch
from torch import Tensor

from infopro.analysis import own_reconstructions
from infopro.recipes._mask_examples import middle_images
from infopro.recipes._session import Session
from infopro.training import TensorBoardLog
from infopro.training.reading import plain_batches

__all__ = ["Pictures"]

_SHOWN = 8
_MOST = 20  # times in a run: TensorBoard keeps them all


class Pictures:
    """The first test images, and what each module's decoder draws of them; one batch, without a gradient.

    Of runs in one process whose modules have decoders; for others nothing is written. After every epoch, or
    20 times in a run, evenly spread, the last epoch among them.
    """

    def __init__(self, session: Session):
        self._session = session
        self._images: Tensor | None = None
        heads = [stage.heads for stage in session.local.stages[:-1]]
        self.possible = (
            session.processes is None and bool(heads) and all("reconstruction" in each for each in heads)
        )

    def write(self, board: TensorBoardLog, epoch: int) -> None:
        """Write the pictures of an epoch that has just ended, if it is one of those shown."""
        if not (self.possible and board.available and is_shown(epoch, self._session.config.epochs)):
            return
        images, local = self._test_images(), self._session.local
        decoded = {
            f"module_{index}/reconstructed_images": view.images
            for index, view in enumerate(own_reconstructions(local, images), start=1)
        }
        board.add_images(epoch, local.task.to_unit(images), decoded)

    def _test_images(self) -> Tensor:
        if self._images is None:
            data = self._session.data
            if data.has_masks:
                self._images, _ = middle_images(self._session)  # decoders draw one size
                return self._images
            shown = data.test.take(torch.arange(min(_SHOWN, len(data.test))))
            found = plain_batches(shown, data, batch_size=_SHOWN, device=self._session.device)
            self._images, _ = next(found)
        return self._images


def is_shown(epoch: int, epochs: int) -> bool:
    """Whether it ends one of the 20 parts of a run; depends on nothing that a resumed run would not know.

    Example:
        >>> [epoch for epoch in range(1, 51) if is_shown(epoch, 50)][:4]
        [3, 5, 8, 10]
    """
    return epochs <= _MOST or epoch * _MOST // epochs > (epoch - 1) * _MOST // epochs
