"""Follows one training step, real or fake: what every module saves, the peak, and what it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from infopro.local import LocalModel
from infopro.memory.tracker import KINDS, Kind, MemoryTracker, storage_key

__all__ = ["StepMemory", "cut_off", "initialise_optimizer", "track_step"]

_BECOMES_BOUNDARY: tuple[Kind, ...] = ("temporary", "activations")


@dataclass(frozen=True)
class StepMemory:
    """The bytes of one training step."""

    peak: int  # all that is alive at once, at the worst moment
    at_peak: Mapping[Kind, int]  # what that consists of; the kinds add up to the peak
    saved: tuple[int, ...]  # per module, what autograd keeps when the module's backward pass begins
    flops: int  # of forward, backward and recomputation
    module_flops: tuple[int, ...]  # per module, its heads included
    crossing: tuple[
        int, ...
    ]  # per cut, bytes that cross it: boundary and carried tensors; empty where unknown
    part_flops: tuple[int, ...] = ()  # per module, forward pass without heads; empty where it runs live
    head_flops: tuple[int, ...] = ()  # per module, of the forward pass of its heads and loss


def track_step(
    local: LocalModel,
    images: Any,
    targets: Tensor,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    precision: torch.dtype = torch.float32,
    rounded: bool = False,
) -> StepMemory:
    """Run one step of `local` and follow every tensor of it.

    Args:
        optimizer: steps once at the end, if one is given; `initialise_optimizer` has made its state.
        rounded: see `MemoryTracker`.
    """
    tracker, watch = MemoryTracker(rounded=rounded), _Watch(local)
    with tracker:
        watch.label_what_is_there(tracker, images, targets, optimizer)
        tracker.reset_peak()
        with watch.watching(tracker):
            device = targets.device.type
            with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
                local.backward(images, targets, on_stage_done=lambda _: watch.finish_stage(tracker))
            if optimizer is not None:
                optimizer.step()
    at_peak: dict[Kind, int] = {kind: tracker.at_peak.get(kind, 0) for kind in KINDS}
    module_flops = [flops - before for flops, before in zip(watch.flops, [0, *watch.flops], strict=False)]
    return StepMemory(
        peak=tracker.peak,
        at_peak=at_peak,
        saved=tuple(watch.saved),
        flops=tracker.flops,
        module_flops=tuple(module_flops),
        crossing=tuple(watch.crossing),
        part_flops=tuple(watch.part_flops),
        head_flops=tuple(watch.head_flops),
    )


def initialise_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that an optimizer makes in its first step; changes parameters: for fake ones only."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def cut_off(tensor: Tensor) -> Tensor:
    """What a saved tensor is kept as: an output that its own node kept is a cycle, freed at any time."""
    # a block that runs again saves what it saved first only if its input needs a gradient again
    return tensor.detach().requires_grad_(tensor.requires_grad)


class _Watch:
    """Labels what a step makes: saved by a module or by heads, gradient, boundary between modules."""

    def __init__(self, local: LocalModel):
        self.local = local
        self.saved: list[int] = []
        self.flops: list[int] = []  # so far, when each module is done
        self.crossing: list[int] = []
        self.part_flops: list[int] = []
        self.head_flops: list[int] = []
        self._of_heads = {id(p) for p in local.heads.parameters()}
        tensors = [*local.parameters(), *local.buffers()]
        self._owned = {storage_key(t) for t in tensors}
        self._current: dict[int, int] = {}  # storage -> bytes, of the module at work
        self._phase: Kind = "activations"

    def label_what_is_there(
        self, tracker: MemoryTracker, images: Any, targets: Tensor, optimizer: torch.optim.Optimizer | None
    ) -> None:
        model, heads = self.local.model, self.local.heads
        for owned in (*model.parameters(), *model.buffers()):
            tracker.label(owned, "parameters")
        for owned in (*heads.parameters(), *heads.buffers()):
            tracker.label(owned, "heads", only="temporary")
        for parameter in self.local.parameters():
            if parameter.grad is not None:  # earlier parts of an accumulated batch
                tracker.label(parameter.grad, "heads" if id(parameter) in self._of_heads else "gradients")
        for leaf in tree_leaves((images, targets)):
            if isinstance(leaf, Tensor):
                tracker.label(leaf, "batch")
        for key, state in optimizer.state.items() if optimizer is not None else ():
            for value in state.values():
                if isinstance(value, Tensor):
                    tracker.label(value, "heads" if id(key) in self._of_heads else "optimizer")

    def finish_stage(self, tracker: MemoryTracker) -> None:
        self.flops.append(tracker.flops)
        self.saved.append(sum(self._current.values()))
        self._current.clear()
        self._phase = "activations"  # heads that ran again stopped half-way

    @contextmanager
    def watching(self, tracker: MemoryTracker) -> Iterator[None]:
        """Probes that come off again, whatever happens."""
        with ExitStack() as probes:
            for parameter in self.local.parameters():
                if parameter.requires_grad:
                    probes.callback(self._watch_gradient(parameter, tracker).remove)
            for index, stage in enumerate(self.local.stages):
                for module, into in ((stage.part, self.part_flops), (stage.objective, self.head_flops)):
                    for remove in self._count_forward(module, into, index, tracker):
                        probes.callback(remove)
                probes.callback(stage.objective.register_forward_pre_hook(self._enter_heads).remove)
                probes.callback(stage.objective.register_forward_hook(self._leave_heads).remove)
                probes.callback(stage.part.register_forward_hook(self._watch_boundary(tracker)).remove)
            probes.enter_context(saved_tensors_hooks(self._pack(tracker), lambda tensor: tensor))
            yield

    def _count_forward(
        self, module: nn.Module, into: list[int], index: int, tracker: MemoryTracker
    ) -> tuple[Callable[[], None], ...]:
        """Append the operations of the module's first forward pass; what runs again is not counted again."""
        before: list[int] = []

        def end(*_: Any) -> None:
            if len(into) == index:
                into.append(tracker.flops - before[0])

        return (
            module.register_forward_pre_hook(lambda *_: before.append(tracker.flops)).remove,
            module.register_forward_hook(end).remove,
        )

    def _pack(self, tracker: MemoryTracker) -> Any:
        def pack(tensor: Tensor) -> Tensor:
            key = storage_key(tensor)
            if key not in self._owned:
                self._current[key] = tensor.untyped_storage().nbytes()
                tracker.label(tensor, self._phase, only="temporary")
            return cut_off(tensor)

        return pack

    def _watch_gradient(self, parameter: nn.Parameter, tracker: MemoryTracker) -> Any:
        kind: Kind = "heads" if id(parameter) in self._of_heads else "gradients"

        def label(done: Tensor) -> None:
            if done.grad is not None:
                tracker.label(done.grad, kind)

        return parameter.register_post_accumulate_grad_hook(label)  # type: ignore[no-untyped-call]

    def _watch_boundary(self, tracker: MemoryTracker) -> Any:
        def label(part: nn.Module, args: Any, flow: Any) -> None:
            if part is self.local.stages[-1].part:
                return
            tensors = {storage_key(t): t for t in flow.values.values()}
            self.crossing.append(sum(t.untyped_storage().nbytes() for t in tensors.values()))
            for tensor in tensors.values():
                for before in _BECOMES_BOUNDARY:
                    tracker.label(tensor, "boundary", only=before)

        return label

    def _enter_heads(self, *_: Any) -> None:
        self._phase = "heads"

    def _leave_heads(self, *_: Any) -> None:
        self._phase = "activations"
