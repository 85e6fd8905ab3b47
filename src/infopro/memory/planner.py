"""Runs training steps of a fake network, in every manner that a plan compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from infopro.assembly import assemble
from infopro.errors import NotReplayable, UnknownName
from infopro.local import LocalModel
from infopro.memory.choose import Balance, CutChooser, Granularity
from infopro.memory.output_task import task_for
from infopro.memory.step import StepMemory, initialise_optimizer, track_step
from infopro.objectives import EndToEnd, Objective
from infopro.splitting import Checkpoint, LiveSplit, SplitModel, one_by_one, together
from infopro.splitting.fake import FakeNetwork, data_dependence
from infopro.splitting.inputs import check_cut_names, check_runs
from infopro.splitting.program import Program, batch_size_of, build
from infopro.splitting.record import undisturbed
from infopro.splitting.spans import Recompute
from infopro.splitting.split_model import refuse_live
from infopro.tasks import Task
from infopro.types import Split

__all__ = ["OPTIMIZERS", "OptimizerFactory", "Planner"]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, **how: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, **how),
    "adamw": lambda p, **how: torch.optim.AdamW(p, lr=1e-3, **how),
}


class Planner:
    """Predicts what a training step of a network occupies, without running it on real tensors.

    Args:
        inputs: an example of the network's inputs, real or of the "meta" device.
        task: None: cross-entropy of the network's output.
        optimizer: "sgd" with momentum, "adamw", or a function that makes one of parameters.
        on_cuda: count as CUDA's allocator does, and let optimizers work on all parameters at once, as
            they do there.

    Raises:
        BadInput: an example input that the network cannot take.
        NotReplayable: a forward that reads values of tensors, inside blocks.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        *,
        objective: Objective,
        task: Task | None = None,
        balance: Balance = "memory",
        granularity: Granularity = "block",
        optimizer: str | OptimizerFactory = "sgd",
        precision: torch.dtype = torch.float32,
        on_cuda: bool = True,
    ):
        self.network = FakeNetwork(model)
        self.network.model.train()
        self._real = model, inputs
        self._inputs = inputs
        self._objective = objective
        self._choice: dict[str, Any] = {"balance": balance, "granularity": granularity}
        self._optimizer = _factory(optimizer, on_cuda=on_cuda)
        self._precision, self._on_cuda = precision, on_cuda
        with self._running():
            output = check_runs(self.network.model, self.network.inputs(inputs, 2))
        self._task: Task = self.network.copy(task or task_for(output, inputs[0]))
        self._locals: dict[tuple[str | tuple[str, ...], int], LocalModel] = {}
        self._chooser: CutChooser | None = None

    @property
    def chooser(self) -> CutChooser:
        """Answers where the cuts for any K are."""
        if self._chooser is None:
            self._chooser = CutChooser(
                self.network,
                self._inputs,
                objective=self._objective,
                task=self._task,
                precision=self._precision,
            )
        return self._chooser

    def local(
        self, num_modules: int, batch_size: int, checkpoint: Checkpoint = "none"
    ) -> tuple[tuple[str, ...], StepMemory]:
        """The cuts for K modules, and a local step; K = 1 is end to end.

        Raises:
            NotYetSupported: something to recompute in a network that runs live.
        """
        local = self._local(num_modules, checkpoint)
        return local.split.cuts, self.track(local, batch_size)

    def split(self, num_modules: int, checkpoint: Checkpoint = "none") -> Split:
        """What is split where for K modules, and which blocks run again."""
        return self._local(num_modules, checkpoint).split

    def cuts(self, num_modules: int) -> list[str]:
        """The cuts for K modules."""
        return self.chooser.cuts(num_modules, **self._choice)

    def checkpointed(self, batch_size: int) -> StepMemory:
        """End to end, where each block keeps its input only and runs again in the backward pass."""
        return self.local(1, batch_size, "blocks")[1]

    def segmented(self, num_segments: int, batch_size: int, *, stepping: bool = True) -> StepMemory:
        """End to end, where all but the last of K segments run again; see `checkpoint_segments`."""
        key = ("segments", num_segments)
        if key not in self._locals:
            again = together(self.chooser.segments(num_segments))
            self._locals[key] = self._assemble([], again, recompute_objectives=False)
        return self.track(self._locals[key], batch_size, stepping=stepping)

    def accumulated(self, batch_size: int, parts: int) -> StepMemory:
        """End to end, with the batch in equal parts whose gradients add up before the optimizer steps."""
        step = self.track(self._local(1), -(-batch_size // parts), accumulating=True)
        return replace(step, flops=step.flops * parts)

    def least(self, num_modules: int, batch_size: int) -> float:
        """Bytes below which no step with K modules can stay: parameters, optimizer, largest module."""
        scale = batch_size / self.example_batch
        return self.fixed_bytes + 0.9 * self.chooser.largest(num_modules, **self._choice) * scale

    def least_recomputed(self, batch_size: int) -> float:
        """Bytes below which no step can stay, whatever runs again: a block at a time is there as a whole."""
        largest = max(saved for saved, _ in self.chooser.recomputation().values())
        return self.fixed_bytes + 0.9 * largest * batch_size / self.example_batch

    @property
    def example_batch(self) -> int:
        """The batch size that the chooser's costs are for."""
        return max(1, batch_size_of(self._inputs))

    @property
    def fixed_bytes(self) -> int:
        """Parameters, buffers and optimizer state: what no split and no batch size reduces."""
        model = self.network.model
        state = sum(
            value.untyped_storage().nbytes()
            for values in self._with_state(model.parameters()).state.values()
            for value in values.values()
            if isinstance(value, Tensor)
        )
        return state + sum(t.untyped_storage().nbytes() for t in [*model.parameters(), *model.buffers()])

    def build(self, cuts: Sequence[str], checkpoint: Checkpoint = "none") -> LocalModel:
        """The fake local model with these cuts; without any, end to end."""
        again = () if checkpoint == "none" else one_by_one(self.chooser.units, checkpoint)
        return self._assemble(cuts, again, recompute_objectives=checkpoint == "everything")

    def track(
        self, local: LocalModel, batch_size: int, *, accumulating: bool = False, stepping: bool = True
    ) -> StepMemory:
        """One step of a fake local model.

        Args:
            accumulating: the step is the last part of a batch in several.
            stepping: whether there is an optimizer; without one it is what `measure` measures.
        """
        inputs = self.network.inputs(self._inputs, batch_size)
        optimizer = self._with_state(local.parameters()) if stepping else None
        with self._running():
            for parameter in local.parameters() if accumulating else ():
                parameter.grad = torch.zeros_like(parameter)
            step = track_step(
                local,
                inputs,
                self._task.made_up_targets(inputs[0]),
                optimizer=optimizer,
                precision=self._precision,
                rounded=self._on_cuda,
            )
        for parameter in local.parameters():
            parameter.grad = None
        return step

    def _local(self, num_modules: int, checkpoint: Checkpoint = "none") -> LocalModel:
        key = (checkpoint if isinstance(checkpoint, str) else tuple(checkpoint), num_modules)
        if key not in self._locals:
            self._locals[key] = self.build(self.cuts(num_modules) if num_modules > 1 else [], checkpoint)
        return self._locals[key]

    def _assemble(self, cuts: Sequence[str], again: Recompute, *, recompute_objectives: bool) -> LocalModel:
        inputs = self.network.inputs(self._inputs)
        split = self._split(inputs, cuts, again)
        with self._running(), self.network.building_for(inputs[0]):
            return assemble(
                split,
                inputs,
                objective=self._objective if cuts else EndToEnd(),
                task=self._task,
                recompute_objectives=recompute_objectives,
                checked=True,
            )

    def _split(
        self, inputs: tuple[Any, ...], cuts: Sequence[str], again: Recompute
    ) -> SplitModel | LiveSplit:
        model = self.network.model
        check_cut_names(model, tuple(cuts))
        first = None
        try:
            with self._running():
                first = build(model, inputs, cuts=cuts, recompute=again)
        except NotReplayable:
            first, reason = self._record_real(cuts, again)
        with self._running():
            if first is None:
                refuse_live(again, reason)
                return LiveSplit(model, inputs, cuts=cuts, reason=reason, verified=False)
            return SplitModel(model, inputs, cuts=cuts, recompute=again, verified=False, first=first)

    def _record_real(self, cuts: Sequence[str], again: Recompute) -> tuple[Program | None, str]:
        """Branches on input values are recorded with real ones; the fake network then takes the same."""
        model, inputs = self._real
        with undisturbed(model), self._cast():
            model.train()
            try:
                return build(model, inputs, cuts=cuts, recompute=again), ""
            except NotReplayable as reason:
                return None, str(reason)

    def _with_state(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        with self.network.mode:
            optimizer = self._optimizer([p for p in parameters if p.requires_grad])
            initialise_optimizer(optimizer)
        return optimizer

    def _cast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._precision == torch.bfloat16)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with data_dependence(), self.network.mode, self._cast():
            yield


def _factory(optimizer: str | OptimizerFactory, *, on_cuda: bool) -> OptimizerFactory:
    if callable(optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise UnknownName("optimizer", optimizer, OPTIMIZERS)
    return lambda parameters: OPTIMIZERS[optimizer](parameters, foreach=on_cuda)
