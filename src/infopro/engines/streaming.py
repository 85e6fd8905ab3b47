"""Streaming of weights: a network rests in host memory or on disk, one module at a time is on the device."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from infopro.engines._base import Work
from infopro.engines._stage_memory import Ledger, StageMemory, travelling
from infopro.engines.one_process import OneProcess
from infopro.engines.ownership import check_apart
from infopro.engines.programs import Programs
from infopro.engines.stage_steps import StageSteps
from infopro.errors import BadConfiguration, BadInput, NotYetSupported
from infopro.local import LocalModel, differentiate
from infopro.memory import DoesNotFit, format_bytes, parse_bytes
from infopro.random_streams import seed_stage
from infopro.splitting import Flow
from infopro.types import StepOutput

__all__ = ["Streaming"]


class Streaming(OneProcess):
    """Each module visits the device once a step: forward, loss, backward and optimizer, then back to rest.

    Parameters, buffers and optimizer state rest in pinned host memory, or in memory-mapped files. While a
    module computes, the one before it goes back and the next one arrives. The results are those of
    `OneProcess` and one optimizer, bit for bit. Between two steps everything rests: `state_dict()`,
    checkpoints and the network itself work as always, on the CPU.

    Args:
        local: the whole model, in host memory.
        optimizer: of `local.parameters()`; stepped by `backward`, stage by stage.
        example: an input of the network, in training's dtype and image size.
        device: where the modules compute.
        budget: most bytes of parameters, gradients, buffers and optimizer state on the device, such as
            "512MiB"; activations, the batch and workspaces are not counted. None: any number.
        directory: an existing folder for the files; on a CPU it must be given. None: pinned memory.
        precision: of the forward pass, as in `infopro.training.train`.
        stop: asked before every batch, of a test too; True ends the phase there.

    Raises:
        DoesNotFit: the budget is too small for a module and its neighbour.
        NotYetSupported: modules that run together only, share a trained parameter, or branch on input
            values; an optimizer whose state cannot be foretold.
        BadConfiguration: a CPU without a directory; a directory that cannot hold the files.
    """

    def __init__(
        self,
        local: LocalModel,
        optimizer: Optimizer,
        *,
        example: Tensor,
        device: torch.device,
        budget: int | str | None = None,
        directory: Path | str | None = None,
        precision: torch.dtype = torch.float32,
        stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__(local, optimizer=optimizer, stop=stop)
        check_apart(local, remedy="train with OneProcess")
        if device.type == "cpu" and directory is None:
            raise BadConfiguration("on a CPU the modules rest in files", remedy="give a directory")
        self.device = device
        self._steps = StageSteps(local, optimizer)
        self._example_shape = tuple(example.shape[1:])
        self._programs = Programs(local, example, precision=precision)
        _check_constants(self._programs, device)
        self._ledger = Ledger(None if budget is None else parse_bytes(budget))
        shared = _shared(local)
        folder = None if directory is None else Path(directory)
        self._modules = [
            StageMemory(stage, optimizer, shared, device=device, directory=folder, ledger=self._ledger)
            for stage in local.stages
        ]
        state = _future_state(optimizer, device)
        planned = [module.planned(state) for module in self._modules]
        self._gradients = [gradients for _, gradients in planned]
        resident = sum(tensor.nbytes for tensor in shared.values())
        _check_budget(planned, resident, self._ledger.budget)
        self._ledger.take(resident)
        for tensor in shared.values():
            tensor.data = tensor.detach().to(device)
        for module in self._modules:
            module.rest()

    @property
    def bytes_to_device(self) -> int:
        """Of parameters, buffers and optimizer state, since the start."""
        return sum(module.bytes_to_device for module in self._modules)

    @property
    def bytes_from_device(self) -> int:
        """Of parameters, buffers and optimizer state, since the start."""
        return sum(module.bytes_from_device for module in self._modules)

    @property
    def most_resident_bytes(self) -> int:
        """Of parameters, gradients, buffers and optimizer state on the device at once, since the start."""
        return self._ledger.most

    def backward(self, work: Work, *, seed: int) -> StepOutput:
        batch, flow = work.batch, self._start(work.batch.images, training=True)
        self.local.check_once(batch.images, batch.targets)
        losses: list[dict[str, Tensor]] = []

        def learn(index: int) -> None:
            nonlocal flow
            seed_stage(seed, index)
            flow, found = self.local.stages[index](flow, batch)
            differentiate(found["total"])
            self._steps.step(index)
            self._modules[index].note_new_state()
            self._steps.free(index)
            losses.append({name: value.detach() for name, value in found.items()})

        self._visit_all(learn, training=True)
        output = self.local.stages[-1].part.result(flow)
        return StepOutput(tuple(losses), self.local.task.logits(output).detach())

    @torch.no_grad()  # a graph would keep what has left the device
    def predict(self, work: Work) -> Any:
        flow = self._start(work.batch.images, training=False)

        def run(index: int) -> None:
            nonlocal flow
            flow = self.local.stages[index].part(flow)

        self._visit_all(run, training=False)
        return self.local.stages[-1].part.result(flow)

    def bring_home(self) -> None:
        """Move everything into ordinary host memory, after training; a later step puts it to rest again."""
        for module in self._modules:
            module.bring_home()

    def _start(self, images: Tensor, *, training: bool) -> Flow:
        if tuple(images.shape[1:]) != self._example_shape:
            raise BadInput(
                "the network was recorded for images of another size",
                got=list(images.shape[1:]),
                allowed=str(list(self._example_shape)),
                remedy="resize the images, or make the engine with an example of this size",
            )
        return self._programs.start((images,), training=training)

    def _visit_all(self, visit: Callable[[int], None], *, training: bool) -> None:
        """Call `visit` with each module in turn, while it is on the device."""
        leaving: list[Future[None]] = []
        with _Copier(self.device) as copier:
            try:
                arriving = copier.submit(partial(self._modules[0].fetch, state=training))
                for index, module in enumerate(self._modules):
                    arriving.result()
                    with self._ledger.holding(self._gradients[index] * training):
                        if index + 1 < len(self._modules):  # queued behind the module that leaves
                            arriving = copier.submit(partial(self._modules[index + 1].fetch, state=training))
                        visit(index)
                    torch.clear_autocast_cache()  # it would keep a copy of every module's weights
                    leaving.append(copier.submit(partial(module.put_back, changed=training)))
            except BaseException:
                leaving += [copier.submit(partial(m.put_back, changed=training)) for m in self._modules]
                for index in self.stages:
                    self._steps.free(index)
                raise
        for future in leaving:
            future.result()


class _Copier:
    """A thread, and on a GPU a stream of its own: copies run under the computation, one after another."""

    def __init__(self, device: torch.device):
        self._threads = ThreadPoolExecutor(1)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __enter__(self) -> _Copier:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def submit(self, task: Callable[[], None]) -> Future[None]:
        """Run `task` behind what was submitted before, and behind what the device was told to do so far."""
        if self._stream is None:
            return self._threads.submit(task)
        told = torch.cuda.current_stream(self._stream.device).record_event()
        return self._threads.submit(self._beside, task, told)

    def _beside(self, task: Callable[[], None], told: torch.cuda.Event) -> None:
        assert self._stream is not None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(told)
            task()
            self._stream.synchronize()


def _check_budget(planned: list[tuple[int, int]], resident: int, budget: int | None) -> None:
    """A module with its gradients, and the larger one of its neighbours, are on the device at once."""
    resting = [0, *(nbytes for nbytes, _ in planned), 0]
    needs = [
        resident + own + gradients + max(before, behind)
        for (own, gradients), before, behind in zip(planned, resting, resting[2:], strict=False)
    ]
    largest = max(range(len(needs)), key=needs.__getitem__)
    if budget is not None and needs[largest] > budget:
        raise DoesNotFit(
            f"module {largest + 1} of {len(needs)} with its larger neighbour does not fit the budget",
            got=format_bytes(needs[largest]),
            allowed=format_bytes(budget),
            remedy=f"give a budget of {needs[largest]} bytes, or cut the network into more modules",
        )


def _future_state(optimizer: Optimizer, device: torch.device) -> dict[nn.Parameter, list[Tensor]]:
    """What the first step will make for each parameter, as fake tensors: nothing is allocated or changed.

    Raises:
        NotYetSupported: an optimizer that does not step on fake tensors.
    """
    twins: dict[nn.Parameter, nn.Parameter] = {}
    probe = copy.copy(optimizer)
    probe.param_groups, probe.state = [], defaultdict(dict)
    try:
        with FakeTensorMode():
            for group in optimizer.param_groups:
                twins |= {parameter: _twin(parameter) for parameter in group["params"]}
                probe.param_groups.append({**group, "params": [twins[p] for p in group["params"]]})
            probe.step()
    except (RuntimeError, TypeError) as error:
        raise NotYetSupported(
            "the state of this optimizer cannot be foretold",
            got=type(optimizer).__name__,
            remedy="stream with one that keeps its state parameter by parameter, such as SGD or AdamW",
        ) from error
    return {
        parameter: list(travelling(probe.state[twins[parameter]], group, device))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _twin(parameter: nn.Parameter) -> nn.Parameter:
    """A fake copy on a fake CPU, with a gradient."""
    shape, strides, dtype = parameter.shape, parameter.stride(), parameter.dtype
    twin = nn.Parameter(torch.empty_strided(shape, strides, dtype=dtype, device="cpu"))
    twin.grad = torch.empty_like(twin)
    return twin


def _shared(local: LocalModel) -> dict[int, Tensor]:
    """What several modules read, none of it trained: it stays on the device."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    for stage in local.stages:
        own = {id(t): t for t in (*stage.part.tensors(), *stage.parameters(), *stage.buffers())}
        found |= {key: tensor for key, tensor in own.items() if key in seen}
        seen |= own.keys()
    return found


def _check_constants(programs: Programs, device: torch.device) -> None:
    held = max(programs.of(training=training).constants for training in (True, False))
    if held and device.type != "cpu":
        raise NotYetSupported(
            "the network reads tensors that are neither parameters nor buffers",
            got=f"{held} of them",
            remedy="register them as buffers, which move with their module",
        )
