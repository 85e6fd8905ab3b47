"""Asynchronous training: one module after another, each on the cached features of those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from infopro.data import ImageData
from infopro.engines.crossings import Crossings
from infopro.errors import BadConfiguration, BadInput, NotYetSupported
from infopro.local import LocalModel
from infopro.training._module_batches import Feeding, FromImages
from infopro.training._module_caches import ModuleCaches
from infopro.training._module_training import ModuleEpoch, ModuleTraining
from infopro.training.evaluation import Evaluation
from infopro.training.schedules import Schedule
from infopro.training.spikes import LossSpike
from infopro.types import EpochRecord

__all__ = ["ModuleEpoch", "train_cached"]


def train_cached(
    local: LocalModel,
    data: ImageData,
    *,
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    schedule: Schedule,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    cache_folder: Path,
    precision: torch.dtype = torch.float32,
    clip_gradients: float | None = None,
    views: int = 1,
    keep_cache: bool = False,
    first_module: int = 1,
    first_epoch: int = 1,
    finished_losses: Sequence[Mapping[str, float]] = (),
    best_test_error: float = 100.0,
    num_workers: int = 0,
    on_batch: Callable[[], object] = lambda: None,
    on_step: Callable[[int, int, int], object] | None = None,
    on_spike: Callable[[LossSpike], object] | None = None,
    on_module_epoch: Callable[[ModuleEpoch], object] | None = None,
    on_epoch: Callable[[EpochRecord], object] | None = None,
) -> list[EpochRecord]:
    """Train module 1 to its end, cache its features once, train module 2 on them, and so on to module K.

    "Asynchronous InfoPro" of Wang et al. (ICLR 2021, table 2). Their protocol is not published; this is ours.
    Every module has `epochs` epochs and the whole schedule. Module 1 reads the images as `train` does. A
    finished module is frozen: it runs once over all images, in eval mode, and what crosses the cut is written
    to disk with the labels and, where a later objective reads them, the images. In view v (0-based) the
    images are augmented as in epoch v + 1 of `train`; epoch e of the later modules reads view (e - 1) mod
    `views`, in its own order. Order, augmentation and dropout depend on (seed, epoch, step, module) alone,
    so that module 1 becomes, bit for bit, what `train` makes of it.

    Only one module, its heads and its optimizer's state are on `device`, all others on the CPU; the network
    is recorded there, too. Afterwards all of `local` is on `device`; after an error it is on the CPU.

    Going on: restore network and heads, and pass `first_module`, `first_epoch`, `finished_losses` and
    `best_test_error`; load the optimizer's state in `make_optimizer`. The run then goes on bit for bit. A
    complete cache of the same settings and weights is used. One that is missing is built from the cache of
    the module before, and where that is missing, too, from the images: modules 1, 2, ... each run once again.

    Args:
        make_optimizer: called once per module, with its parameters on `device`. Whoever saves a run keeps
            what it returned.
        cache_folder: for "features-for-module-NN"; two of them while one is built from the other.
        precision: float32, or bfloat16 for autocast; features have the dtype that the module left.
        clip_gradients: largest L2 norm of the gradients of a module with its heads; norms join the losses.
        views: differently augmented copies of the training images that are cached; 0: one, not augmented.
        keep_cache: whether the last module's cache stays.
        first_module: 1-based, as `first_epoch`: the module and its epoch that a resumed run begins with.
        finished_losses: of each module before `first_module`, the losses of its last epoch.
        best_test_error: of the last module's epochs so far.
        on_batch: called before every batch, of training, of a test, and of the features that are recorded.
            What it raises ends the run there.
        on_step: called with (module, epoch, number of steps done in it).
        on_spike: called where a module's loss has leapt; each module has a `SpikeWatch` of its own.
        on_module_epoch: called after every epoch of every module.
        on_epoch: called after every epoch of the last module. `losses` of the finished modules are those of
            their last epochs; the network is tested by the last module on cached features of the test images,
            which gives what `evaluate_data` would.

    Returns:
        The records of the last module's epochs.

    Raises:
        BadConfiguration: views, module, epoch or finished losses that do not fit. BadInput: images of
        another size; see `LocalModel.check`. NotYetSupported: see `infopro.engines.crossings.Crossings`.
        DiskTooSmall: before training, or before a cache is written. Diverged: a loss, or a weight,
        was not finite.

    Example:
        >>> import infopro, tempfile
        >>> from functools import partial
        >>> from infopro.data import ImageTensors
        >>> from infopro.training import make_optimizer, make_schedule
        >>> part = ImageTensors(torch.randint(256, (8, 3, 32, 32)).byte(), torch.arange(8) % 2)
        >>> data = ImageData("noise", part, part, 2, ("a", "b"), (0.0,) * 3, (1.0,) * 3, (3, 32, 32))
        >>> local = infopro.localize(
        ...     infopro.models.cifar_resnet(8, 2), torch.zeros(2, 3, 32, 32), num_modules=2,
        ...     objective=infopro.objectives.InfoPro(), task=infopro.tasks.Classification(num_classes=2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     records = train_cached(
        ...         local, data, epochs=1, batch_size=4, seed=0, device=torch.device("cpu"),
        ...         make_optimizer=lambda p: torch.optim.SGD(p, lr=0.1), cache_folder=Path(folder),
        ...         schedule=make_schedule("constant", base=0.1, epochs=1, warmup_epochs=0))
        >>> [sorted(losses) for losses in records[0].losses]
        [['reconstruction', 'task', 'total'], ['task', 'total']]
    """
    start = _Start(first_module, first_epoch, tuple(finished_losses), best_test_error)
    _check_options(local, data, epochs=epochs, views=views, start=start)
    feeding = Feeding(data, batch_size, seed, views, device, num_workers, on_batch)
    local.to("cpu")
    try:
        crossings = _crossings(local, feeding, precision)
        caches = ModuleCaches(local, crossings, feeding, precision, cache_folder)
        caches.require_space(first_module - 1)
        training = ModuleTraining(
            local,
            crossings,
            feeding,
            schedule,
            epochs,
            precision,
            make_optimizer,
            on_step,
            clip_gradients,
            on_spike,
        )
        records: list[EpochRecord] = []
        for done in _all_epochs(training, caches, start):
            if on_module_epoch is not None:
                on_module_epoch(done.record)
            if done.network is not None:
                records.append(done.network)
                if on_epoch is not None:
                    on_epoch(done.network)
    except BaseException:
        local.to("cpu")
        raise
    if not keep_cache:
        caches.delete(len(local.stages) - 1)
    local.to(device)
    return records


@dataclass(frozen=True)
class _Start:
    """Where a run begins, or goes on."""

    module: int
    epoch: int
    finished_losses: tuple[Mapping[str, float], ...]
    best_test_error: float


@dataclass(frozen=True)
class _Done:
    """A finished epoch of a module; `network` only of the last one."""

    record: ModuleEpoch
    network: EpochRecord | None


def _check_options(local: LocalModel, data: ImageData, *, epochs: int, views: int, start: _Start) -> None:
    modules, finished = len(local.stages), len(start.finished_losses)
    checks = {
        f"views: got {views}; allowed: 0 or more": views >= 0,
        f"epochs: got {epochs}; allowed: 1 or more": epochs >= 1,
        f"first module: got {start.module}; allowed: 1 to {modules}": 1 <= start.module <= modules,
        f"first epoch: got {start.epoch}; allowed: 1 to {epochs}": 1 <= start.epoch <= max(epochs, 1),
        f"losses of finished modules: got {finished}; allowed: {start.module - 1}": finished
        == start.module - 1,
    }
    problems = [problem for problem, holds in checks.items() if not holds]
    if problems:
        raise BadConfiguration("modules cannot be trained one after another so: " + "; also ".join(problems))
    expected = local.stages[0].context.image_shape
    if tuple(data.image_shape) != expected:
        raise BadInput(
            "the heads were built for images of another size",
            got=list(data.image_shape),
            allowed=str(list(expected)),
            remedy="call localize with an example input of this size",
        )


def _crossings(local: LocalModel, feeding: Feeding, precision: torch.dtype) -> Crossings:
    """What crosses the cuts, found out on the CPU with the first batch, which is checked."""
    first = next(FromImages(replace(feeding, device=torch.device("cpu"), num_workers=0)).epoch(1))
    images = first.batch.images
    local.check(images, first.targets)
    crossings = Crossings(local, images, first.targets, precision=precision)
    if crossings.constants and feeding.device.type != "cpu":
        raise NotYetSupported(
            "forward uses tensors that are neither parameters nor buffers: they cannot follow a module",
            got=f"{crossings.constants} tensors",
            remedy="register them as buffers, or train all modules together",
        )
    return crossings


def _all_epochs(training: ModuleTraining, caches: ModuleCaches, start: _Start) -> Iterator[_Done]:
    losses, best = list(start.finished_losses), start.best_test_error
    for index in range(start.module - 1, len(training.local.stages)):
        first = start.epoch if index == start.module - 1 else 1
        for record, train_error, test in training.epochs_of(index, caches.source(index), first=first):
            network = None
            if training.local.stages[index].context.is_last:
                assert test is not None, "the last module predicts what the network predicts"
                best = min(best, test.error)
                network = _network_record(record, (*losses, record.losses), train_error, test, best)
            yield _Done(record, network)
        losses.append(record.losses)


def _network_record(
    record: ModuleEpoch,
    losses: tuple[Mapping[str, float], ...],
    train_error: float,
    test: Evaluation,
    best_test_error: float,
) -> EpochRecord:
    return EpochRecord(
        epoch=record.epoch,
        learning_rate=record.learning_rate,
        losses=losses,
        train_error=train_error,
        test_error=test.error,
        test_loss=test.loss,
        best_test_error=best_test_error,
        seconds=record.seconds,
        images_per_second=record.images_per_second,
        extra=test.scores,
    )
