"""Records one real run of a network's own forward: the calls of its blocks and the glue between them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from infopro.splitting._values import Owned, Value, encode

__all__ = [
    "Node",
    "Recording",
    "ancestors",
    "autocast_state",
    "inside_checkpoint",
    "intercept_calls",
    "random_state",
    "record",
    "undisturbed",
    "writes",
]

# Python looks at a tensor's value: replaying is sound only while the answer stays the same.
_VALUE_READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__"}
_WRITES = {"__setitem__", "__set__"}


@dataclass(frozen=True)
class Node:
    """One recorded call."""

    kind: Literal["module", "function", "guard", "end"]  # end: an opened module has returned
    target: Any  # the module's name, or the function
    args: Any
    kwargs: Any
    outputs: Any  # value numbers (None where no tensor); for a guard, the value that was seen
    grad: bool  # whether gradients were enabled
    autocast: tuple[bool, torch.dtype] | None = None  # only where forward itself changed it
    draws: bool = False  # whether it drew random numbers: a second run differs
    checkpointed: bool = False  # a block that forward called inside torch.utils.checkpoint


@dataclass
class Recording:
    """A whole run: its nodes, inputs, result, and the shape and kind of every value."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    output: Any = None
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    differentiable: set[int] = field(default_factory=set)
    parameter_views: set[int] = field(default_factory=set)  # values that share a parameter's memory
    passed_on: dict[int, int] = field(default_factory=dict)  # value -> the earlier one that it is, unchanged
    overwritten: set[int] = field(default_factory=set)  # values that something wrote into later
    constants: int = 0  # tensors that are neither inputs, parameters, buffers nor results
    draws_outside_torch: bool = False  # between blocks, Python's or NumPy's: replay cannot decide anew


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run the model without a trace: buffers, random streams and train/eval modes come back as they were.

    Every parameter counts as trainable meanwhile, so that the parts do not depend on what is frozen today.
    """
    buffers = {b: b.detach().clone() for b in model.buffers()}
    modes = [(m, m.training) for m in model.modules()]
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python, numpy = _other_random_streams()
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        with torch.no_grad():
            for buffer, value in buffers.items():
                if _differs(buffer, value):  # a write would void what the network keeps for a backward pass
                    buffer.copy_(value)
        for module, mode in modes:
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(False)


def _differs(buffer: Tensor, value: Tensor) -> bool:
    has_values = not isinstance(buffer, FakeTensor) and buffer.device.type != "meta"
    return has_values and not torch.equal(buffer, value)


@contextmanager
def intercept_calls(replacement: Callable[..., Any]) -> Iterator[None]:
    """While open, every module call goes to `replacement(original_call, module, *args, **kwargs)`."""
    original: Any = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return replacement(original, module, *args, **kwargs)

    nn.Module.__call__ = call  # type: ignore[method-assign]  # no hook sees calls made by other names
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


def ancestors(names: Sequence[str]) -> set[str]:
    """The modules that contain one of `names`, the root ("") included."""
    return {""} | {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}


class _Recorder(TorchFunctionMode):
    """Sees every torch function outside the opaque blocks; inside a block it records nothing."""

    def __init__(self, model: nn.Module, opened: set[str]):
        super().__init__()
        self.recording = Recording()
        self.opened = opened
        # reversed: of several names of one module, the first one wins
        self.names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        owned = itertools.chain(model.named_parameters(), model.named_buffers())
        self.owned = {id(tensor): name for name, tensor in owned}
        self.storages = {_memory(p) for p in model.parameters()} - {None}
        self.numbers: dict[int, int] = {}
        self.versions: dict[int, int] = {}
        self.kept: list[Any] = []  # ids stay unique only while the tensors live
        self.inside_block = False
        self.ambient = autocast_state()
        self.other_streams = _other_random_streams()

    def number(self, value: Any) -> int | None:
        if not isinstance(value, Tensor) or id(value) in self.owned:
            return None
        self.kept.append(value)
        earlier = self.numbers.get(id(value))
        number = self.numbers[id(value)] = len(self.kept)
        self.versions[number] = self.version(number)
        if earlier is not None and self.versions[earlier] == self.versions[number]:
            self.recording.passed_on[number] = self.recording.passed_on.get(earlier, earlier)
        self.recording.shapes[number] = tuple(value.shape)
        if value.requires_grad and value.is_floating_point():
            self.recording.differentiable.add(number)
        if _memory(value) in self.storages:
            self.recording.parameter_views.add(number)
        return number

    def version(self, number: int) -> int:
        value = self.kept[number - 1]
        return -number if value.is_inference() else int(value._version)

    def encode(self, tree: Any) -> Any:
        return encode(tree, self._leaf)

    def _leaf(self, tensor: Tensor) -> Any:
        if id(tensor) in self.numbers:
            return Value(self.numbers[id(tensor)])
        if id(tensor) in self.owned:
            return Owned(self.owned[id(tensor)])
        self.recording.constants += 1
        return tensor

    def add(self, kind: Any, target: Any, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        encoded_args, encoded_kwargs = (
            self.encode(args),
            self.encode(kwargs),
        )  # before: the call may write in place
        # asked for functions only: outside of __torch_function__ this recorder would record the question
        before = random_state() if kind == "function" else ()
        result = run(*args, **kwargs)
        outputs = result if kind == "guard" else [self.number(leaf) for leaf in tree_leaves(result)]
        if kind != "function" or any(outputs) or writes(target):
            state = autocast_state()
            autocast = None if state == self.ambient else state
            draws = kind == "function" and before != random_state()
            checkpointed = kind == "module" and inside_checkpoint()
            node = Node(
                kind,
                target,
                encoded_args,
                encoded_kwargs,
                outputs,
                torch.is_grad_enabled(),
                autocast,
                draws,
                checkpointed,
            )
            self.recording.nodes.append(node)
        return result

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.inside_block:
            return func(*args, **kwargs)
        kind = "guard" if getattr(func, "__name__", "") in _VALUE_READS else "function"
        return self.add(kind, func, func, args, kwargs)

    def call(self, original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        name = self.names.get(id(module))
        if self.inside_block or name is None:
            return original(module, *args, **kwargs)
        if name not in self.opened:
            return self.add(
                "module", name, lambda *a, **k: self._block(original, module, *a, **k), args, kwargs
            )
        result = original(module, *args, **kwargs)
        if name:
            leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            outputs = [self.numbers.get(id(leaf)) for leaf in leaves]
            self.recording.nodes.append(Node("end", name, (), {}, outputs, True))
        return result

    def _block(self, original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.note_other_draws()
        self.inside_block = True
        try:
            return original(module, *args, **kwargs)
        finally:
            self.inside_block = False
            self.other_streams = _other_random_streams()

    def note_other_draws(self) -> None:
        """Blocks may draw from Python's and NumPy's streams; code between them may not: replay misses it."""
        if _differ(_other_random_streams(), self.other_streams):
            self.recording.draws_outside_torch = True


def _memory(tensor: Tensor) -> int | None:
    # the handle, not the address: fake tensors have no address
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else None


def random_state() -> tuple[bytes, ...]:
    """The state of torch's random streams, to be compared: the CPU's and, where it is in use, the GPU's."""
    with _disable_current_modes():  # the state is real among fake tensors, too
        states = [torch.get_rng_state()]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            states.append(torch.cuda.get_rng_state())
        return tuple(state.numpy().tobytes() for state in states)


def inside_checkpoint() -> bool:
    """Whether what runs now is not kept but will run again in the backward pass."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None and "checkpoint" in getattr(hooks[0], "__qualname__", "")


def writes(target: Any) -> bool:
    """Whether a torch function changes a tensor that it is given, by its name."""
    name = getattr(target, "__name__", "")
    return name in _WRITES or (name.endswith("_") and not name.endswith("__"))


def autocast_state() -> tuple[bool, torch.dtype]:
    """Whether autocast is on, and to what."""
    kind = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _other_random_streams() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()


def _differ(left: tuple[Any, Any], right: tuple[Any, Any]) -> bool:
    return (
        left[0] != right[0]
        or repr(left[1][2:]) != repr(right[1][2:])
        or bool((left[1][1] != right[1][1]).any())
    )


def record(model: nn.Module, inputs: tuple[Any, ...], *, opened: set[str]) -> Recording:
    """Run `model(*inputs)` once, in its own mode, and record all that happens outside its unopened modules.

    Real tensors flow through the network's real Python code, so control flow works as it does for the caller.
    Buffers, random streams and train/eval modes are restored.
    """
    recorder = _Recorder(model, opened)
    inputs_numbers = [recorder.number(leaf) for leaf in tree_leaves(inputs)]
    recorder.recording.inputs = [number for number in inputs_numbers if number is not None]
    with undisturbed(model), intercept_calls(recorder.call), recorder:
        result = model(*inputs)
        recorder.note_other_draws()
    recorder.recording.output = recorder.encode(result)
    recorder.recording.overwritten = {n for n, v in recorder.versions.items() if recorder.version(n) != v}
    return recorder.recording
