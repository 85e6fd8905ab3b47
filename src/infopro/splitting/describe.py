"""What a user should know of a split, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from infopro.errors import BadSplit
from infopro.splitting.live import Observation
from infopro.splitting.part import Part
from infopro.splitting.program import Program
from infopro.types import Split

__all__ = ["describe_live", "describe_recorded"]


def describe_recorded(
    program: Program, cuts: tuple[str, ...], parts: Sequence[Part], notes: Iterable[str]
) -> Split:
    """The description of a split whose parts are replayed."""
    notes = [*notes, *_notes_on_parameters(parts)]
    if program.kept:
        notes.append(
            "not checkpointed, because a second run would differ or the network checkpoints itself: "
            + ", ".join(program.kept)
        )
    if program.constants:
        notes.append(
            "forward uses tensors that are neither parameters nor buffers: they are kept as recorded"
        )
    if program.guards:
        notes.append(
            "forward branches on values of its inputs: each new branch is recorded when it first comes"
        )
    _refuse_empty(cuts, parts)
    return Split(
        cuts=cuts,
        blocks=tuple(part.blocks for part in program.parts),
        boundary_shapes=tuple(part.boundary_shape for part in program.parts[:-1]),
        carried=tuple(len(part.gives) - 1 for part in program.parts[:-1]),
        notes=tuple(notes),
        recomputed=program.recomputed,
    )


def describe_live(
    seen: Observation, cuts: tuple[str, ...], parts: Sequence[Part], notes: Iterable[str]
) -> Split:
    """The description of a split that runs the network's own forward."""
    _refuse_empty(cuts, parts)
    return Split(
        cuts=cuts,
        blocks=tuple(
            tuple(name for name, stage in seen.blocks.items() if stage == index)
            for index in range(len(parts))
        ),
        boundary_shapes=tuple(seen.boundary_shapes),
        carried=tuple(seen.carried(cut) for cut in range(len(cuts))),
        notes=(*notes, *_notes_on_parameters(parts)),
        live=True,
    )


def _notes_on_parameters(parts: Sequence[Part]) -> list[str]:
    owners = Counter(id(p) for part in parts for p in {id(q): q for q in part.parameters()}.values())
    shared = sum(count > 1 for count in owners.values())
    if not shared:
        return []
    return [f"{shared} parameters are used by several modules and learn from each of their losses"]


def _refuse_empty(cuts: tuple[str, ...], parts: Sequence[Part]) -> None:
    empty = [k + 1 for k, part in enumerate(parts) if next(part.parameters(), None) is None]
    if empty:
        raise BadSplit(f"module {empty[0]} has no parameters", got=list(cuts), remedy="move or drop a cut")
