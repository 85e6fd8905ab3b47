"""`plan`: what a training step will occupy, for every manner of training it, before any GPU is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from infopro.errors import BadConfiguration, BadInput
from infopro.memory.budget import Answer, DoesNotFit, answer_for, largest_batch, parse_bytes
from infopro.memory.choose import Balance, Granularity
from infopro.memory.planner import OptimizerFactory, Planner
from infopro.memory.step import StepMemory
from infopro.memory.tables import plan_table
from infopro.objectives import InfoPro, Objective
from infopro.splitting import as_inputs
from infopro.splitting.program import batch_size_of
from infopro.tasks import Task

__all__ = ["Plan", "PlanRow", "plan"]

NOT_COUNTED = (
    "workspaces that convolutions and matrix products use inside themselves",
    "the allocator's reserve and fragmentation, the device's own context, the data loader's batches",
)
NOT_COUNTED_ON_CUDA = (
    "what GPU kernels save otherwise than the CPU's: cuDNN's BatchNorm, fused attention, autocast's lists"
)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class PlanRow:
    """One manner of training, and the bytes of its step."""

    method: str
    num_modules: int
    batch_size: int
    cuts: tuple[str, ...]
    step: StepMemory
    checkpoint: str = "none"  # "blocks", or end to end "segments"


@dataclass(frozen=True)
class Plan:
    """Predicted bytes of one training step; `print(plan)` shows them as a table."""

    network: str
    input_shapes: tuple[tuple[int, ...], ...]  # without the batch dimension
    objective: str
    optimizer: str
    precision: str
    rows: tuple[PlanRow, ...]  # end to end first
    not_counted: tuple[str, ...]
    answer: Answer | None = None  # to a memory budget

    @property
    def end_to_end(self) -> PlanRow:
        """Ordinary training."""
        return self.rows[0]

    def local(self, num_modules: int, checkpoint: Literal["none", "blocks"] = "none") -> PlanRow:
        """The row of K local modules, without checkpointing or with every block checkpointed.

        Raises:
            BadInput: a K that was not planned.
        """
        local = [row for row in self.rows if row.method.startswith("local")]
        rows = {row.num_modules: row for row in local if row.checkpoint == checkpoint}
        if num_modules not in rows:
            raise BadInput("no row of the plan has this K", got=num_modules, allowed=f"{sorted(rows)}")
        return rows[num_modules]

    def __str__(self) -> str:
        return plan_table(self)


def plan(
    model: nn.Module,
    example_input: Any,
    *,
    batch_size: int | Literal["largest"] | None = None,
    num_modules: Sequence[int] = (2, 3, 4, 8, 16),
    objective: Objective | None = None,
    task: Task | None = None,
    optimizer: str | OptimizerFactory = "sgd",
    precision: str = "float32",
    balance: Balance = "memory",
    granularity: Granularity = "block",
    memory: str | int | None = None,
    device: str = "cuda",
) -> Plan:
    """Predict the bytes of one training step end to end, with checkpointing, with accumulation, and in K
    local modules with and without checkpointing.

    The step is run with fake tensors: every operation and its backward pass, but no data. Nothing is
    allocated, no
    GPU is needed, the network is left as it is. Every row follows this package's own training step, heads and
    optimizer included. It is not what `nvidia-smi` shows: `Plan.not_counted` says what is missing.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs; real, or on the "meta" device.
        batch_size: None: N. "largest": for end to end and each K the largest that `memory` allows.
        num_modules: the K to plan, of local modules and of checkpointed segments; those above the number of
            blocks are left out, and said so.
        objective: of the local modules; InfoPro with a softmax head if none is given.
        task: None: cross-entropy of the network's output.
        optimizer: "sgd" (with momentum), "adamw", or a function from parameters to an optimizer.
        precision: "float32", or "bfloat16" for autocast.
        memory: a budget such as "8GiB", or bytes; `Plan.answer` is then what `localize` would choose for it.
        device: "cuda" counts blocks of 512 bytes and optimizers that work on all parameters at once;
            "cpu" exact bytes.

    Raises:
        BadConfiguration: an unknown precision, a K or batch size below 1, a memory size that cannot be read.
        BadInput: an example input that the network cannot take.
        DoesNotFit: a "largest" batch where not even two images fit.
        NotReplayable: a forward that reads values of tensors inside its blocks.

    Example:
        >>> import torch, infopro
        >>> model = infopro.models.cifar_resnet(20, 10)
        >>> found = infopro.plan(model, torch.zeros(64, 3, 32, 32), num_modules=[2, 4])
        >>> found.local(4).step.peak < found.local(2).step.peak < found.end_to_end.step.peak
        True
    """
    inputs = as_inputs(example_input)
    size = batch_size if isinstance(batch_size, int) else batch_size_of(inputs)
    budget = None if memory is None else parse_bytes(memory)
    _check(num_modules, size, precision, device, largest=batch_size == "largest", budget=budget)
    objective = objective or InfoPro()
    if objective.num_modules is not None:
        raise BadConfiguration(
            "a plan shows end to end beside a local objective",
            got=objective.name,
            remedy="choose a local one, such as greedy or infopro-softmax",
        )
    planner = Planner(
        model,
        inputs,
        objective=objective,
        task=task,
        balance=balance,
        granularity=granularity,
        optimizer=optimizer,
        precision=PRECISIONS[precision],
        on_cuda=device == "cuda",
    )
    possible = [k for k in sorted(set(num_modules)) if 1 < k <= planner.chooser.most_modules]
    left_out = sorted(set(num_modules) - set(possible) - {1})
    if batch_size == "largest" and budget is not None:
        rows, answer = _largest_batches(planner, possible, budget), None
    else:
        rows = _rows(planner, possible, size)
        answer = None if budget is None else answer_for(planner, budget, size, rows)
    return Plan(
        network=type(model).__name__,
        input_shapes=tuple(tuple(x.shape[1:]) for x in inputs if isinstance(x, Tensor)),
        objective=objective.name,
        optimizer=optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", "custom"),
        precision=precision,
        rows=rows,
        not_counted=_not_counted(left_out, planner, device),
        answer=answer,
    )


def _rows(planner: Planner, possible: Sequence[int], batch_size: int) -> tuple[PlanRow, ...]:
    local = [PlanRow(f"local K = {k}", k, batch_size, *planner.local(k, batch_size)) for k in possible]
    exact, again = [], []
    if not planner.split(1).live:
        step = planner.checkpointed(batch_size)
        exact.append(PlanRow("checkpoint per block", 1, batch_size, (), step, "blocks"))
        for k in possible:
            step = planner.segmented(k, batch_size)
            exact.append(PlanRow(f"checkpoint {k} segments", 1, batch_size, (), step, "segments"))
            found = planner.local(k, batch_size, "blocks")
            again.append(PlanRow(f"local K = {k} + checkpoint", k, batch_size, *found, "blocks"))
    whole = PlanRow("end to end", 1, batch_size, *planner.local(1, batch_size))
    return (whole, *exact, *_accumulation(planner, batch_size), *local, *again)


def _largest_batches(planner: Planner, possible: Sequence[int], budget: int) -> tuple[PlanRow, ...]:
    """What fits of end to end is shown, too, if anything does."""
    rows = []
    for k in (1, *possible):
        try:
            size = largest_batch(planner, k, budget)
        except DoesNotFit:
            if k == max((1, *possible)):
                raise
            continue
        name = "end to end" if k == 1 else f"local K = {k}"
        rows.append(PlanRow(name, k, size, *planner.local(k, size)))
    return tuple(rows)


def _accumulation(planner: Planner, batch_size: int, parts: int = 4) -> list[PlanRow]:
    if batch_size < 2 * parts:
        return []
    step = planner.accumulated(batch_size, parts)
    return [PlanRow(f"accumulate {parts} parts", 1, batch_size, (), step)]


def _not_counted(left_out: list[int], planner: Planner, device: str) -> tuple[str, ...]:
    most = planner.chooser.most_modules
    lines = [*NOT_COUNTED, *([NOT_COUNTED_ON_CUDA] if device == "cuda" else [])]
    if planner.split(1).live:
        lines.append("checkpointing: the network cannot be recorded, and runs live")
    if left_out:
        lines.append(f"K = {', '.join(map(str, left_out))}: the network has {most} blocks")
    return tuple(lines)


def _check(
    num_modules: Sequence[int],
    batch_size: int,
    precision: str,
    device: str,
    *,
    largest: bool,
    budget: int | None,
) -> None:
    problems = []
    if largest and budget is None:
        problems.append('the largest batch needs a budget: memory="8GiB"')
    if any(k < 1 for k in num_modules):
        problems.append(f"num_modules must be 1 or more, got {list(num_modules)}")
    if batch_size < 1:
        problems.append(f"batch_size must be 1 or more, got {batch_size}")
    if precision not in PRECISIONS:
        problems.append(f"unknown precision {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if device not in ("cuda", "cpu"):
        problems.append(f"unknown device {device!r}, allowed: cuda, cpu")
    if problems:
        raise BadConfiguration("; ".join(problems))
