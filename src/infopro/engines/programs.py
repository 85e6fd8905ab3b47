"""The recordings that all processes of a run share: made before any of them gives parameters away."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infopro.errors import NotYetSupported
from infopro.local import LocalModel
from infopro.splitting import Flow, start
from infopro.splitting.program import Program

__all__ = ["Programs"]


class Programs:
    """A network's program in train mode and in eval mode, for one kind of input.

    Raises:
        NotYetSupported: a forward that branches on the values of its inputs: only the first module sees them.
    """

    def __init__(self, local: LocalModel, example: Tensor, *, precision: torch.dtype):
        self._programs = {
            training: _program(local, example, precision, training) for training in (True, False)
        }
        local.train()

    def of(self, *, training: bool) -> Program:
        return self._programs[training]

    def start(self, inputs: tuple[Any, ...], *, training: bool) -> Flow:
        """What the first module reads."""
        return start(self._programs[training], inputs)


def _program(local: LocalModel, example: Tensor, precision: torch.dtype, training: bool) -> Program:
    local.train(training)
    lower = precision != torch.float32
    with torch.autocast(example.device.type, dtype=precision if lower else None, enabled=lower):
        program = local.start((example,)).program
    if program.guards:
        raise NotYetSupported(
            "forward branches on the values of its inputs, which later modules do not see",
            got=", ".join(sorted({guard.read.target.__name__ for guard in program.guards})),
            remedy="train all modules together, in one process",
        )
    return program
