"""Finds out, before anything is recorded, whether a network runs on an example input and has the cuts."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._pytree import tree_leaves

from infopro.errors import BadInput, BadSplit, NotSplittable
from infopro.splitting.program import resized
from infopro.splitting.record import undisturbed

__all__ = ["as_inputs", "check_cut_names", "check_network", "check_runs"]


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


def check_network(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raises where a network cannot be split at all, or cannot take the input; all problems at once."""
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise NotSplittable(
            "a compiled network hides its blocks",
            got=type(model).__name__,
            remedy="localize it before compiling",
        )
    problems = _device_problems(model, inputs)
    if problems:
        raise BadInput(
            "; ".join(problems), remedy="move the network and its inputs to one device: .to(device)"
        )
    check_runs(model, inputs)


def check_cut_names(model: nn.Module, cuts: tuple[str, ...]) -> None:
    """Raises where a cut is no module of the network, or is named twice."""
    names = {name for name, _ in model.named_modules() if name}
    problems = [f"{cut!r} is not a block of the network" for cut in cuts if cut not in names]
    problems += [f"{cut!r} is named {count} times" for cut, count in Counter(cuts).items() if count > 1]
    if problems:
        near = _near(names, next((cut for cut in cuts if cut not in names), ""))
        raise BadSplit("; ".join(problems), allowed=near, remedy="infopro.blocks(model, x) lists the blocks")


def _near(names: set[str], wrong: str) -> str:
    near = difflib.get_close_matches(wrong, sorted(names), n=4, cutoff=0.3)
    return "for example " + ", ".join(near or sorted(names)[:4])


def _device_problems(model: nn.Module, inputs: tuple[Any, ...]) -> list[str]:
    where: dict[str, str] = {}  # device -> the first tensor seen there
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        where.setdefault(str(tensor.device), name)
    problems = []
    if len(where) > 1:
        places = ", ".join(f"{name} on {device}" for device, name in where.items())
        problems.append(f"the network is spread over several devices ({places})")
    elsewhere = {
        str(x.device) for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.dim() > 0
    } - where.keys()
    if where and elsewhere:
        problems.append(f"the example input is on {sorted(elsewhere)}, the network on {sorted(where)}")
    return problems


def check_runs(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """One plain run, so that an input which the network cannot take is not blamed on anything else.

    Returns:
        What the network returns for two samples.

    Raises:
        BadInput: it cannot take the input.
    """
    try:
        with undisturbed(model):
            return model(*resized(inputs, 2))
    except (DataDependentOutputException, DynamicOutputShapeException):  # fake tensors, no fault of the input
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, NotImplementedError) as error:
        given = [(list(x.shape), str(x.dtype)) for x in inputs if isinstance(x, Tensor)]
        shapes = ", ".join(f"{shape} {dtype.removeprefix('torch.')}" for shape, dtype in given)
        raise BadInput(
            f"{type(model).__name__} cannot take the example input",
            got=f"{shapes} ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            remedy="pass an input of the size, number of channels and dtype that the network was built for",
        ) from error
