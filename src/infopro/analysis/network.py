"""Everything that can be found out about one trained network, in one call."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from infopro.analysis._subject import Subject, absent
from infopro.analysis._types import Analysis, ModuleGradient, ProbeResults, References, Similarity
from infopro.analysis.blocks import modules_of_blocks
from infopro.analysis.comparison_settings import ComparisonSettings
from infopro.analysis.gradients import module_gradients
from infopro.analysis.information import entropy
from infopro.analysis.network_pass import OnStep, unreported
from infopro.analysis.probe_settings import ProbeSettings
from infopro.analysis.probes import ESTIMATES, probe_blocks
from infopro.analysis.similarity import compare_blocks
from infopro.data import ImageData, labels_of, limit, num_batches
from infopro.errors import BadInput, UnknownName
from infopro.local import LocalModel
from infopro.tasks import Task

__all__ = ["QUANTITIES", "OnStep", "analyze"]

QUANTITIES = (*ESTIMATES, "cka", "gradients")


def analyze(
    model: nn.Module | LocalModel,
    task: Task,
    data: ImageData,
    *,
    blocks: Sequence[str] | None = None,
    only: Collection[str] | None = None,
    probes: ProbeSettings | None = None,
    comparison: ComparisonSettings | None = None,
    name: str = "",
    others: Mapping[str, nn.Module] | None = None,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    on_step: OnStep | None = None,
) -> Analysis:
    """What each block of a trained network keeps and loses, how alike blocks are, what modules learn from.

    The network and all random streams are left as they were; everything is computed in float32.

    Args:
        model: a network, or a local model: then blocks are told apart by module, and gradients compared.
        data: training images for the probes and gradients, test images for what is reported.
        blocks: names of modules; None for all that `blocks_of` finds.
        only: some of "linear", "input", "task", "nuisance", "cka" and "gradients"; None for all that the
            model allows.
        name: of this network, in its CKA.
        others: further networks by name, of the same input, whose blocks this one's are compared with.
        device: where the network is; None: that of its parameters.
        num_workers: processes that read image files.
        on_step: called with (what is being done, steps done, steps in all).

    Raises:
        BadInput: a network that does not classify one image tensor into the data's classes.
        BadData: too few images for the probes.
        UnknownName: no such block, or nothing of that name to find out.

    Example:
        >>> import infopro
        >>> from infopro import data, tasks
        >>> digits = data.limit(data.load("digits-on-photos"), train=64, test=64)
        >>> net = infopro.models.create("demo_resnet", num_classes=10)
        >>> task = tasks.Classification(num_classes=10, mean=digits.mean, std=digits.std)
        >>> found = analyze(net, task, digits, only=["cka"], blocks=["layer1.0", "layer3.1"])
        >>> len(found.similarities[0].values)
        2
    """
    started = time.perf_counter()
    local = model if isinstance(model, LocalModel) else None
    wanted = _wanted(only, local)
    network = model if local is None else local.model
    subject = Subject(
        network=network, task=task, data=data, device=_device(network, device), num_workers=num_workers
    )
    report, settings = on_step or unreported, comparison or ComparisonSettings()
    chosen = subject.blocks(blocks)
    columns = _columns(subject, chosen, name, others or {})  # before anything that takes long
    found = _probe(subject, local, chosen, wanted, probes, report)
    gradients: tuple[ModuleGradient, ...] = ()
    if local is not None and "gradients" in wanted:
        gradients = _gradients(subject, local, settings, report)
    similarities: Iterable[Similarity] = ()
    if "cka" in wanted:
        similarities = _similarities(subject, chosen, name, columns, settings, report)
    return Analysis(
        references=found.references,
        blocks=found.blocks,
        gradients=gradients,
        similarities=tuple(similarities),
        settings={**found.settings, "comparison": _used(settings, data)},
        seconds=time.perf_counter() - started,
        images=found.images,
        notes=found.notes,
    )


def _device(network: nn.Module, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _used(settings: ComparisonSettings, data: ImageData) -> dict[str, int]:
    """The settings, as far as there were images."""
    most = {"images": len(data.test), "gradient_batch_size": len(data.train)}
    return {name: min(value, most.get(name, value)) for name, value in vars(settings).items()}


def _wanted(only: Collection[str] | None, local: LocalModel | None) -> tuple[str, ...]:
    for name in only or ():
        if name not in QUANTITIES:
            raise UnknownName("quantity", name, QUANTITIES)
    if only is not None and "gradients" in only and local is None:
        raise BadInput(
            "gradients are compared module by module", remedy="pass what localize returned, not the network"
        )
    return tuple(name for name in QUANTITIES if only is None or name in only)


def _probe(
    subject: Subject,
    local: LocalModel | None,
    blocks: tuple[str, ...],
    wanted: Sequence[str],
    settings: ProbeSettings | None,
    on_step: OnStep,
) -> ProbeResults:
    estimates = [name for name in ESTIMATES if name in wanted]
    if not estimates:
        return ProbeResults(references=_references(subject.data), blocks=())
    cuts = () if local is None else local.split.cuts
    return probe_blocks(
        subject.network,
        subject.task,
        subject.data,
        blocks=blocks,
        module_of=modules_of_blocks(subject.network, subject.example(), blocks=blocks, cuts=cuts),
        estimates=estimates,
        settings=settings,
        device=subject.device,
        num_workers=subject.num_workers,
        on_step=on_step,
    )


def _references(data: ImageData) -> References:
    """What is known without any probe."""
    return References(
        pixels=math.prod(data.image_shape),
        label_entropy=entropy(labels_of(data.test)),
        constant_cross_entropy=math.nan,
    )


def _gradients(
    subject: Subject, local: LocalModel, settings: ComparisonSettings, on_step: OnStep
) -> tuple[ModuleGradient, ...]:
    images = subject.data.train
    size = min(settings.gradient_batch_size, len(images))
    total = min(settings.gradient_batches, num_batches(images, batch_size=size))
    found = subject.batches(images, batch_size=size, seed=settings.seed)
    return module_gradients(
        local,
        itertools.islice(found, total),
        seed=settings.seed,
        on_batch=lambda done: on_step("gradients", done, total),
    )


Columns = Mapping[str, tuple[nn.Module, tuple[str, ...]]]  # networks by name, with their blocks


def _columns(
    subject: Subject, blocks: tuple[str, ...], name: str, others: Mapping[str, nn.Module]
) -> Columns:
    """What the blocks are compared with: blocks of the same names, where another network has them, or all."""
    columns = {name: (subject.network, blocks)}
    for other_name, other in others.items():
        alike = None if absent(other, blocks) else blocks
        columns[other_name] = (other, replace(subject, network=other).blocks(alike))
    return columns


def _similarities(
    subject: Subject,
    blocks: tuple[str, ...],
    name: str,
    columns: Columns,
    settings: ComparisonSettings,
    on_step: OnStep,
) -> Iterator[Similarity]:
    images = limit(subject.data, test=settings.images, seed=settings.seed).test
    total = num_batches(images, batch_size=settings.batch_size)
    for column_name, (column, column_blocks) in columns.items():
        what = "CKA" if column_name == name else f"CKA with {column_name}"

        def report(done: int, what: str = what) -> Any:
            return on_step(what, done, total)

        yield compare_blocks(
            subject.network,
            column,
            subject.batches(images, batch_size=settings.batch_size, seed=settings.seed),
            rows=blocks,
            columns=column_blocks,
            row_run=name,
            column_run=column_name,
            on_batch=report,
        )
