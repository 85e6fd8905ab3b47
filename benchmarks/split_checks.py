"""What a sound split promises, checked on one network."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from split_networks import Network
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves

import infopro
from infopro.local import LocalModel
from infopro.splitting import LiveSplit, SplitModel
from infopro.tasks import Task

__all__ = ["examine"]

EXAMPLE, OTHER = 2, 3  # batch sizes: of the example input, of the checks
TRIES = 4  # calls of which two must differ, where a network draws random numbers
ROUNDING = 1e-5  # of the largest entry of a gradient


class AnyOutput(Task):
    """A loss of whatever a network returns, see `loss_of`."""

    def __init__(self) -> None:
        super().__init__(out_features=10, mean=(0.0,), std=(1.0,))

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        return loss_of(output)

    def logits(self, output: Any) -> Tensor:
        return floats(output)[0]

    num_counts = 1

    def counts(self, output: Any, targets: Tensor) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def error(self, counts: Sequence[float]) -> float:
        return 0.0

    def check(self, images: Tensor, targets: Tensor) -> None:
        pass

    def check_output(self, output: Any) -> None:
        assert floats(output), "the network returns no tensor to learn from"


def loss_of(output: Any) -> Tensor:
    """The mean squared distance of every floating-point tensor from 1: heads that begin with 0 learn, too."""
    return torch.stack([(tensor.float() - 1).square().mean() for tensor in floats(output)]).sum()


def floats(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def seed() -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


@dataclass(frozen=True)
class Result:
    """One run: the output, the buffers after it, and the gradients of some parameters."""

    output: Any
    buffers: list[Tensor]
    gradients: list[Tensor | None]


class Subject:
    """A network, its split, and the runs that are compared."""

    def __init__(self, model: nn.Module, split: SplitModel | LiveSplit, inputs: tuple[Any, ...]):
        self.model, self.split, self.inputs = model, split, inputs
        earlier = {id(p) for part in split.parts[:-1] for p in part.parameters()}
        self.last = [p for p in split.parts[-1].parameters() if id(p) not in earlier]

    def network(self) -> Any:
        return self.model(*self.inputs)

    def parts(self) -> Any:
        """The parts in a row, each on the detached result of the one before."""
        return chained(self.split, self.inputs)

    def run(self, call: Callable[[], Any], parameters: Sequence[nn.Parameter] = ()) -> Result:
        """A seeded run that leaves the network's buffers as they were."""
        with self.restored():
            seed()
            output = call()
            found = torch.autograd.grad(loss_of(output), parameters, allow_unused=True) if parameters else ()
            return Result(output, [b.clone() for b in self.model.buffers()], list(found))

    def varies(self, call: Callable[[], Any]) -> bool:
        """Whether unseeded calls differ."""
        torch.seed()
        with self.restored(), torch.no_grad():
            outputs = [call() for _ in range(TRIES)]
        return any(not same_trees(outputs[0], other) for other in outputs[1:])

    @contextmanager
    def restored(self) -> Iterator[None]:
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            yield
        finally:
            for buffer, value in before:
                if not torch.equal(buffer, value):  # eval mode may keep results of buffers
                    buffer.copy_(value)


def chained(split: SplitModel | LiveSplit, inputs: tuple[Any, ...]) -> Any:
    if isinstance(split, LiveSplit):
        return split.run(inputs, lambda stage, features: None)
    flow = split.start(inputs)
    for part in split.parts:
        flow = part(flow.detached())
    return split.parts[-1].result(flow)


def same_trees(left: Any, right: Any) -> bool:
    """The same structure, every tensor bit for bit; NaN equals NaN."""
    (lefts, left_spec), (rights, right_spec) = tree_flatten(left), tree_flatten(right)
    return left_spec == right_spec and all(map(same, lefts, rights))


def same(left: Any, right: Any) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return type(left) is type(right) and bool(left == right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left, right) or torch.equal(left.nan_to_num(), right.nan_to_num())


def relative_difference(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> float:
    """The largest difference of two lists of tensors, relative to each one's largest entry."""
    worst = 0.0
    for mine, theirs in zip(left, right, strict=True):
        if mine is None or theirs is None:
            worst = max(worst, 0.0 if mine is theirs else float("inf"))
        elif not torch.equal(mine, theirs):
            difference = (mine - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)
            worst = max(worst, difference.item())
    return worst


@dataclass(frozen=True)
class Identity:
    """What must stay the caller's own."""

    keys: tuple[str, ...]
    tensors: tuple[tuple[int, int], ...]
    modes: tuple[bool, ...]

    @staticmethod
    def of(model: nn.Module) -> Identity:
        tensors = [*model.parameters(), *model.buffers()]
        return Identity(
            tuple(model.state_dict()),
            tuple((id(tensor), tensor.data_ptr()) for tensor in tensors),
            tuple(module.training for module in model.modules()),
        )


def examine(network: Network, num_modules: int, balance: str) -> Iterator[dict[str, Any]]:
    """The fields of a row, as they become known; an exception fails the check that it interrupts."""
    torch.manual_seed(0)
    model, inputs_of = network.build()
    model.train()
    example, inputs = inputs_of(EXAMPLE), inputs_of(OTHER)
    yield {"input": " and ".join("×".join(map(str, leaf.shape[1:])) for leaf in tree_leaves(example))}
    model(*inputs)  # some make buffers of their own in the first forward
    before, values = Identity.of(model), [tensor.clone() for tensor in model.state_dict().values()]
    local = infopro.localize(
        model,
        example,
        num_modules=num_modules,
        balance=balance,
        objective=infopro.objectives.Greedy(),
        task=AnyOutput(),
    )
    yield {"localize": "yes", **description(local)}
    subject = Subject(model, local._split, inputs)
    yield from check_train(subject)
    yield from check_local_step(subject, local)
    differ = subject.varies(subject.parts), subject.varies(subject.network)
    yield verdict("random", differ[0] == differ[1], f"parts vary: {differ[0]}, network varies: {differ[1]}")
    yield from check_pickle(subject)
    model.eval()
    yield from check_eval(subject)
    model.train()
    kept = map(torch.equal, values, model.state_dict().values())
    yield verdict("untouched", Identity.of(model) == before and all(kept), "something of the network changed")


def description(local: LocalModel) -> dict[str, str]:
    split = local.split
    return {
        "cuts": " ".join(split.cuts),
        "carried": " ".join(map(str, split.carried)),
        "live": "yes" if split.live else "no",
        "notes": "; ".join(split.notes),
    }


def verdict(check: str, passed: bool, reason: str) -> dict[str, str]:
    return {check: "yes"} if passed else {check: "no", "reason": f"{check}: {reason}"}


def check_train(subject: Subject) -> Iterator[dict[str, Any]]:
    """Result, buffers and the last part's gradients of one seeded run in train mode."""
    expected = subject.run(subject.network, subject.last)
    found = subject.run(subject.parts, subject.last)
    finite = all(tensor.isfinite().all() for tensor in floats(expected.output))
    yield verdict("train", finite and same_trees(expected.output, found.output), "the results differ")
    yield verdict("buffers", all(map(same, expected.buffers, found.buffers)), "the buffers differ")
    difference = relative_difference(found.gradients, expected.gradients)
    trained = any(gradient is not None and gradient.any() for gradient in expected.gradients)
    reason = f"they differ by {difference:.1e}" if trained else "the last part has none"
    yield verdict("gradients", trained and difference <= ROUNDING, reason)
    yield {"gradient_difference": f"{difference:.1e}" if difference else "0"}


def check_local_step(subject: Subject, local: LocalModel) -> Iterator[dict[str, Any]]:
    """Isolation, the reference, and what no local loss reaches."""
    targets = torch.zeros(OTHER, dtype=torch.int64)
    isolation = infopro.isolation_check(local, subject.inputs, targets)
    yield verdict("isolated", isolation.isolated, f"{len(isolation.leaks)} leaks, {isolation.leaks[:2]}")
    named = [(n, p) for n, p in subject.model.named_parameters() if f"model.{n}" in isolation.untrained]
    plain = subject.run(subject.network, [p for _, p in named]).gradients if named else []
    missed = [name for (name, _), gradient in zip(named, plain, strict=True) if gradient is not None]
    yield {"untrained": " ".join(missed)}
    parity = infopro.parity_check(local, subject.inputs, targets)
    shown = ", ".join(parity.differences[:3])
    yield verdict("parity", parity.differences == (), f"{len(parity.differences)} differ, {shown}")


def check_pickle(subject: Subject) -> Iterator[dict[str, Any]]:
    if isinstance(subject.split, LiveSplit):
        yield {"pickles": "live"}
        return
    try:
        packed = pickle.dumps(subject.split)
    except Exception:
        pickle.dumps(subject.model)  # raises where the network itself is what cannot be pickled
        raise
    twin = pickle.loads(packed)
    expected = subject.run(subject.parts).output
    seed()
    twin.start(subject.inputs)  # records, and verifies, before the run that is compared
    seed()
    yield verdict("pickles", same_trees(expected, chained(twin, subject.inputs)), "the copy differs")


def check_eval(subject: Subject) -> Iterator[dict[str, Any]]:
    """Results in eval mode; with gradients on, kernels may differ where a part receives detached tensors."""
    with torch.no_grad():
        equal = same_trees(subject.run(subject.network).output, subject.run(subject.parts).output)
    yield verdict("eval", equal, "the results differ in eval mode")
    found, expected = (subject.run(call).output for call in (subject.parts, subject.network))
    difference = relative_difference(floats(found), floats(expected))
    yield {"eval_difference": f"{difference:.1e}" if difference else "0"}
