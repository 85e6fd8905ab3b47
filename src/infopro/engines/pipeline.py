"""Modules in processes of their own: features go forward, nothing comes back.

A module needs from the one before it its output for this batch, made before that batch's update. So K
processes that each train one module compute, bit for bit, what one process computes; no gradient travels, no
process waits for a later one but for a bounded queue, and the pipeline is filled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infopro.engines._base import Batches, Engine, Phase, Work
from infopro.engines.channel import Header, Receiver, Sender, Watcher
from infopro.engines.collectives import average_buffers, gather_numbers
from infopro.engines.ownership import check_separable, keep_only, owned_names
from infopro.engines.parts_of_batches import gradient_scale
from infopro.engines.processes import Processes
from infopro.engines.programs import Programs
from infopro.engines.replica_groups import new_group, replicas_of, unused_parameters
from infopro.engines.timeline import Timeline
from infopro.engines.whole_network import whole_network
from infopro.errors import BadConfiguration
from infopro.local import LocalModel, differentiate
from infopro.random_streams import seed_stage
from infopro.splitting import Flow
from infopro.types import Batch, StepOutput

__all__ = ["Pipeline"]


class Pipeline(Engine):
    """One process of a pipeline, or one of several replicas of it.

    The process keeps the parameters of its own module; those of the others become meta tensors.

    Args:
        local: the whole model, built alike by every process; on its device.
        example: an input of the network, in training's dtype and image size.
        precision: of the forward pass, as in `infopro.training.train`.
        queue: batches that may be under way to the next module before this one waits.
        stop: asked before every batch, of a test too, by the first module's process; all others follow it.
        synchronise: BatchNorm over the whole batch, where replicas share it.
        gather: contrastive losses over the whole batch, where replicas share it.
        shard: replicas share the parameters and the optimizer's state out, too, by `fully_shard`.

    Raises:
        NotYetSupported: modules that run together only, share parameters, or branch on input values.
        BadConfiguration: a module without parameters; another number of modules than processes.
    """

    def __init__(
        self,
        local: LocalModel,
        processes: Processes,
        *,
        example: torch.Tensor,
        precision: torch.dtype = torch.float32,
        queue: int = 2,
        stop: Callable[[], bool] = lambda: False,
        synchronise: bool = False,
        gather: bool = False,
        shard: bool = False,
    ):
        _check_fit(local, processes, queue)
        check_separable(local)
        self.local = local
        self.processes = processes
        self.replica, self.replicas = processes.replica, processes.replicas
        self.stages = _own_stages(local, processes)
        self.timeline = Timeline(self.stages.start, replica=self.replica)
        self._stop = stop
        self._programs = Programs(local, example, precision=precision)
        unused = unused_parameters(local, self._programs, example, self.stages) if self.replicas > 1 else {}
        self._names = owned_names(local, self.stages)
        keep_only(local, self.stages)
        own = [local.stages[index] for index in self.stages]
        self._group, self._runs = replicas_of(
            own, processes, unused, synchronise=synchronise, gather=gather, shard_them=shard
        )
        self._before: Receiver | None = None
        self._after: Sender | None = None
        self._connect(queue, example.device)

    @property
    def bytes_sent(self) -> int:
        """To the next module, since the start."""
        return 0 if self._after is None else self._after.bytes_sent

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.local.named_parameters() if name in self._names]

    def names(self) -> set[str]:
        """What of `local.state_dict()` this process stores in a checkpoint."""
        return self._names

    def feed(self, phase: Phase, batches: Callable[[], Batches]) -> Iterator[Work]:
        return self._images(phase, batches) if self._before is None else self._features(phase, self._before)

    def backward(self, work: Work, *, seed: int) -> StepOutput:
        assert work.flow is not None
        flow, losses = work.flow, []
        scale = gradient_scale(work.size, work.total, self.replicas)
        for index, run in zip(self.stages, self._runs, strict=True):
            seed_stage(seed, index, self.replica)
            with self.span("forward", work.step):
                flow, found = run(flow, work.batch, self._passing_on(index, work), scale=scale)
            with self.span("backward", work.step):
                differentiate(found["total"])
            losses.append({name: value.detach() for name, value in found.items()})
        logits = self._logits(flow)
        with self.span("reduce", work.step):
            for run in self._runs:  # the reductions have run on under the modules after them
                run.wait()
        return StepOutput(tuple(losses), logits)

    def predict(self, work: Work) -> Any:
        assert work.flow is not None
        flow = work.flow
        with self.span("evaluate", work.step):
            if self._of_another_size(work):
                return whole_network(self.local, self._runs, work.batch.images)
            for index, run in zip(self.stages, self._runs, strict=True):
                with run.whole():
                    flow = self.local.stages[index].part(flow)
                pass_on = self._passing_on(index, work)
                if pass_on is not None:
                    pass_on(flow)
        return self.local.stages[-1].part.result(flow) if self.is_last else None

    def _of_another_size(self, work: Work) -> bool:
        """Whether images are not what the modules were recorded with, as where training crops them."""
        own = self.local.stages[0].context.image_shape
        images = work.batch.images  # without a shape where only later modules run
        return self._before is None and images.dim() == len(own) + 1 and tuple(images.shape[1:]) != own

    def gather(self, value: Any) -> list[Any] | None:
        """Along the pipeline: each process adds its own and hands all on; nobody waits for a later one."""
        values = [] if self._before is None else self._before.receive_value()
        values.append(value)
        if self._after is not None:
            self._after.send_value(values)
            return None
        return values if self.writes else None

    def each(self, values: Sequence[float]) -> list[list[float]]:
        return [list(values)] if self._group is None else gather_numbers(values, self._group)

    def settle(self) -> None:
        """Without synchronised BatchNorm each replica has statistics of its own share: they are averaged."""
        if self._group is not None:
            average_buffers([self.local.stages[index] for index in self.stages], self._group)

    def finish(self) -> None:
        """Return when the next module has everything."""
        if self._after is not None:
            self._after.drain()

    @contextmanager
    def span(self, kind: Any, step: int | None = None) -> Iterator[None]:
        self.processes.signs.doing(kind, step)
        with self.timeline.span(kind, step):
            yield

    def explain(self, waited_for: int) -> str:
        """Who is missing, for the message of a process that has waited in vain."""
        return self.processes.signs.explain(waited_for)

    def explain_gone(self, peer: int) -> str | None:
        """Who has closed its connection; None where that process has said why."""
        return self.processes.signs.explain_gone(peer)

    def write_timeline(self, folder: Path) -> None:
        """Leave this process's part of the timeline in a folder that all share."""
        folder.mkdir(parents=True, exist_ok=True)
        replica = f"-replica-{self.replica + 1}" if self.replicas > 1 else ""
        self.timeline.write(folder / f"stage-{self.stages.start + 1}{replica}.json")

    def _connect(self, queue: int, device: torch.device) -> None:
        own, width = self.processes.stage, self.replicas
        # one group per connection, made by all processes in one order: traffic to different peers overlaps
        for near in range(self.processes.num_stages - 1):
            for replica in range(width):
                ends = [near * width + replica, (near + 1) * width + replica]
                group = new_group(ends, self.processes)
                if replica == self.replica and near == own:
                    self._after = Sender(group, ends[1], depth=queue, watcher=self._watcher())
                if replica == self.replica and near == own - 1:
                    self._before = Receiver(
                        group, ends[0], depth=queue, watcher=self._watcher(), device=device
                    )

    def _watcher(self) -> Watcher:
        """Who is told what the channels wait for."""
        return self

    def _images(self, phase: Phase, batches: Callable[[], Batches]) -> Iterator[Work]:
        source = batches()
        for step in range(phase.first, len(phase.sizes)):
            if self._is_to_stop(phase):
                self._end_early(self._header(phase, step))
                return
            with self.span("data", step):
                images, targets = next(source)
            if phase.training:
                self.local.check_once(images, targets)
            flow = self._programs.start((images,), training=phase.training)
            batch = Batch(images, targets)
            yield Work(flow, batch, phase, step)

    def _features(self, phase: Phase, before: Receiver) -> Iterator[Work]:
        headers = [self._header(phase, step) for step in range(phase.first, len(phase.sizes))]
        for header, tensors in before.stream(headers):
            if header.stop:
                self._end_early(header)
                return
            yield self._unpacked(header, tensors, phase)

    def _unpacked(self, header: Header, tensors: Sequence[torch.Tensor], phase: Phase) -> Work:
        program = self._programs.of(training=header.training)
        needs = program.parts[self.stages.start].needs
        targets, *rest = tensors
        images = rest.pop(0) if self._images_wanted(self.stages.start) else targets.new_empty(0)
        values = dict(zip(needs, rest, strict=True))
        flow = Flow(program, values, header.size, targets.device)
        return Work(flow, Batch(images, targets), phase, header.step)

    def _passing_on(self, index: int, work: Work) -> Callable[[Flow], None] | None:
        after = self._after
        if after is None or index != self.stages[-1]:
            return None
        header = self._header(work.phase, work.step)

        def pass_on(flow: Flow) -> None:
            kept = () if self._before is None else self._before.memory
            after.send(header, self._message(flow, work, index + 1), overwritten=kept)

        return pass_on

    def _message(self, flow: Flow, work: Work, receiver: int) -> list[torch.Tensor]:
        """All that the next modules need of a batch."""
        needs = flow.program.parts[receiver].needs
        images = [work.batch.images] if self._images_wanted(receiver) else []
        return [work.batch.targets, *images, *(flow.values[number] for number in needs)]

    def _images_wanted(self, stage: int) -> bool:
        return any(s.objective.reads_images for s in self.local.stages[stage:])

    def _end_early(self, header: Header) -> None:
        self.stopped = True
        self._say_stop(header)

    def _say_stop(self, header: Header) -> None:
        if self._after is not None:
            self._after.stop(header)

    def _is_to_stop(self, phase: Phase) -> bool:
        """All replicas stop before the same batch."""
        wanted = self._stop()
        return wanted if self.replicas == 1 else self.sum([float(wanted)])[0] > 0

    def _header(self, phase: Phase, step: int) -> Header:
        return Header(phase.training, phase.epoch, step, phase.sizes[step])

    def _logits(self, flow: Flow) -> torch.Tensor:
        if not self.is_last:
            return torch.empty(0)
        return self.local.task.logits(self.local.stages[-1].part.result(flow)).detach()


def _check_fit(local: LocalModel, processes: Processes, queue: int) -> None:
    if processes.num_stages not in (1, len(local.stages)):
        raise BadConfiguration(
            "another number of modules than the processes were joined for",
            got=f"{len(local.stages)} modules",
            allowed=f"{processes.num_stages}",
            remedy="joined(num_stages=K, ...)",
        )
    if queue < 1:
        raise BadConfiguration("queue is too small", got=queue, allowed="1 or more")


def _own_stages(local: LocalModel, processes: Processes) -> range:
    if processes.num_stages == 1:
        return range(len(local.stages))
    return range(processes.stage, processes.stage + 1)
