"""The methods of step.py: every way to compute one step's gradients that trades memory for something.

Each is a function that builds the network of a `Setting` and returns a `Ready`: `backward` runs forward and
backward pass and fills `.grad`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from step_networks import Setting
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import infopro
from infopro.local import LocalModel
from infopro.memory import StepMemory, measure_saved_bytes, saved_storages
from infopro.objectives import DGL, Greedy, InfoPro, Objective
from infopro.splitting import Flow, Part, SplitModel
from infopro.types import Batch

__all__ = ["METHODS", "Method", "Ready", "end_to_end"]

Loss = Callable[[Tensor, Tensor], Tensor]
OBJECTIVES: dict[str, Objective] = {
    "InfoPro softmax": InfoPro(),
    "InfoPro contrast": InfoPro(task_loss="contrast"),
    "greedy": Greedy(),
    "DGL": DGL(),
}
WITHOUT_HEADS = Greedy()  # a linear classifier behind each cut weighs next to nothing
_EXPENSIVE = [  # what selective checkpointing keeps: convolutions, matrix products, attention
    *(torch.ops.aten.convolution.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default),
    *(torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
]


@dataclass(frozen=True)
class Ready:
    """A network that is ready to be trained by one method."""

    owner: nn.Module  # its parameters are those that are trained
    backward: Callable[[Tensor, Tensor], object]
    saved: Callable[[Tensor, Tensor], int] | None = None  # bytes that autograd holds at once
    local: LocalModel | None = None
    compiled: bool = False  # then its operations cannot be followed one by one


@dataclass(frozen=True)
class Method:
    """A row of the comparison."""

    name: str
    family: str
    label: str  # in the plot, where the colour tells the family
    gradient: str  # what it computes: "exact", or how it departs from back-propagation
    build: Callable[[Setting], Ready]
    num_modules: int = 1
    objective: Objective | None = None  # of a local method
    predict: Callable[[Setting], StepMemory] | None = None


def by_loss(setting: Setting, owner: nn.Module, loss: Loss, *, parts: int = 1, hidden: bool = False) -> Ready:
    """Back-propagation of one loss, over the whole batch or over equal parts of it.

    Args:
        hidden: what is kept for the backward pass is kept elsewhere than with autograd.
    """

    def backward(images: Tensor, targets: Tensor) -> None:
        if len(targets) < parts:
            raise ValueError(f"{len(targets)} images do not make {parts} parts")
        for part in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
            share = len(part[1]) / len(targets)
            with setting.autocast():
                value = loss(*part) * share
            torch.autograd.backward(value)

    def saved(images: Tensor, targets: Tensor) -> int:
        with saved_storages(owner) as sizes, setting.autocast():
            kept = loss(images.tensor_split(parts)[0], targets.tensor_split(parts)[0])
        del kept
        return sum(sizes.values())

    return Ready(owner, backward, None if hidden else saved)


def by_module(setting: Setting, local: LocalModel, *, hidden: bool = False) -> Ready:
    """Local learning."""

    def backward(images: Tensor, targets: Tensor) -> None:
        with setting.autocast():
            local.backward(images, targets)

    def saved(images: Tensor, targets: Tensor) -> int:
        with setting.autocast():
            return measure_saved_bytes(local, images, targets).largest

    return Ready(local, backward, None if hidden else saved, local)


def _loss(setting: Setting, forward: Callable[[Tensor], Any]) -> Loss:
    return lambda images, targets: setting.task.loss(forward(images), targets)


def end_to_end(setting: Setting, *, parts: int = 1) -> Ready:
    model = setting.model()
    return by_loss(setting, model, _loss(setting, model), parts=parts)


def checkpointed_blocks(setting: Setting, *, selective: bool = False) -> Ready:
    """Every block keeps its input only, and runs again in the backward pass."""
    model = setting.model()
    how: dict[str, Any] = {"use_reentrant": False}
    if selective:
        how["context_fn"] = partial(create_selective_checkpoint_contexts, _EXPENSIVE)
    for name in infopro.blocks(model, setting.images[:2]).names:
        block = model.get_submodule(name)
        block.forward = partial(checkpoint, block.forward, **how)
    return by_loss(setting, model, _loss(setting, model), hidden=True)


def checkpointed_segments(setting: Setting, *, num_segments: int) -> Ready:
    """K segments of equal memory keep their inputs; all but the last run again in the backward pass."""
    model = setting.model()
    cuts = setting.planner(WITHOUT_HEADS).chooser.segments(num_segments)
    split = SplitModel(model, (setting.images[:2],), cuts=cuts)

    def forward(images: Tensor) -> Any:
        flow = split.start((images,))
        for part in split.parts[:-1]:
            flow = checkpoint(_run, part, flow, use_reentrant=False)
        return split.parts[-1].result(split.parts[-1](flow))

    return by_loss(setting, model, _loss(setting, forward), hidden=True)


def _run(part: Part, flow: Flow) -> Flow:
    return part(flow)  # type: ignore[no-any-return]


def offloaded(setting: Setting) -> Ready:
    """Saved tensors wait in main memory."""
    model = setting.model()

    def forward(images: Tensor) -> Any:
        with torch.autograd.graph.save_on_cpu(pin_memory=setting.device.type == "cuda"):
            return model(images)

    return by_loss(setting, model, _loss(setting, forward), hidden=True)


def compiled(setting: Setting, *, budget: float = 1.0, backend: str = "inductor") -> Ready:
    """`torch.compile`, whose partitioner keeps no more than the share `budget` of the memory."""
    model = setting.model()

    def within_budget(graph: Any, examples: Any) -> Any:
        """A backend of its own: dynamo would share one network's code with another of equal shape."""
        with torch._functorch.config.patch(activation_memory_budget=budget):
            return torch._dynamo.lookup_backend(backend)(graph, examples)

    ready = by_loss(setting, model, _loss(setting, torch.compile(model, backend=within_budget)))
    return replace(ready, compiled=True)


def _localize(setting: Setting, objective: Objective, num_modules: int, **options: Any) -> LocalModel:
    return infopro.localize(
        setting.model(),
        setting.images[:2],
        cuts=setting.planner(objective).cuts(num_modules),
        objective=objective,
        task=setting.task,
        **options,
    )


def deeply_supervised(setting: Setting, *, objective: Objective, num_modules: int) -> Ready:
    """The heads and losses of a local method, differentiated together: no module is isolated."""
    local = _localize(setting, objective, num_modules)

    def loss(images: Tensor, targets: Tensor) -> Tensor:
        flow, batch, losses = local.start((images,)), Batch(images=images, targets=targets), []
        for stage in local.stages:
            flow = stage.part(flow)
            features = stage.part.result(flow) if stage.context.is_last else stage.part.boundary(flow)
            losses.append(stage.objective(features, batch)["total"])
        return torch.stack(losses).sum()

    return by_loss(setting, local, loss)


def local(
    setting: Setting, *, objective: Objective, num_modules: int, checkpoint: str | None = None
) -> Ready:
    options = {"checkpoint": checkpoint} if checkpoint else {}
    found = _localize(setting, objective, num_modules, **options)
    return by_module(setting, found, hidden=checkpoint is not None)


def compiled_local(setting: Setting, *, objective: Objective, num_modules: int) -> Ready:
    """Each module with its heads and loss is one graph."""
    found = _localize(setting, objective, num_modules)
    found.compile()
    return replace(by_module(setting, found), compiled=True)


def _whole(setting: Setting) -> StepMemory:
    return setting.planner(WITHOUT_HEADS).local(1, setting.batch_size)[1]


def _local_method(name: str, num_modules: int) -> Method:
    objective = OBJECTIVES[name]
    return Method(
        *(f"local {name}, K = {num_modules}", f"local {name}", f"{num_modules}", "local"),
        build=partial(local, objective=objective, num_modules=num_modules),
        num_modules=num_modules,
        objective=objective,
        predict=lambda s: s.planner(objective).local(num_modules, s.batch_size)[1],
    )


def _accumulation(parts: int) -> Method:
    return Method(
        *(f"accumulation, {parts} parts", "accumulation", f"{parts}", "exact but for BatchNorm"),
        build=partial(end_to_end, parts=parts),
        predict=lambda s: s.planner(WITHOUT_HEADS).accumulated(s.batch_size, parts),
    )


def _segments(num_segments: int) -> Method:
    return Method(
        *(f"checkpointing, {num_segments} segments", "checkpointing", f"{num_segments}", "exact"),
        build=partial(checkpointed_segments, num_segments=num_segments),
        predict=lambda s: s.planner(WITHOUT_HEADS).segmented(num_segments, s.batch_size),
    )


def _checkpointed_local(num_modules: int, checkpoint: str) -> Method:
    objective = OBJECTIVES["InfoPro softmax"]
    name = f"local InfoPro softmax, K = {num_modules}, checkpointed {checkpoint}"
    return Method(
        *(name, "local + checkpointing", f"{num_modules} {checkpoint}", "local"),
        build=partial(local, objective=objective, num_modules=num_modules, checkpoint=checkpoint),
        num_modules=num_modules,
        objective=objective,
        predict=lambda s: s.planner(objective).local(num_modules, s.batch_size, checkpoint)[1],
    )


def _methods() -> list[Method]:
    supervised = partial(deeply_supervised, objective=OBJECTIVES["InfoPro softmax"], num_modules=4)
    blocks = Method(
        *("checkpointing, per block", "checkpointing", "blocks", "exact"),
        build=checkpointed_blocks,
        predict=lambda s: s.planner(WITHOUT_HEADS).checkpointed(s.batch_size),
    )
    return [
        Method("end to end", "end to end", "end to end", "exact", end_to_end, predict=_whole),
        *(_accumulation(parts) for parts in (2, 4, 8)),
        blocks,
        *(_segments(number) for number in (2, 4, 8)),
        Method(
            *("checkpointing, selective", "checkpointing", "selective", "exact"),
            build=partial(checkpointed_blocks, selective=True),
        ),
        Method("offloading", "offloading", "offload", "exact", offloaded),
        Method("compiled", "compiled", "compiled", "exact", compiled),
        Method(
            *("compiled, memory budget 0.5", "compiled", "budget 0.5", "exact"),
            build=partial(compiled, budget=0.5),
        ),
        Method(
            *("local InfoPro softmax, K = 4, compiled", "compiled", "local 4", "local"),
            build=partial(compiled_local, objective=OBJECTIVES["InfoPro softmax"], num_modules=4),
            num_modules=4,
            objective=OBJECTIVES["InfoPro softmax"],
        ),
        Method(*("deep supervision, K = 4", "deep supervision", "4", "of other losses"), supervised),
        *(_local_method(name, k) for name in OBJECTIVES for k in (2, 3, 4, 8, 16)),
        *(_checkpointed_local(k, what) for what in ("blocks", "everything") for k in (4, 8)),
    ]


METHODS = {method.name: method for method in _methods()}
