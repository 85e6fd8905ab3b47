"""One analysis of a frozen network: its images, what is estimated of them, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from infopro.analysis._types import BlockInformation, DecodedImages, ProbeResults, References
from infopro.analysis.decoding import BestConstant, Decoders
from infopro.analysis.estimates import Found, Targets, auxiliary_estimates, linear_errors
from infopro.analysis.examples import Examples
from infopro.analysis.information import entropy
from infopro.analysis.network_pass import INPUT, NetworkPass, OnStep
from infopro.analysis.pooling import PooledMap
from infopro.analysis.probe_images import ProbeImages
from infopro.analysis.probe_settings import ProbeSettings
from infopro.analysis.stored_features import feature_room
from infopro.data import labels_of, num_batches
from infopro.tasks import Task

__all__ = ["Probing"]


@dataclass(frozen=True, eq=False)
class Probing:
    """What to probe; `run` does it."""

    images: ProbeImages
    shapes: Mapping[str, tuple[int, ...]]  # of the features of each block, the image's first
    estimates: frozenset[str]
    settings: ProbeSettings
    device: torch.device
    on_step: OnStep

    def run(
        self,
        features_of: Callable[[Tensor], dict[str, Tensor]],
        task: Task,
        *,
        num_workers: int,
        module_of: Mapping[str, int],
    ) -> ProbeResults:
        """Images through the network, then all probes."""
        network = NetworkPass(
            features_of=features_of,
            task=task,
            data=self.images.data,
            batch_size=self.settings.decoder_batch_size,
            device=self.device,
            num_workers=num_workers,
            pools=self._pools(),
            on_step=self.on_step,
        )
        # the image is read once more for it, so only where something is decoded
        constant = network.average(self.images.train) if "input" in self.estimates else None
        decoders = self._decoders(constant)
        with ExitStack() as room:
            train, test = self._read(network, decoders, constant, room)
            errors, notes = self._linear(train, test)
            found = self._auxiliary(train, test)
        return ProbeResults(
            references=self._references(constant),
            blocks=tuple(
                self._block(block, depth, module_of, errors, found, decoders)
                for depth, block in enumerate(self.shapes)
            ),
            images=None if decoders is None else self._drawn(network, decoders),
            settings=self._described(),
            notes=(*self.images.notes, *notes),
        )

    def _pools(self) -> dict[str, PooledMap]:
        if not self.estimates & {"linear", "task", "nuisance"}:
            return {}
        image_shape, limit = self.images.data.image_shape, self.settings.map_size
        return {b: PooledMap(shape, image_shape, limit=limit) for b, shape in self.shapes.items()}

    def _decoders(self, constant: BestConstant | None) -> Decoders | None:
        if constant is None:
            return None
        return Decoders(
            {block: shape for block, shape in self.shapes.items() if block != INPUT},
            constant.image,
            settings=self.settings,
            num_steps=self._decoder_epochs() * self._num_batches(),
            device=self.device,
        )

    def _num_batches(self) -> int:
        return num_batches(self.images.train, batch_size=self.settings.decoder_batch_size)

    def _decoder_epochs(self) -> int:
        return self.settings.num_decoder_epochs(self._num_batches())

    def _read(
        self, network: NetworkPass, decoders: Decoders | None, constant: BestConstant | None, room: ExitStack
    ) -> tuple[Examples, Examples]:
        train, test = self.images.train, self.images.test
        shapes = {block: pool.shape for block, pool in network.pools.items()}
        allocate = room.enter_context(
            feature_room(shapes, num_images=len(train) + len(test), memory=self.settings.memory)
        )
        stored, stored_test = allocate(len(train)), allocate(len(test))
        epochs = 1 if decoders is None else self._decoder_epochs()
        network.train(train, stored, decoders, epochs=epochs, seed=self.settings.seed)
        network.test(test, stored_test, decoders, constant)
        factors = self.images.factors
        labels, test_labels = labels_of(train).cpu(), labels_of(test).cpu()
        targets, test_targets = {"task": labels[:, None]}, {"task": test_labels[:, None]}
        if factors:
            targets["nuisance"] = torch.stack([factor.train for factor in factors], dim=1)
            test_targets["nuisance"] = torch.stack([factor.test for factor in factors], dim=1)
        return Examples(stored, targets), Examples(stored_test, test_targets)

    def _linear(self, train: Examples, test: Examples) -> tuple[dict[str, float], tuple[str, ...]]:
        if "linear" not in self.estimates:
            return {}, ()
        return linear_errors(train, test, settings=self.settings, on_step=self.on_step)

    def _auxiliary(self, train: Examples, test: Examples) -> dict[tuple[str, str], Found]:
        targets = Targets(
            num_classes=self.images.data.num_classes if "task" in self.estimates else 0,
            num_values=self._num_values() if "nuisance" in self.estimates else {},
        )
        if not (targets.num_classes or targets.num_values):
            return {}
        return auxiliary_estimates(
            train,
            test,
            targets,
            held_out=lambda seed: self.images.held_out(self.settings, seed),
            settings=self.settings,
            device=self.device,
            on_step=self.on_step,
        )

    def _num_values(self) -> dict[str, int]:
        return {factor.name: factor.num_values for factor in self.images.factors}

    def _references(self, constant: BestConstant | None) -> References:
        return References(
            pixels=int(np.prod(self.images.data.image_shape)),
            label_entropy=entropy(labels_of(self.images.test)),
            constant_cross_entropy=math.nan if constant is None else constant.cross_entropy,
            nuisance_entropy={factor.name: entropy(factor.test) for factor in self.images.factors},
        )

    def _block(
        self,
        block: str,
        depth: int,
        module_of: Mapping[str, int],
        errors: Mapping[str, float],
        found: Mapping[tuple[str, str], Found],
        decoders: Decoders | None,
    ) -> BlockInformation:
        task = found.get((block, "task"), Found())
        return BlockInformation(
            block=block,
            depth=depth,
            module=module_of.get(block, 1) if depth else 0,
            feature_shape=self.shapes[block],
            linear_error=(errors[block],) if block in errors else (),
            input_cross_entropy=decoders.cross_entropies(block) if decoders is not None else (),
            task_information=task.information,
            task_error=task.error,
            nuisance_information=found.get((block, "nuisance"), Found()).information,
        )

    def _drawn(self, network: NetworkPass, decoders: Decoders) -> DecodedImages:
        shown = self.images.test.take(torch.arange(min(self.settings.shown_images, len(self.images.test))))
        originals, decoded = network.draw(decoders, shown, seed=self.settings.seed)
        names = self.images.data.class_names
        return DecodedImages(
            originals=originals,
            captions=tuple(names[label] for label in labels_of(shown).tolist()),
            blocks=tuple(decoded),
            decoded=np.stack(list(decoded.values())),
        )

    def _described(self) -> dict[str, object]:
        described = asdict(self.settings)
        used = {"train": len(self.images.train), "test": len(self.images.test)}
        return {**described, "images_used": used, "nuisance_values": self._num_values()}
