"""What crosses the cuts: all that a module needs of those before it when they no longer run with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infopro.engines.ownership import check_apart
from infopro.engines.programs import Programs
from infopro.errors import NotYetSupported
from infopro.local import LocalModel
from infopro.splitting import Flow, start
from infopro.splitting.program import PartProgram, Program, owned_tensors, resized
from infopro.splitting.record import undisturbed
from infopro.types import Batch

__all__ = ["Crossing", "Crossings", "ImagesNotCached", "without_images"]

_REMEDY = "train all modules together"
_SIZES = (2, 3)  # two batch sizes tell what follows the batch


class ImagesNotCached(NotYetSupported):
    """An objective reads images that did not cross the cut with the features."""


class _WithoutImages:
    def __init__(self, targets: Tensor):
        self.targets = targets

    @property
    def images(self) -> Tensor:
        raise ImagesNotCached(
            "the objective reads the images, and in its first batch did not", remedy=_REMEDY
        )


def without_images(targets: Tensor) -> Batch:
    """A batch that raises ImagesNotCached where its images are read."""
    return _WithoutImages(targets)  # type: ignore[return-value]  # a batch to whoever reads only targets


@dataclass(frozen=True)
class Crossing:
    """What one module reads: the boundary before it, and whatever crosses the cut besides."""

    training: tuple[int, ...]  # value numbers in the recording of train mode
    evaluating: tuple[int, ...]  # the same values in the recording of eval mode
    example: Mapping[str, Tensor]  # of two images
    shared: frozenset[str]  # those without a batch dimension, such as masks: the same for all images

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.example)


class Crossings:
    """For every module what it reads, and whether its objective reads the images besides.

    A network is recorded in train mode and in eval mode; the values that cross a cut are matched by their
    order. Everything runs where `local` and the images are, on two and on three images.

    Args:
        images: [N, C, H, W], an example as training will pass them.
        targets: theirs.
        precision: float32, or the dtype of autocast.

    Raises:
        NotYetSupported: modules that run together only, share parameters, branch on values of the images, or
            read different things in train mode and in eval mode; values that do not follow the batch.
    """

    def __init__(self, local: LocalModel, images: Tensor, targets: Tensor, *, precision: torch.dtype):
        check_apart(local, remedy=_REMEDY)
        programs = Programs(local, images, precision=precision)
        self._programs = {training: programs.of(training=training) for training in (True, False)}
        for program in self._programs.values():
            _check_owned(local, program)
        lower = precision != torch.float32
        with torch.autocast(images.device.type, dtype=precision if lower else None, enabled=lower):
            two, three = (self._values(local, images, size, training=True) for size in _SIZES)
            evaluated = self._values(local, images, _SIZES[0], training=False)
            self._reads_images = _image_readers(local, self._programs[True], images, targets)
        parts = zip(self._programs[True].parts, self._programs[False].parts, strict=True)
        self.modules = tuple(
            _crossing(index, pair, two[index], three[index], evaluated[index])
            for index, pair in enumerate(parts)
        )

    def _values(self, local: LocalModel, images: Tensor, size: int, *, training: bool) -> list[list[Tensor]]:
        """What every module reads of a batch of this size; nothing of `local` changes."""
        program, found = self._programs[training], []
        with undisturbed(local), torch.no_grad():
            local.train(training)
            flow = start(program, resized((images,), size))
            for stage, part in zip(local.stages, program.parts, strict=True):
                found.append([flow.values[number] for number in part.needs])
                flow = stage.part(flow)
        return found

    @property
    def constants(self) -> int:
        """Tensors that the network holds but does not own: they stay where they were recorded."""
        return max(program.constants for program in self._programs.values())

    def reads_images(self, index: int) -> bool:
        """Whether the objective of this module (0-based), or of a later one, reads the images."""
        return any(self._reads_images[index:])

    def start(self, index: int, tensors: Mapping[str, Tensor], *, size: int, training: bool) -> Flow:
        """The flow that this module reads, of the tensors that crossed the cut before it."""
        program, crossing = self._programs[training], self.modules[index]
        numbers = crossing.training if training else crossing.evaluating
        values = {number: tensors[name] for number, name in zip(numbers, crossing.names, strict=True)}
        device = next(iter(tensors.values())).device
        return Flow(program, values, size, device)

    def after(self, index: int, flow: Flow) -> dict[str, Tensor]:
        """The tensors that the next module reads, of what this one (0-based) has left in eval mode."""
        crossing = self.modules[index + 1]
        return {n: flow.values[v] for n, v in zip(crossing.names, crossing.evaluating, strict=True)}


def _check_owned(local: LocalModel, program: Program) -> None:
    """What a module calls in either mode must be what it moves and trains."""
    for stage, part in zip(local.stages, program.parts, strict=True):
        own = {id(tensor) for tensor in stage.part.tensors()}
        foreign = [name for name, tensor in _called(local.model, part) if id(tensor) not in own]
        if foreign:
            raise NotYetSupported(
                f"module {stage.context.index + 1} has other blocks in train mode than in eval mode",
                got=f"{foreign[0]} in one of them only",
                remedy=_REMEDY,
            )


def _called(model: nn.Module, part: PartProgram) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for block in part.blocks:
        module = model.get_submodule(block)
        tensors = [*module.named_parameters(), *module.named_buffers()]
        found += [(f"{block}.{name}", tensor) for name, tensor in tensors]
    for name in sorted(owned_tensors(part)):
        owner, _, attribute = name.rpartition(".")
        found.append((name, getattr(model.get_submodule(owner), attribute)))
    return found


def _image_readers(local: LocalModel, program: Program, images: Tensor, targets: Tensor) -> list[bool]:
    """For every module whether its objective reads the images: tried without them."""
    found = []
    with undisturbed(local), torch.no_grad():
        images, targets = resized((images, targets), _SIZES[0])
        flow = start(program, (images,))
        for stage in local.stages:
            flow = stage.part(flow)
            features = stage.part.result(flow) if stage.context.is_last else stage.part.boundary(flow)
            try:
                stage.objective(features, without_images(targets))
                found.append(False)
            except ImagesNotCached:
                found.append(True)
    return found


def _crossing(
    index: int,
    parts: tuple[PartProgram, PartProgram],
    two: list[Tensor],
    three: list[Tensor],
    evaluated: list[Tensor],
) -> Crossing:
    trained_kinds, evaluated_kinds = _kinds(two), _kinds(evaluated)
    if trained_kinds != evaluated_kinds:
        raise NotYetSupported(
            f"module {index + 1} reads other tensors in train mode than in eval mode",
            got=f"{', '.join(trained_kinds)} and {', '.join(evaluated_kinds)}",
            remedy=f"cut elsewhere, or {_REMEDY}",
        )
    names = [f"value-{position}" for position in range(len(two))]
    shared = frozenset(n for n, a, b in zip(names, two, three, strict=True) if not _follows(index, a, b))
    training, evaluating = parts
    return Crossing(training.needs, evaluating.needs, dict(zip(names, two, strict=True)), shared)


def _kinds(tensors: list[Tensor]) -> list[str]:
    return [f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in tensors]


def _follows(index: int, two: Tensor, three: Tensor) -> bool:
    """Whether the first dimension is the batch; False for what is the same at every batch size."""
    if two.shape == three.shape:
        return False
    if (*two.shape[:1], *three.shape[:1]) == _SIZES and two.shape[1:] == three.shape[1:]:
        return True
    raise NotYetSupported(
        f"module {index + 1} reads a tensor whose first dimension is not the batch",
        got=f"{list(two.shape)} for {_SIZES[0]} images",
        remedy=f"cut elsewhere, or {_REMEDY}",
    )
