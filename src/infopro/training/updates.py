"""From a step's gradients to new weights: clipped module by module, or left out where they are no numbers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from infopro.engines import Engine, Work
from infopro.errors import BadInput
from infopro.training.averaging import WeightAverages
from infopro.training.divergence import GRADIENT_NORM, Diverged
from infopro.types import StepOutput

__all__ = ["Updates", "clipped"]

MOST_IN_A_ROW = 10


class Updates:
    """Called around every `Engine.backward`: `begin` before it, `finish` behind it.

    Args:
        clip: the largest L2 norm that the gradients of one module, its heads included, may have; larger ones
            are scaled down to it. The norms before join the module's losses, as "gradient_norm".
        skip: leave out a step with a loss or a gradient that is not finite: weights, optimizer state and
            buffers (BatchNorm's statistics, too) stay as they were before it. Every step then waits for the
            device once. Needs all modules in this process.
        averages: take in the weights after every step that was not left out.

    Raises:
        BadInput: `clip` or `skip` with an engine that steps the optimizer itself; `skip` in several
            processes.
    """

    def __init__(
        self,
        engine: Engine,
        optimizer: Optimizer,
        *,
        clip: float | None = None,
        skip: bool = False,
        averages: WeightAverages | None = None,
    ):
        _require_possible(engine, clip=clip, skip=skip)
        self._engine = engine
        self._optimizer = optimizer
        self._clip = clip
        self._skip = skip
        self._averages = averages
        self._modules = _parameters(engine)
        self._buffers = [b for b in engine.local.buffers() if not b.is_meta] if skip else []
        self._before: list[Tensor] = []
        self._in_a_row = 0

    def begin(self) -> None:
        """No gradients yet."""
        self._optimizer.zero_grad(set_to_none=True)
        self._before = [buffer.clone() for buffer in self._buffers]

    def finish(self, out: StepOutput, work: Work) -> StepOutput | None:
        """Update the weights; None, if the step was left out.

        Raises:
            Diverged: ten steps in a row were left out.
        """
        if self._clip is not None or self._skip:
            out = self._with_norms(out)
        if self._skip and not _is_finite(out):
            self._leave_out(work)
            return None
        self._in_a_row = 0
        if self._engine.optimizer is None:
            with self._engine.span("optimizer", work.step):
                self._optimizer.step()
        if self._averages is not None:
            with self._engine.span("optimizer", work.step):
                self._averages.update()
        return out

    def _with_norms(self, out: StepOutput) -> StepOutput:
        limit = float("inf") if self._clip is None else self._clip
        losses = [
            {**found, GRADIENT_NORM: clipped(parameters, limit)} if parameters else found
            for found, parameters in zip(out.losses, self._modules, strict=True)
        ]
        return replace(out, losses=tuple(losses))

    def _leave_out(self, work: Work) -> None:
        with torch.no_grad():
            for buffer, before in zip(self._buffers, self._before, strict=True):
                buffer.copy_(before)
        self._in_a_row += 1
        if self._in_a_row == MOST_IN_A_ROW:
            raise Diverged(
                f"{MOST_IN_A_ROW} steps in a row were not finite and left out, the last in epoch "
                f"{work.phase.epoch}, step {work.step + 1}",
                remedy="lower --learning-rate, or set --clip-gradients, with another --output; "
                "checkpoints from before are whole",
            )


def clipped(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients down to a norm of `limit`, where theirs is larger; theirs."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=None)
    if limit < float("inf"):
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    found: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return found.detach()


def _is_finite(out: StepOutput) -> bool:
    values = torch.stack([value.double() for losses in out.losses for value in losses.values()])
    return bool(values.isfinite().all())


def _parameters(engine: Engine) -> list[list[nn.Parameter]]:
    """Of each module of this process; what several of them share is the last one's."""
    stages = [engine.local.stages[index] for index in engine.stages]
    last = {parameter: k for k, stage in enumerate(stages) for parameter in stage.parameters()}
    return [[p for p in stage.parameters() if last[p] == k] for k, stage in enumerate(stages)]


def _require_possible(engine: Engine, *, clip: float | None, skip: bool) -> None:
    if engine.optimizer is not None and (clip is not None or skip):
        raise BadInput(
            "gradients are clipped, or steps left out, before the optimizer steps, and this engine steps it",
            remedy="make the engine without an optimizer",
        )
    if skip and (engine.replicas > 1 or len(engine.stages) < len(engine.local.stages)):
        raise BadInput(
            "a step can be left out only where one process runs all modules",
            got=f"modules {engine.stages.start + 1} to {engine.stages.stop}, {engine.replicas} replicas",
            remedy="pass on_divergence='stop', or run in one process",
        )
