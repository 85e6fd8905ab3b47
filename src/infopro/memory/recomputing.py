"""Chooses which blocks run again in the backward pass: no more than a memory budget asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from infopro.memory.planner import Planner

__all__ = ["fewest", "order"]


def fewest(
    planner: Planner, blocks: Sequence[str], suffices: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """As few of the first of `blocks` as suffice, found by halving; all of them do. In order of execution."""

    def first(number: int) -> tuple[str, ...]:
        return tuple(name for name in planner.chooser.units if name in blocks[:number])

    too_few, enough = 0, len(blocks)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if suffices(first(middle)) else (middle, enough)
    return first(enough)


def order(planner: Planner, batch_size: int, num_modules: int) -> list[str]:
    """All blocks, in the order in which they are best given up.

    Each time, of the module that still saves most, the block with the most bytes per recomputed operation.
    """
    costs = planner.chooser.recomputation()
    scale = batch_size / planner.example_batch
    left: list[float] = [*planner.local(num_modules, batch_size)[1].saved]
    modules = planner.split(num_modules, "blocks").blocks
    blocks = [[name for name in costs if _inside(name, own)] for own in modules]
    chosen: list[str] = []
    while any(blocks):
        largest = max((k for k, own in enumerate(blocks) if own), key=lambda k: left[k])
        best = max(blocks[largest], key=lambda name: costs[name][0] / max(costs[name][1], 1))
        blocks[largest].remove(best)
        left[largest] -= scale * costs[best][0]
        chosen.append(best)
    return list(dict.fromkeys(chosen))  # a block that a cut divides belongs to two modules


def _inside(name: str, calls: tuple[str, ...]) -> bool:
    return any(call == name or call.startswith(f"{name}.") for call in calls)
