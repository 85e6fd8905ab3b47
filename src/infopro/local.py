"""The method: K gradient-isolated modules, each trained by its own local loss.

InfoPro (Wang et al., ICLR 2021, arXiv 2101.10832), section 3; the same loop serves every local method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infopro.errors import BadInput, BadSplit, NotYetSupported
from infopro.objectives import Objective, StageObjective
from infopro.split import Flow, Part, SplitModel, split_model
from infopro.split.program import resized
from infopro.split.record import undisturbed
from infopro.split.split_model import as_inputs
from infopro.tasks import Task
from infopro.types import Batch, Split, StageContext, StepOutput

__all__ = ["LocalModel", "LocalStage", "localize"]


class LocalStage(nn.Module):
    """One of the K modules with its objective: a closed unit of forward, loss and backward."""

    def __init__(self, part: Part, objective: StageObjective, context: StageContext):
        super().__init__()
        self.part = part
        self.objective = objective
        self.context = context

    @property
    def heads(self) -> nn.ModuleDict:
        """The auxiliary nets, by the name of the loss that they compute; empty for the last stage."""
        return self.objective.heads

    def forward(self, flow: Flow, batch: Batch) -> tuple[Flow, Mapping[str, Tensor]]:
        """Run the module on what the previous one left; no gradient will reach that one."""
        flow = self.part(flow if self.context.index == 0 else flow.detached())
        features = self.part.result(flow) if self.context.is_last else self.part.boundary(flow)
        return flow, self.objective(features, batch)


class LocalModel(nn.Module):
    """A network whose modules are trained locally; `model` stays the caller's own network, with its own keys.

    `parameters()` are the network's and the heads'. Calling it, evaluating and saving go to `model`.
    """

    def __init__(self, split: SplitModel, stages: Sequence[LocalStage], task: Task):
        super().__init__()
        self.model = split.model
        self.heads = nn.ModuleList(stage.objective for stage in stages)
        self.task = task
        self.stages = tuple(stages)  # a tuple: their blocks are registered once, under `model`
        self._split = split
        self._checked = False

    @property
    def split(self) -> Split:
        """Where the network is cut: names, blocks, boundary shapes."""
        return self._split.description

    def forward(self, *inputs: Any) -> Any:
        """The network itself."""
        return self.model(*inputs)

    def backward(
        self, images: Any, targets: Tensor, *, on_stage_done: Callable[[int], object] | None = None
    ) -> StepOutput:
        """One local step, module by module: gradients are added to `.grad`, as `loss.backward()` does.

        The activations of one module live at a time. Every module reads features from before any update.

        Args:
            images: [N, C, H, W] normalised as the task says, or a tuple of the network's inputs.
            targets: what the task's loss takes, class labels [N] for classification.
            on_stage_done: called with the index of each stage once its gradients are complete, so that its
                optimizer may step and its gradients be freed before the next stage runs.

        Raises:
            BadInput: images of another size than the heads were built for; what `check` finds in the first
                batch.
        """
        inputs = as_inputs(images)
        self._check_size(inputs[0])
        if not self._checked:
            self.check(inputs, targets)
        batch = Batch(images=inputs[0], targets=targets)
        flow, losses = self._split.start(inputs), []
        for index, stage in enumerate(self.stages):
            flow, stage_losses = stage(flow, batch)
            _differentiate(stage_losses["total"])
            losses.append({name: value.detach() for name, value in stage_losses.items()})
            flow = flow.detached()
            if on_stage_done is not None:
                on_stage_done(index)
        logits = self.task.logits(self.stages[-1].part.result(flow))
        return StepOutput(tuple(losses), logits.detach())

    def check(self, images: Any, targets: Tensor) -> None:
        """Find out whether a batch can be trained on; `backward` asks once, for the first batch it gets.

        Values are read, so this waits for the device: no later step does.

        Raises:
            BadInput: labels out of range, images that are not finite or not normalised as the task says.
        """
        batch = Batch(images=as_inputs(images)[0], targets=targets)
        self.task.check(batch.images, targets)
        for stage in self.stages:
            stage.objective.check(batch)
        self._checked = True

    def _check_size(self, images: Tensor) -> None:
        expected, got = self.stages[0].context.image_shape, tuple(images.shape[1:])
        if got != expected and len(self.stages) > 1:
            raise BadInput(
                "the heads were built for images of another size",
                got=list(got),
                allowed=str(list(expected)),
                remedy="resize the images, or call localize with an example input of this size",
            )


def _differentiate(loss: Tensor) -> None:
    if loss.requires_grad:  # a stage may be frozen
        # backward follows the forward's dtypes by itself
        with torch.autocast(loss.device.type, enabled=False):
            torch.autograd.backward(loss)


def localize(
    model: nn.Module,
    example_input: Any,
    *,
    objective: Objective,
    task: Task,
    num_modules: int | None = None,
    cuts: Sequence[str] | None = None,
    memory: str | None = None,
    balance: str = "depth",
) -> LocalModel:
    """Make any network trainable by a local objective, without changing or copying it.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs, as training will pass them.
        objective: what each module but the last is trained on; the last one has the task's own loss.
        num_modules: K; or name the K-1 blocks that end a module in `cuts`.
        balance: "depth" deals the blocks out equally.

    Raises:
        BadSplit, BadInput, NotSplittable: see `infopro.split.split_model`.
        BadInput: a network whose output does not fit the task.
        NotYetSupported: `memory`, or another `balance` than "depth".

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
    if memory is not None or balance != "depth":
        asked = f"memory={memory!r}, balance={balance!r}"
        raise NotYetSupported("cuts are chosen by depth only", got=asked, remedy="pass num_modules or cuts")
    if objective.num_modules is not None:
        num_modules = _fixed(objective, num_modules, cuts)
        cuts = None
    split = split_model(model, example_input, num_modules=num_modules, cuts=cuts)
    inputs = as_inputs(example_input)
    if not isinstance(inputs[0], Tensor):
        raise BadInput("the first input must be a tensor", got=type(inputs[0]).__name__)
    with undisturbed(model), torch.no_grad():
        task.check_output(model(*resized(inputs, 2)))
    shapes = [*split.description.boundary_shapes, ()]
    contexts = [
        StageContext(k, len(shapes), shape, tuple(inputs[0].shape[1:])) for k, shape in enumerate(shapes)
    ]
    pairs = zip(split.parts, contexts, strict=True)
    stages = [LocalStage(part, objective.build(context, task), context) for part, context in pairs]
    dtype = inputs[0].dtype if inputs[0].is_floating_point() else None
    for stage in stages:
        stage.heads.to(device=inputs[0].device, dtype=dtype)
    return LocalModel(split, stages, task.to(inputs[0].device))


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
