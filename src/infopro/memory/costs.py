"""What each stretch of a network costs a step: bytes saved and operations, heads included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from infopro.memory.tracker import MemoryTracker, storage_key
from infopro.objectives import Objective, StageObjective
from infopro.splitting.fake import FakeNetwork, RealNetwork, data_dependence
from infopro.splitting.live import largest
from infopro.splitting.program import batch_size_of
from infopro.splitting.reach import parameters_behind
from infopro.splitting.record import intercept_calls, undisturbed
from infopro.tasks import Task
from infopro.types import Batch, StageContext

__all__ = ["Costs", "measure_costs"]


@dataclass
class _Head:
    """What the auxiliary nets behind one block save and compute."""

    saved: list[tuple[int, int]]  # storage, bytes
    flops: int


@dataclass
class Costs:
    """One run of a network without cuts, seen from the ends of the blocks behind which it may be cut."""

    names: tuple[str, ...]
    saved: list[tuple[int, int]] = field(default_factory=list)  # storage, bytes; in order of saving
    flops: int = 0
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> saved, operations before its end
    heads: dict[str, _Head] = field(default_factory=dict)
    used: dict[str, frozenset[int]] = field(default_factory=dict)  # name -> parameters, by id, before its end
    reached: dict[str, set[int]] = field(default_factory=dict)  # name -> parameters that its result can train
    trained: set[int] = field(default_factory=set)  # parameters that the network's own loss trains

    def whole(self, names: Sequence[str]) -> Callable[[int, int], bool]:
        """Whether of the module between names[i] and names[j] everything is trained that the network trains.

        Not so where something leads only to tensors that cross the cut beside the main one.
        """

        def complete(start: int, end: int) -> bool:
            if end == len(names):
                return True
            before = self.used[names[start]] if start >= 0 else frozenset()
            return not ((self.used[names[end]] - before) & self.trained) - self.reached[names[end]]

        return complete

    def bytes_between(self, names: Sequence[str], *, heads: bool = True) -> Callable[[int, int], float]:
        """Unique saved bytes of a module that begins behind names[i] and ends behind names[j], its
        heads' too.

        Exact but for operations on the boundary itself that save less when it needs no gradient.
        """
        table: dict[int, list[int]] = {}

        def cost(start: int, end: int) -> float:
            if start not in table:
                table[start] = self._row(start, names, heads)
            return table[start][end - start - 1]

        return cost

    def flops_between(self, names: Sequence[str], *, heads: bool = True) -> Callable[[int, int], float]:
        """Forward operations of that module and its heads."""
        positions = [0, *(self.ends[name][1] for name in names), self.flops]

        def cost(start: int, end: int) -> float:
            head = self.heads[names[end]].flops if heads and end < len(names) else 0
            return positions[end + 1] - positions[start + 1] + head

        return cost

    def _row(self, start: int, names: Sequence[str], heads: bool) -> list[int]:
        """The costs of all modules that begin behind names[start]."""
        positions = [0, *(self.ends[name][0] for name in names), len(self.saved)]
        seen: set[int] = set()
        total, row = 0, []
        for end in range(start + 1, len(names) + 1):
            for key, size in self.saved[positions[end] : positions[end + 1]]:
                if key not in seen:
                    seen.add(key)
                    total += size
            head = self.heads[names[end]].saved if heads and end < len(names) else []
            row.append(total + sum(size for key, size in dict(head).items() if key not in seen))
        return row


def measure_costs(
    network: FakeNetwork | RealNetwork,
    inputs: tuple[Any, ...],
    targets: Tensor,
    *,
    names: Sequence[str],
    objective: Objective,
    task: Task,
) -> Costs:
    """Run a network, fake if it can be, once, and the heads that the objective would put behind each of
    `names`.

    Raises:
        NotReplayable: forward reads values of tensors, which fake ones do not have.
    """
    costs, features = Costs(tuple(names)), {}
    used: set[int] = set()
    owned = {
        storage_key(t) for module in (network.model, task) for t in [*module.parameters(), *module.buffers()]
    }
    with data_dependence(), network.mode, MemoryTracker() as tracker, undisturbed(network.model):
        ends = {id(network.model.get_submodule(name)): name for name in names}
        batch_size = batch_size_of(inputs)

        def call(original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = original(module, *args, **kwargs)
            used.update(id(parameter) for parameter in module.parameters(recurse=False))
            if id(module) in ends:
                costs.used[ends[id(module)]] = frozenset(used)
                costs.ends[ends[id(module)]] = (len(costs.saved), tracker.flops)
                features[ends[id(module)]] = largest(result, batch_size)
            return result

        with _saving(costs.saved, owned), intercept_calls(call):
            loss = task.loss(network.model(*inputs), targets)
        costs.flops = tracker.flops
        costs.trained = parameters_behind([loss])
        costs.reached = {name: parameters_behind([tensor]) for name, tensor in features.items()}
        batch = Batch(images=inputs[0], targets=targets)
        built: dict[tuple[int, ...], StageObjective] = {}
        for name, tensor in features.items():
            shape = tuple(tensor.shape[1:])
            context = StageContext(0, 3, shape, tuple(inputs[0].shape[1:]))
            if shape not in built:
                with network.building_for(inputs[0]):
                    built[shape] = objective.build(context, task)
            costs.heads[name] = _measure_head(built[shape], tensor, batch, tracker, owned)
    del loss
    return costs


def _measure_head(
    objective: StageObjective, features: Tensor, batch: Batch, tracker: MemoryTracker, owned: set[int]
) -> _Head:
    saved: list[tuple[int, int]] = []
    own = owned | {storage_key(t) for t in [*objective.parameters(), *objective.buffers()]}
    before = tracker.flops
    with _saving(saved, own):
        objective(features.detach().requires_grad_(), batch)
    return _Head(saved, tracker.flops - before)


@contextmanager
def _saving(saved: list[tuple[int, int]], owned: set[int]) -> Iterator[None]:
    """While open, append what autograd saves; parameters and buffers left out."""
    kept: list[Any] = []  # keys stay unique only while the storages live

    def pack(tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in owned:
            saved.append((key, tensor.untyped_storage().nbytes()))
            kept.append(tensor.untyped_storage())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
