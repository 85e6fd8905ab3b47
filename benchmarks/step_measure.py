"""Memory, operations and time of one training step of one method.

A step is zero_grad, forward and backward pass, and SGD with momentum. Its peak is what the allocator handed
out at most: on a GPU `torch.cuda.max_memory_allocated`; on a CPU the same number from the allocator's own
record, to which what was there before is added. Both see workspaces and compiled code.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from step_methods import Method, Ready
from step_networks import Setting
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from infopro.local import LocalModel
from infopro.memory.tracker import MemoryTracker, storage_key
from infopro.training import make_optimizer
from infopro.types import Batch

__all__ = ["Footprint", "Step", "measure", "take_turns"]


@dataclass(frozen=True)
class Footprint:
    """What one step occupies and computes; None where it cannot be known."""

    peak_bytes: int  # handed out by the allocator at most, weights and optimizer included
    reserved_bytes: int | None  # CUDA: what the allocator took from the device
    tensor_peak_bytes: int | None  # of all tensors, without what operations use inside themselves
    fixed_bytes: int  # there before the step: weights, optimizer state, batch
    saved_bytes: int | None  # what autograd holds at once
    saved_bound: int | None  # of local methods: the largest module's under the best cuts, predicted
    operations: int | None  # floating-point, of the whole step, recomputation and heads included
    head_share: float | None  # of local methods: forward operations of the heads, relative to the network's


class Step:
    """One training step of one method; calling it returns its seconds."""

    def __init__(self, setting: Setting, ready: Ready):
        self.setting, self.ready = setting, ready
        self.optimizer = make_optimizer(
            "sgd", ready.owner.parameters(), learning_rate=1e-3, weight_decay=1e-4
        )

    def __call__(self) -> float:
        _synchronize(self.setting.device)
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.ready.backward(self.setting.images, self.setting.targets)
        self.optimizer.step()
        _synchronize(self.setting.device)
        return time.perf_counter() - started

    def clear(self) -> None:
        """Free what one step leaves to the next."""
        self.optimizer.zero_grad(set_to_none=True)

    def fixed(self) -> list[Tensor]:
        """What is there before a step."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        own = [*self.ready.owner.parameters(), *self.ready.owner.buffers()]
        return [
            *own,
            *(s for s in states if isinstance(s, Tensor)),
            self.setting.images,
            self.setting.targets,
        ]


def measure(step: Step, method: Method) -> Footprint:
    """What a step occupies; one was run before, so that the optimizer has its state."""
    setting, ready = step.setting, step.ready
    saved = ready.saved(setting.images, setting.targets) if ready.saved else None
    bounded = saved is not None and method.objective is not None
    step.clear()
    gc.collect()
    tensor_peak, operations = (None, None) if ready.compiled else _follow(step)
    step.clear()
    peak, reserved = _peak(step)
    return Footprint(
        peak_bytes=peak,
        reserved_bytes=reserved,
        tensor_peak_bytes=tensor_peak,
        fixed_bytes=_bytes(step.fixed()),
        saved_bytes=saved,
        saved_bound=_bound(setting, method) if bounded else None,
        operations=operations,
        head_share=_head_share(setting, ready.local) if ready.local else None,
    )


def take_turns(steps: Mapping[str, Step], *, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of every step, round by round; one step of each in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(warm_up + rounds):
        for name, step in steps.items():
            taken = step()
            step.clear()
            if round_ >= warm_up:
                seconds[name].append(taken)
    return seconds


def _peak(step: Step) -> tuple[int, int | None]:
    device = step.setting.device
    if device.type != "cuda":
        return _bytes(step.fixed()) + _allocated_on_cpu(step), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def _allocated_on_cpu(step: Step) -> int:
    """The most that the CPU's allocator handed out beyond what was there, from its record of one step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    assert record.profiler is not None and record.profiler.kineto_results is not None
    changes = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        total += change.nbytes()
        peak = max(peak, total)
    return peak


def _follow(step: Step) -> tuple[int, int]:
    """Peak of all tensors and floating-point operations of a step."""
    with MemoryTracker() as tracker:
        for tensor in step.fixed():
            tracker.label(tensor, "parameters")
        tracker.reset_peak()
        step()
    return tracker.peak, tracker.flops


def _head_share(setting: Setting, local: LocalModel) -> float:
    """Forward operations of all heads, relative to the network's."""
    batch = Batch(images=setting.images, targets=setting.targets)
    network = heads = 0
    with torch.no_grad(), setting.autocast():
        flow = local.start((setting.images,))
        for stage in local.stages:
            with MemoryTracker() as counter:
                flow = stage.part(flow)
            network += counter.flops
            if not stage.context.is_last:
                with MemoryTracker() as counter:
                    stage.objective(stage.part.boundary(flow), batch)
                heads += counter.flops
    return heads / network


def _bound(setting: Setting, method: Method) -> int:
    """Bytes that the largest module saves under the best cuts, as predicted."""
    assert method.objective is not None
    return round(setting.planner(method.objective).chooser.largest(method.num_modules))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of their memory, each piece once."""
    return sum({storage_key(t): t.untyped_storage().nbytes() for t in tensors}.values())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
