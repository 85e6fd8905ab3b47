"""`split`: where a network would be cut, and what each module would hold, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from infopro.errors import BadSplit
from infopro.memory import format_bytes
from infopro.memory.choose import Balance, Granularity
from infopro.memory.planner import Planner
from infopro.memory.tables import render
from infopro.objectives import Greedy, Objective
from infopro.splitting import as_inputs
from infopro.splitting.inputs import check_network
from infopro.splitting.program import batch_size_of
from infopro.tasks import Task
from infopro.types import Split

__all__ = ["ModuleRow", "SplitTable", "split"]


@dataclass(frozen=True)
class ModuleRow:
    """What one of the K modules would be."""

    index: int
    blocks: tuple[str, ...]
    parameters: int
    head_parameters: int
    flops: int  # of one step of the batch, forward and backward, heads included
    saved_bytes: int  # for the backward pass, heads included
    boundary_shape: tuple[int, ...]  # of what the local objective reads, without the batch dimension
    boundary_bytes: int  # of all that crosses to the next module; 0 for the last
    skips: int  # tensors that cross besides the boundary


@dataclass(frozen=True)
class SplitTable:
    """A split and what its modules hold; `print(table)` shows it."""

    split: Split
    rows: tuple[ModuleRow, ...]
    batch_size: int

    @property
    def cuts(self) -> tuple[str, ...]:
        """The blocks that end a module: what `localize(cuts=...)` takes."""
        return self.split.cuts

    @property
    def largest_share(self) -> float:
        """Of all saved bytes, those of the largest module; 1/K is the ideal."""
        saved = [row.saved_bytes for row in self.rows]
        return max(saved) / sum(saved)

    def __str__(self) -> str:
        columns = [
            *(
                "module",
                "blocks",
                "parameters",
                "heads",
                "operations",
                "saved",
                "boundary",
                "crosses",
                "skips",
            ),
        ]
        rows = [_cells(row, last=row is self.rows[-1]) for row in self.rows]
        title = f"{len(self.rows)} modules, one step of batch {self.batch_size}, heads included"
        share = f"the largest module saves {self.largest_share:.1%} of all (ideal {1 / len(self.rows):.1%})"
        return "\n".join([render(title, columns, rows), share, *(f"note: {n}" for n in self.split.notes)])

    __repr__ = __str__


def split(
    model: nn.Module,
    example_input: Any,
    *,
    num_modules: int | None = None,
    cuts: Sequence[str] | None = None,
    balance: Balance = "memory",
    granularity: Granularity = "block",
    objective: Objective | None = None,
    task: Task | None = None,
) -> SplitTable:
    """Show where a network would be cut: blocks, parameters, operations, saved and crossing bytes per module.

    Nothing is trained or allocated: the numbers are those of a step with fake tensors, at the example's
    batch size.

    Args:
        num_modules: K; or name the K-1 blocks that end a module in `cuts`.
        balance: see `localize`.
        objective: whose heads are counted; Greedy's if none is given.
        task: None: cross-entropy of the network's output.

    Raises:
        BadSplit, BadInput: see `localize`.

    Example:
        >>> import torch, infopro
        >>> model = infopro.models.cifar_resnet(20, 10)
        >>> table = infopro.split(model, torch.zeros(8, 3, 32, 32), num_modules=3)
        >>> table.cuts, [row.skips for row in table.rows]
        (('layer1.1', 'layer2.0'), [0, 0, 0])
    """
    inputs = as_inputs(example_input)
    if (cuts is None) == (num_modules is None):
        raise BadSplit("give either cuts or num_modules", got=f"cuts={cuts}, num_modules={num_modules}")
    check_network(model, inputs)
    planner = Planner(
        model,
        inputs,
        objective=objective or Greedy(),
        task=task,
        balance=balance,
        granularity=granularity,
        on_cuda=False,
    )
    size = batch_size_of(inputs)
    local = planner.build(cuts if cuts is not None else planner.cuts(num_modules or 0))
    step = planner.track(local, size)
    shapes = [*local.split.boundary_shapes, ()]
    crossing = [*step.crossing, *[0] * (len(shapes) - len(step.crossing))]
    rows = tuple(
        ModuleRow(
            index=index,
            blocks=blocks,
            parameters=sum(p.numel() for p in stage.part.parameters()),
            head_parameters=sum(p.numel() for p in stage.objective.parameters()),
            flops=step.module_flops[index],
            saved_bytes=step.saved[index],
            boundary_shape=shapes[index],
            boundary_bytes=crossing[index],
            skips=[*local.split.carried, 0][index],
        )
        for index, (stage, blocks) in enumerate(zip(local.stages, local.split.blocks, strict=True))
    )
    return SplitTable(local.split, rows, size)


def _cells(row: ModuleRow, *, last: bool) -> list[str]:
    first, final = row.blocks[0], row.blocks[-1]
    blocks = first if len(row.blocks) == 1 else f"{first} ... {final} ({len(row.blocks)})"
    cells = [f"{row.index + 1}", blocks, f"{row.parameters:,}", f"{row.head_parameters:,}"]
    cells += [f"{row.flops / 1e9:.2f} G", format_bytes(row.saved_bytes)]
    if last:
        return [*cells, "", "", ""]
    shape = "x".join(map(str, row.boundary_shape))
    return [*cells, shape, format_bytes(row.boundary_bytes), f"{row.skips}"]
