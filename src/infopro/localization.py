"""`localize`: any network, an objective and a wish for its cuts -> a local model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from infopro.assembly import assemble
from infopro.errors import BadConfiguration, BadSplit
from infopro.local import LocalModel
from infopro.memory import choose_cuts, choose_for_budget, parse_bytes
from infopro.objectives import Objective
from infopro.splitting import Checkpoint, as_inputs, blocks, one_by_one, split_model
from infopro.splitting.inputs import check_network
from infopro.tasks import Task

__all__ = ["localize"]


def localize(
    model: nn.Module,
    example_input: Any,
    *,
    objective: Objective,
    task: Task,
    num_modules: int | None = None,
    cuts: Sequence[str] | None = None,
    memory: str | int | None = None,
    balance: Literal["memory", "time", "depth"] = "memory",
    granularity: Literal["block", "any"] = "block",
    checkpoint: Checkpoint = "none",
    record: bool = True,
) -> LocalModel:
    """Make any network trainable by a local objective, without changing or copying it.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs, as training will pass them; for
            `memory`, N is the batch size.
        objective: what each module but the last is trained on; the last one has the task's own loss.
        num_modules: K; or name the K-1 blocks that end a module in `cuts`; or say in `memory` what one
            training step may occupy ("8GiB", or bytes), with SGD's momentum. Of what is predicted to fit the
            cheapest is taken: end to end; else the smallest K; else checkpoints, as few as suffice. The first
            of `split.notes` says what was chosen and why.
        balance: how the cuts for K are chosen. "memory": the largest module's saved bytes, heads
            included, are
            as small as they can be. "time": its operations. "depth": the blocks are dealt out equally.
        granularity: "any" lets a cut lie behind any module, inside residual blocks too.
        checkpoint: what keeps its inputs only, and runs again in the backward pass. "blocks": each block of
            `infopro.blocks` for itself, or those of them that are named. "everything": heads and losses, too.
            Gradients, BatchNorm's statistics and what is drawn stay the same to the last bit.
        record: False runs the network's own forward without recording it; see `splitting.split_model`.

    Raises:
        BadSplit, BadInput, NotSplittable: see `infopro.splitting.split_model`.
        BadInput: a network whose output does not fit the task.
        BadConfiguration: `checkpoint` names what is no block, or is given beside `memory`.
        NotYetSupported: `checkpoint` for a network that can only run live.
        DoesNotFit: nothing fits into `memory`.

    Example:
        >>> import torch, infopro
        >>> local = infopro.localize(
        ...     infopro.models.cifar_resnet(20, 10), torch.zeros(2, 3, 32, 32), num_modules=4,
        ...     objective=infopro.objectives.InfoPro(reconstruction_weight=5.0, task_weight=1.0),
        ...     task=infopro.tasks.Classification(num_classes=10))
        >>> out = local.backward(torch.rand(2, 3, 32, 32), torch.tensor([3, 7]))
        >>> sorted(out.losses[0])
        ['reconstruction', 'task', 'total']
    """
    inputs = as_inputs(example_input)
    if objective.num_modules is not None:
        num_modules = _fixed(objective, num_modules, cuts)
        cuts, memory = None, None
    given = {"num_modules": num_modules, "cuts": cuts, "memory": memory}
    if sum(value is not None for value in given.values()) != 1:
        asked = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        raise BadSplit("give one of num_modules, cuts and memory", got=asked or "none of them")
    if memory is not None and checkpoint != "none":
        raise BadConfiguration(
            "memory decides by itself what is checkpointed",
            got=f"checkpoint={checkpoint!r}",
            remedy="drop one",
        )
    reasons = []
    if cuts is None:
        check_network(model, inputs)
        choice: dict[str, Any] = {
            "objective": objective,
            "task": task,
            "balance": balance,
            "granularity": granularity,
        }
        if memory is not None:
            answer = choose_for_budget(model, inputs, budget=parse_bytes(memory), **choice)
            num_modules, checkpoint = answer.num_modules, answer.checkpoint
            reasons = [f"for {memory}: {answer.reason}"]
        cuts = choose_cuts(model, inputs, num_modules=num_modules or 0, **choice)
    recompute = () if checkpoint == "none" else one_by_one(blocks(model, inputs).units, checkpoint)
    split = split_model(model, inputs, cuts=cuts, recompute=recompute, record=record)
    split.description = replace(split.description, notes=(*reasons, *split.description.notes))
    again = checkpoint == "everything"
    return assemble(split, inputs, objective=objective, task=task, recompute_objectives=again)


def _fixed(objective: Objective, num_modules: int | None, cuts: Sequence[str] | None) -> int:
    allowed = objective.num_modules
    asked = len(cuts) + 1 if cuts is not None else num_modules
    if asked is not None and asked != allowed:
        raise BadSplit(
            f"{type(objective).__name__} trains the network as {allowed} module",
            got=f"{asked} modules",
            remedy="leave num_modules and cuts out, or choose a local objective",
        )
    assert allowed is not None
    return allowed
