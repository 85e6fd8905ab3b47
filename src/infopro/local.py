"""The method: K gradient-isolated modules, each trained by its own local loss.

InfoPro (Wang et al., ICLR 2021, arXiv 2101.10832), section 3; the same loop serves every local method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from infopro.compiling import compile_alone
from infopro.errors import BadInput, NotYetSupported
from infopro.objectives import StageObjective
from infopro.random_streams import seed_stage
from infopro.splitting import Flow, LiveSplit, Part, SplitModel, as_inputs, run_again_later
from infopro.tasks import Task
from infopro.types import Batch, Split, StageContext, StepOutput

__all__ = ["LocalModel", "LocalStage", "differentiate"]


class LocalStage(nn.Module):
    """One of the K modules with its objective: a closed unit of forward, loss and backward."""

    def __init__(self, part: Part, objective: StageObjective, context: StageContext, *, again: bool = False):
        super().__init__()
        self.part = part
        self.objective = objective
        self.context = context
        self.again = again  # heads and loss keep the features only, and run again in the backward pass

    @property
    def heads(self) -> nn.ModuleDict:
        """The auxiliary nets, by the name of the loss that they compute; empty for the last stage."""
        return self.objective.heads

    def forward(
        self, flow: Flow, batch: Batch, pass_on: Callable[[Flow], object] | None = None
    ) -> tuple[Flow, Mapping[str, Tensor]]:
        """Run the module on what the previous one left; no gradient will reach that one.

        `pass_on` gets what the module leaves before any head runs: its successor need not wait for them.
        """
        return self.run(flow if self.context.index == 0 else flow.detached(), batch, pass_on)

    def run(
        self, flow: Flow, batch: Batch, pass_on: Callable[[Flow], object] | None
    ) -> tuple[Flow, Mapping[str, Tensor]]:
        """`forward` on a flow that is detached already: what `LocalModel.compile` compiles."""
        flow = self.part(flow)
        if pass_on is not None:
            pass_on(flow)
        features = self.part.result(flow) if self.context.is_last else self.part.boundary(flow)
        if self.again:
            return flow, run_again_later(self.objective, self.objective.modules(), features, batch)
        return flow, self.objective(features, batch)


class LocalModel(nn.Module):
    """A network whose modules are trained locally; `model` stays the caller's own network, with its own keys.

    `parameters()` are the network's and the heads'. Calling it, evaluating and saving go to `model`.
    """

    def __init__(
        self,
        split: SplitModel | LiveSplit,
        stages: Sequence[LocalStage],
        task: Task,
        *,
        checked: bool = False,
    ):
        super().__init__()
        self.model = split.model
        self.heads = nn.ModuleList(stage.objective for stage in stages)
        self.task = task
        self.stages = tuple(stages)  # a tuple: their blocks are registered once, under `model`
        self._split = split
        self._checked = checked

    @property
    def split(self) -> Split:
        """Where the network is cut: names, blocks, boundary shapes."""
        return self._split.description

    def forward(self, *inputs: Any) -> Any:
        """The network itself."""
        return self.model(*inputs)

    def backward(
        self,
        images: Any,
        targets: Tensor,
        *,
        seed: int | None = None,
        on_stage_done: Callable[[int], object] | None = None,
    ) -> StepOutput:
        """One local step, module by module: gradients are added to `.grad`, as `loss.backward()` does.

        The activations of one module live at a time. Every module reads features from before any update.

        Args:
            images: [N, C, H, W] normalised as the task says, or a tuple of the network's inputs.
            targets: what the task's loss takes, class labels [N] for classification.
            seed: module k then draws (dropout) from `stage_seed(seed, k)`, as it does in its own process.
            on_stage_done: called with the index of each stage once its gradients are complete, so that its
                optimizer may step and its gradients be freed before the next stage runs.

        Raises:
            BadInput: images of another size than the heads were built for; what `check` finds in the first
                batch.
        """
        if not torch.is_grad_enabled():
            raise BadInput("gradients are switched off", remedy="call backward outside of torch.no_grad()")
        inputs = as_inputs(images)
        self._check_size(inputs[0])
        self.check_once(inputs, targets)
        batch = Batch(images=inputs[0], targets=targets)
        losses: list[dict[str, Tensor]] = []

        def learn(index: int, stage_losses: Mapping[str, Tensor]) -> None:
            differentiate(stage_losses["total"])
            losses.append({name: value.detach() for name, value in stage_losses.items()})
            torch.clear_autocast_cache()  # else every module's weights stay in low precision, too
            if on_stage_done is not None:
                on_stage_done(index)
            seed_stage(seed, index + 1)

        seed_stage(seed, 0)
        output = self.walk(inputs, batch, learn)
        return StepOutput(tuple(losses), self.task.logits(output).detach())

    def walk(
        self, inputs: tuple[Any, ...], batch: Batch, learn: Callable[[int, Mapping[str, Tensor]], object]
    ) -> Any:
        """Run the modules in turn, with `learn(index, losses)` behind each; returns the network's result."""
        if isinstance(self._split, LiveSplit):
            objectives = [stage.objective for stage in self.stages]
            return self._split.run(inputs, lambda k, features: learn(k, objectives[k](features, batch)))
        flow = self.start(inputs)
        for index, stage in enumerate(self.stages):
            flow, losses = stage(flow, batch)  # which detaches what it reads
            learn(index, losses)
        return self.stages[-1].part.result(flow)

    def start(self, inputs: tuple[Any, ...]) -> Flow:
        """What the first stage reads; raises NotYetSupported where stages run together only."""
        return self._split.start(inputs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile every stage, module with heads and loss, as a graph of its own; `backward` runs those.

        Arguments are those of `torch.compile`. A weight λ that changes costs one compilation, not one per
        value. Compiled dropout draws other numbers than eager dropout does.

        Raises:
            NotYetSupported: a live network, whose stages run together only.
        """
        if isinstance(self._split, LiveSplit):
            raise NotYetSupported(
                "a network whose forward is run live cannot be compiled stage by stage",
                remedy="compile its blocks: block.compile()",
            )
        for stage in self.stages:
            eager = MethodType(LocalStage.run, stage)  # whatever was compiled before
            stage.run = compile_alone(eager, *args, **kwargs)  # type: ignore[method-assign]

    def check_once(self, images: Any, targets: Tensor) -> None:
        """`check` for the first batch, nothing for those after it."""
        if not self._checked:
            self.check(images, targets)

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


def differentiate(loss: Tensor) -> None:
    """Run backward through one module and its heads."""
    if loss.requires_grad:  # a stage may be frozen
        # backward follows the forward's dtypes by itself
        with torch.autocast(loss.device.type, enabled=False):
            torch.autograd.backward(loss)
