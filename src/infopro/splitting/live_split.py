"""A split that runs the network's own forward, live, where it cannot be recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from infopro.errors import BadSplit, NotSplittable, NotYetSupported
from infopro.splitting.describe import describe_live
from infopro.splitting.inputs import check_cut_names
from infopro.splitting.live import Observation, run_live
from infopro.splitting.part import Flow, Part
from infopro.splitting.program import resized
from infopro.splitting.record import undisturbed
from infopro.splitting.verify import verify_live

__all__ = ["LiveSplit"]


class LiveSplit:
    """The caller's network in K parts that only run together, in one process, by the network's own forward.

    Args:
        reason: why the network is not recorded; kept in the notes.
        verified: False is for fake tensors, whose values cannot be compared.

    Raises:
        BadSplit: unknown or unordered cuts, or one that forward does not call exactly once.
        NotSplittable: a live run that does not reproduce the network, or is not isolated.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        *,
        cuts: Sequence[str],
        reason: str,
        verified: bool = True,
    ):
        self.model = model
        self.cuts = tuple(cuts)
        check_cut_names(model, self.cuts)
        seen = self._observe(inputs)
        _adopt_uncalled(model, seen)
        self.parts = tuple(
            Part(
                model,
                index,
                blocks=[name for name, stage in seen.blocks.items() if stage == index],
                tensors=seen.tensors[index],
            )
            for index in range(len(cuts) + 1)
        )
        differences = verify_live(model, self.parts, self.cuts, inputs) if verified else []
        if differences:
            raise NotSplittable(
                "the network can neither be recorded nor run live",
                got=f"{reason}; live: {'; '.join(differences)}",
                remedy="choose other cuts, switch checkpointing around blocks off, or train end to end",
            )
        notes = [f"runs live, in one process, and is not recorded: {reason}"]
        self.description = describe_live(seen, self.cuts, self.parts, notes)

    def start(self, inputs: tuple[Any, ...]) -> Flow:
        """Raises NotYetSupported: without a recording no part runs alone."""
        raise NotYetSupported(
            "the modules of this network cannot run apart from each other",
            got=self.description.notes[0],
            remedy="train it in one process",
        )

    def run(self, inputs: tuple[Any, ...], learn: Callable[[int, Any], object]) -> Any:
        """Run the network; `learn(stage, features)` comes behind each part, and may differentiate."""
        return run_live(self.model, inputs, cuts=self.cuts, learn=learn)

    def _observe(self, inputs: tuple[Any, ...]) -> Observation:
        seen = Observation()
        with undisturbed(self.model):
            sample = resized(inputs, 2)
            run_live(self.model, sample, cuts=self.cuts, learn=lambda stage, features: None, observe=seen)
        wrong = [f"{cut!r} is called {n} times in forward" for cut, n in seen.cut_calls.items() if n != 1]
        if wrong:
            raise BadSplit("; ".join(wrong), allowed="exactly one call", remedy="cut behind another block")
        return seen


def _adopt_uncalled(model: nn.Module, seen: Observation) -> None:
    """Blocks that this run left out, as LayerDrop does, belong to the stage of the block before them."""
    stage = 0
    called = {name: stage for name, stage in seen.blocks.items()}
    for name, module in model.named_modules():
        stage = called.get(name, stage)
        inside = any(name == block or name.startswith(f"{block}.") for block in seen.blocks)
        around = any(block.startswith(f"{name}.") for block in called) or not name
        if not inside and not around and next(module.parameters(), None) is not None:
            seen.blocks[name] = stage
