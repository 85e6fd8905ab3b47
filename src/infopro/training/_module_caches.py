"""The caches of a run that trains its modules one after another: built, found again, and deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from infopro.data import labels_of
from infopro.engines.crossings import Crossings
from infopro.engines.feature_cache import FeatureCache, cache_bytes, free_bytes, raw_bytes, require_space
from infopro.local import LocalModel
from infopro.random_streams import seed_stage, step_seed
from infopro.training._module_batches import Feeding, FromCache, FromImages, ModuleBatch, Source
from infopro.training.evaluation import autocast, evaluation_mode

__all__ = ["ModuleCaches"]


@dataclass(frozen=True)
class ModuleCaches:
    """One cache at a time: that of the module in training, all counted from 0 as `local.stages` are."""

    local: LocalModel
    crossings: Crossings
    feeding: Feeding
    precision: torch.dtype
    folder: Path

    def source(self, index: int) -> Source:
        """What this module is trained on; caches of all other modules are deleted.

        A complete cache of the same configuration and weights is used. Else it is built from the cache of the
        module before, and where that is gone too, in turn from the images on.
        """
        found = self._cached(index) if index else FromImages(self.feeding)
        for other in range(len(self.local.stages)):
            if other != index:
                self.delete(other)
        return found

    def delete(self, index: int) -> None:
        """Remove a module's cache, if there is one."""
        for cache in self._folders(index):
            FeatureCache.remove(cache)
        if self._folder(index).is_dir():
            self._folder(index).rmdir()

    def require_space(self, first: int) -> None:
        """Raises DiskTooSmall, before anything is trained, where the caches from `first` on do not fit."""
        sizes = [0, *(self._size(index) for index in range(max(first, 1), len(self.local.stages)))]
        needed = max((before + after for before, after in pairwise(sizes)), default=0)
        own = [file for file in self.folder.glob("features-for-module-*/*/*") if file.is_file()]
        require_space(self.folder, needed, free=free_bytes(self.folder) + sum(f.stat().st_size for f in own))

    def _cached(self, index: int) -> FromCache:
        configuration = self._configuration(index)
        train, test = (FeatureCache.open(f, configuration=configuration) for f in self._folders(index))
        if train is None or test is None:
            train, test = self._build(index, self.source(index - 1), configuration)
        return FromCache(self.feeding, train, test)

    @torch.no_grad()
    def _build(self, index: int, before: Source, configuration: str) -> tuple[FeatureCache, FeatureCache]:
        """Run the module before over all images, in eval mode."""
        stage, data, views = self.local.stages[index - 1], self.feeding.data, self.feeding.num_views
        versions = (found for view in range(views) for found in before.view(view))
        reads_images = self.crossings.reads_images(index)
        plan = (
            (data.train, views, self._outputs(index, versions, with_images=reads_images)),
            (data.test, 1, self._outputs(index, before.test(), with_images=False)),
        )
        caches = []
        stage.to(self.feeding.device)
        with evaluation_mode(stage), autocast(self.feeding.device, self.precision):
            for folder, (images, number, outputs) in zip(self._folders(index), plan, strict=True):
                cache = FeatureCache.write(
                    folder,
                    outputs,
                    configuration=configuration,
                    num_images=len(images),
                    views=number,
                    shared=self.crossings.modules[index].shared,
                )
                caches.append(cache)
        stage.to("cpu")
        return caches[0], caches[1]

    def _outputs(
        self, index: int, batches: Iterator[ModuleBatch], *, with_images: bool
    ) -> Iterator[dict[str, Tensor]]:
        part = self.local.stages[index - 1].part
        for number, found in enumerate(batches):
            # a network may draw in eval mode, too: a cache that is built again is the same
            seed_stage(step_seed(self.feeding.seed, 0, number), index - 1)
            size = len(found.targets)
            flow = part(self.crossings.start(index - 1, found.tensors, size=size, training=False))
            tensors = {**self.crossings.after(index - 1, flow), "targets": found.targets}
            if with_images:
                assert found.images is not None, "what a later module reads, an earlier cache holds"
                tensors["images"] = found.images
            yield tensors

    def _size(self, index: int) -> int:
        crossing, data = self.crossings.modules[index], self.feeding.data
        test = {**crossing.example, "targets": labels_of(data.train)[:1]}
        images = {"images": torch.empty(1, *data.image_shape)} if self.crossings.reads_images(index) else {}
        train, views = {**test, **images}, self.feeding.num_views
        return cache_bytes(
            train, num_images=len(data.train), views=views, shared=crossing.shared
        ) + cache_bytes(test, num_images=len(data.test), shared=crossing.shared)

    def _configuration(self, index: int) -> str:
        """A hash of all that decides the features, the weights of the modules before among it."""
        data, feeding = self.feeding.data, self.feeding
        plain = {
            "module": [index, self.local.split.cuts, self.crossings.reads_images(index), str(self.precision)],
            "data": [data.name, len(data.train), len(data.test), data.image_shape, data.mean, data.std],
            "reading": [feeding.seed, feeding.views, feeding.batch_size, asdict(data.augmentation)],
        }
        digest = hashlib.sha256(json.dumps(plain).encode())
        earlier = [tensor for stage in self.local.stages[:index] for tensor in stage.part.tensors()]
        for tensor in (labels_of(data.train), labels_of(data.test), *earlier):
            digest.update(raw_bytes(tensor))
        return digest.hexdigest()

    def _folder(self, index: int) -> Path:
        return self.folder / f"features-for-module-{index + 1:02d}"

    def _folders(self, index: int) -> tuple[Path, Path]:
        return self._folder(index) / "train", self._folder(index) / "test"
