"""A network in K parts, with one recording per kind of input."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import BadInput, BadSplit, NotSplittable
from infopro.split.blocks import Blocks, find_blocks
from infopro.split.depth import equal_depth
from infopro.split.part import Flow, Part, start
from infopro.split.program import Program, build, resized
from infopro.split.record import autocast_state, undisturbed
from infopro.split.verify import verify
from infopro.types import Split

__all__ = ["SplitModel", "as_inputs", "blocks", "split_model"]


class SplitModel:
    """The caller's network as K parts that share its modules; `parts` run in a row compute what it computes.

    The recording belongs to one kind of input (sizes besides the batch, dtypes, train or eval mode); another
    kind is recorded and verified when it first comes.
    """

    def __init__(
        self, model: nn.Module, inputs: tuple[Any, ...], *, cuts: Sequence[str], verified: bool = True
    ):
        self.model = model
        self.cuts = tuple(cuts)
        self._verified = verified
        _check_names(model, self.cuts)
        first = build(model, inputs, cuts=self.cuts)
        self.parts = tuple(Part(model, program, index) for index, program in enumerate(first.parts))
        self._programs = {_kind(model, inputs): first}
        notes = verify(model, self.parts, first, inputs) if verified else []
        self.description = _describe(first, self.cuts, self.parts, notes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}}  # a copy records anew: programs hold functions of torch

    def start(self, inputs: tuple[Any, ...]) -> Flow:
        """What the first part reads for this batch."""
        return start(self._program(inputs), inputs)

    def _program(self, inputs: tuple[Any, ...]) -> Program:
        kind = _kind(self.model, inputs)
        if kind not in self._programs:
            program = build(self.model, inputs, cuts=self.cuts)
            if self._verified:
                verify(self.model, self.parts, program, inputs)
            self._programs[kind] = program
        return self._programs[kind]


def split_model(
    model: nn.Module, example_input: Any, *, cuts: Sequence[str] | None = None, num_modules: int | None = None
) -> SplitModel:
    """Split any network behind the blocks named in `cuts`, or into `num_modules` of equal depth.

    The network's own forward decides: a real run of it is recorded (at three small batch sizes) and replayed
    module by module with the caller's own blocks. The parts are compared with the network before they are
    returned.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs; only sizes and dtypes matter.

    Raises:
        BadSplit: unknown, repeated or unordered cuts; more modules than blocks.
        BadInput: an example input that the network cannot take.
        NotSplittable: a forward that cannot be replayed soundly.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> split_model(net, torch.zeros(2, 4), cuts=["1"]).description.blocks
        (('0', '1'), ('2',))
    """
    inputs = as_inputs(example_input)
    cuts = [cuts] if isinstance(cuts, str) else cuts
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise NotSplittable(
            "a compiled network hides its blocks",
            got=type(model).__name__,
            remedy="localize it before compiling",
        )
    if (cuts is None) == (num_modules is None):
        raise BadSplit("give either cuts or num_modules", got=f"cuts={cuts}, num_modules={num_modules}")
    _check_runs(model, inputs)
    if cuts is None:
        assert num_modules is not None
        cuts = [] if num_modules == 1 else _equal_depth_cuts(model, inputs, num_modules)
    return SplitModel(model, inputs, cuts=cuts)


def blocks(model: nn.Module, example_input: Any) -> Blocks:
    """The blocks of a network, in order of execution: where `cuts` may lie."""
    return find_blocks(model, as_inputs(example_input))


def as_inputs(example_input: Any) -> tuple[Any, ...]:
    """A network's inputs as a tuple that contains a tensor with a batch dimension."""
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    if not any(isinstance(leaf, Tensor) and leaf.dim() > 0 for leaf in tree_leaves(inputs)):
        raise BadInput(
            "the example input holds no tensor with a batch dimension",
            got=type(example_input).__name__,
            allowed="a tensor [N, ...] or a tuple of them",
        )
    return inputs


def _equal_depth_cuts(model: nn.Module, inputs: tuple[Any, ...], num_modules: int) -> list[str]:
    if num_modules < 1:
        raise BadSplit(
            "a network has at least one module", got=f"num_modules={num_modules}", allowed="1 or more"
        )
    return equal_depth(find_blocks(model, inputs, at_least=num_modules), num_modules=num_modules)


def _check_names(model: nn.Module, cuts: tuple[str, ...]) -> None:
    names = {name for name, _ in model.named_modules() if name}
    problems = [f"{cut!r} is not a block of the network" for cut in cuts if cut not in names]
    problems += [f"{cut!r} is named {count} times" for cut, count in Counter(cuts).items() if count > 1]
    if problems:
        near = _near(names, next((cut for cut in cuts if cut not in names), ""))
        raise BadSplit(
            "; ".join(problems), allowed=near, remedy="infopro.split.blocks(model, x) lists the blocks"
        )


def _near(names: set[str], wrong: str) -> str:
    near = difflib.get_close_matches(wrong, sorted(names), n=4, cutoff=0.3)
    return "for example " + ", ".join(near or sorted(names)[:4])


def _check_runs(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """One plain run, so that an input which the network cannot take is not blamed on the splitter."""
    try:
        with undisturbed(model):
            model(*resized(inputs, 2))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        shapes = [tuple(x.shape) for x in inputs if isinstance(x, Tensor)]
        raise BadInput(
            f"{type(model).__name__} cannot take the example input",
            got=f"shapes {shapes} ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            remedy="pass an input of the size and number of channels that the network was built for",
        ) from error


def _kind(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    tensors = [(tuple(x.shape[1:]), x.dtype) for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    modes = tuple(module.training for module in model.modules())
    return (modes, autocast_state(), *tensors)


def _describe(first: Program, cuts: tuple[str, ...], parts: Sequence[Part], notes: list[str]) -> Split:
    owners = Counter(id(p) for part in parts for p in {id(q): q for q in part.parameters()}.values())
    shared = sum(count > 1 for count in owners.values())
    if shared:
        notes = [
            *notes,
            f"{shared} parameters are used by several modules and learn from each of their losses",
        ]
    if first.constants:
        notes = [
            *notes,
            "forward uses tensors that are neither parameters nor buffers: they are kept as recorded",
        ]
    if first.draws_outside_torch:
        notes = [
            *notes,
            "forward draws from Python's or NumPy's random numbers: what they decide between blocks is kept",
        ]
    empty = [k + 1 for k, part in enumerate(parts) if next(part.parameters(), None) is None]
    if empty:
        raise BadSplit(f"module {empty[0]} has no parameters", got=list(cuts), remedy="move or drop a cut")
    carried = tuple(len(program.gives) - 1 for program in first.parts[:-1])
    return Split(
        cuts=cuts,
        blocks=tuple(program.blocks for program in first.parts),
        boundary_shapes=tuple(program.boundary_shape for program in first.parts[:-1]),
        carried=carried,
        notes=tuple(notes),
    )
