"""Features on disk: what a finished module leaves for all images, computed once, read batch by batch."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infopro.errors import BadInput, BadRun, NotYetSupported

__all__ = ["DiskTooSmall", "FeatureCache", "cache_bytes", "free_bytes", "raw_bytes", "require_space"]

_MANIFEST = "manifest.json"
_FORMAT = 1


class DiskTooSmall(BadRun):
    """A feature cache that would not fit; raised before anything is written."""


@dataclass(frozen=True)
class _Layout:
    """How one tensor lies in memory and in its file: there row after row, an image a row."""

    shape: tuple[int, ...]  # of one row
    dtype: str
    strides: tuple[int, ...]  # that a batch of `batch_size` had, the batch dimension first
    batch_size: int
    shared: bool  # the same for all images: one row in all

    @classmethod
    def of(cls, tensor: Tensor, *, shared: bool) -> _Layout:
        batch = tensor[None] if shared else tensor
        strides = torch.empty_like(batch, device="meta").stride()  # dense, as a clone has them
        dtype = str(tensor.dtype).removeprefix("torch.")
        return cls(tuple(batch.shape[1:]), dtype, strides, len(batch), shared)

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @property
    def row_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.torch_dtype.itemsize

    @property
    def order(self) -> tuple[int, ...]:
        """The dimensions of a row as they lie in memory, outermost first."""
        return tuple(sorted(range(1, len(self.strides)), key=lambda d: -self.strides[d]))

    def fits(self, tensor: Tensor) -> bool:
        batch = tensor[None] if self.shared else tensor
        return tuple(batch.shape[1:]) == self.shape and batch.dtype == self.torch_dtype

    def to_rows(self, tensor: Tensor) -> Tensor:
        batch = tensor[None] if self.shared else tensor
        return batch.permute(0, *self.order)

    def read(self, file: Tensor, rows: Tensor, device: torch.device) -> Tensor:
        """A batch with the strides that the module left; [M] row numbers."""
        rows = torch.zeros(1, dtype=torch.int64) if self.shared else rows
        pinned = device.type == "cuda"  # the copy then runs beside the computation
        batch = torch.empty_strided(
            (len(rows), *self.shape), self._strides(len(rows)), dtype=self.torch_dtype, pin_memory=pinned
        )
        torch.index_select(file, 0, rows, out=self.to_rows(batch[0] if self.shared else batch))
        moved = batch.to(device, non_blocking=pinned)
        return moved[0] if self.shared else moved

    def _strides(self, batch_size: int) -> tuple[int, ...]:
        """Strides beyond the batch's, as of [T, N, C] seen as [N, T, C], grow with the batch."""
        return tuple(s * batch_size // self.batch_size if s > self.strides[0] else s for s in self.strides)


def cache_bytes(
    batch: Mapping[str, Tensor], *, num_images: int, views: int = 1, shared: Collection[str] = ()
) -> int:
    """The size of a cache, known before it is written: exact but for the manifest of a few kilobytes.

    Args:
        batch: an example, by name: tensors [N, ...] of any N.
        views: how many versions of every image are cached.
        shared: names of the tensors that are the same for all images, stored once.

    Example:
        >>> cache_bytes({"features": torch.zeros(2, 8, 4, 4)}, num_images=1000, views=3)
        1536000
    """
    layouts = {name: _Layout.of(tensor, shared=name in shared) for name, tensor in batch.items()}
    return sum(layout.row_bytes * (1 if layout.shared else num_images * views) for layout in layouts.values())


def free_bytes(folder: Path) -> int:
    """What is free on the disk on which a folder lies, or would lie if it existed."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def require_space(folder: Path, needed: int, *, free: int | None = None) -> None:
    """Raises DiskTooSmall where `needed` bytes do not fit beside what is on the disk of `folder`."""
    free = free_bytes(folder) if free is None else free
    if needed > free:
        raise DiskTooSmall(
            f"the cached features do not fit on the disk of {folder}",
            got=f"{free:,} bytes free",
            allowed=f"{needed:,} or more",
            remedy="choose a folder on a larger disk, fewer views, or cuts behind smaller features",
        )


class FeatureCache:
    """A folder with one memory-mapped file per tensor, and a manifest that is there only if all is written.

    A row of a file is one image. `views` versions of the images stand one after another, each of them in the
    order in which it was written. What is read has the values, bit for bit, the dtype and the memory format
    of what was written; a tensor that is not dense (a slice of a larger one) comes back dense.

    Example:
        >>> import tempfile
        >>> features = torch.rand(6, 2, 3, 3).to(memory_format=torch.channels_last)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     batches = [{"features": features[:4]}, {"features": features[4:]}]
        ...     cache = FeatureCache.write(Path(folder) / "cache", batches, configuration="1", num_images=6)
        ...     batch = cache.read(torch.tensor([5, 0]), device=torch.device("cpu"))["features"]
        >>> torch.equal(batch, features[[5, 0]]), batch.is_contiguous(memory_format=torch.channels_last)
        (True, True)
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]):
        self.folder = folder
        self.num_images: int = record["num_images"]
        self.views: int = record["views"]
        self.configuration: str = record["configuration"]
        self._layouts = {
            name: _Layout(**{**values, "shape": tuple(values["shape"]), "strides": tuple(values["strides"])})
            for name, values in record["tensors"].items()
        }
        self._files = {name: self._map(name, layout) for name, layout in self._layouts.items()}

    @classmethod
    def open(cls, folder: Path, *, configuration: str) -> FeatureCache | None:
        """The cache in this folder; None where there is none, or it is incomplete, damaged or another's.

        Sizes are compared, contents are not: they would have to be read.
        """
        try:
            record = json.loads((folder / _MANIFEST).read_text())
            if (record["format"], record["configuration"]) != (_FORMAT, configuration):
                return None
            return cls(folder, record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def write(
        cls,
        folder: Path,
        batches: Iterable[Mapping[str, Tensor]],
        *,
        configuration: str,
        num_images: int,
        views: int = 1,
        shared: Collection[str] = (),
    ) -> FeatureCache:
        """Write what `batches` gives, replacing what the folder holds; complete, or not there at all.

        Args:
            batches: by name, tensors [N, ...]; the views one after another, `num_images` rows each.
            configuration: of what made the features, a hash; `open` asks for it.
            shared: names of tensors without a batch dimension, the same in every batch.

        Raises:
            DiskTooSmall: before the first byte is written.
            BadRun: the folder cannot be written.
            NotYetSupported: batches that differ in more than their length.
            BadInput: too few or too many images.
        """
        batches = iter(batches)
        first = next(batches)
        layouts = {name: _Layout.of(tensor, shared=name in shared) for name, tensor in first.items()}
        record = {
            **{"format": _FORMAT, "configuration": configuration, "num_images": num_images, "views": views},
            "tensors": {name: asdict(layout) for name, layout in layouts.items()},
        }
        shutil.rmtree(folder, ignore_errors=True)
        require_space(folder, cache_bytes(first, num_images=num_images, views=views, shared=shared))
        with ExitStack() as stack:
            with _writing():
                folder.mkdir(parents=True)
                files = {n: stack.enter_context((folder / f"{n}.bin").open("wb")) for n in layouts}
            rows = _append_all(itertools.chain([first], batches), layouts, files)
            if rows != num_images * views:
                raise BadInput(
                    "another number of images than announced", got=rows, allowed=str(num_images * views)
                )
            with _writing():
                for file in files.values():
                    _sync(file)
                _publish(folder, record)
        return cls(folder, record)

    def read(self, rows: Tensor, *, view: int = 0, device: torch.device) -> dict[str, Tensor]:
        """A batch on `device`: rows int64 [M], 0-based in the view; for a GPU by way of pinned memory."""
        rows = rows + view * self.num_images
        return {name: layout.read(self._files[name], rows, device) for name, layout in self._layouts.items()}

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete a cache; the manifest first, so that half a cache is never taken for a whole one."""
        (folder / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _map(self, name: str, layout: _Layout) -> Tensor:
        rows = 1 if layout.shared else self.num_images * self.views
        file = self.folder / f"{name}.bin"
        if file.stat().st_size != rows * layout.row_bytes:
            raise ValueError(f"{file} has another size than its manifest says")
        shape = [layout.shape[d - 1] for d in layout.order]
        # shared: a private mapping larger than the memory is refused by the kernel, though never written to
        size = rows * torch.Size(shape).numel()
        mapped = torch.from_file(str(file), shared=True, size=size, dtype=layout.torch_dtype)
        return mapped.view(rows, *shape)


def raw_bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor of any dtype, row by row: a NumPy array, which files and hashes take."""
    flat = tensor.detach().contiguous().reshape(-1).cpu()
    return flat.view(torch.uint8).numpy()


def _append_all(
    batches: Iterable[Mapping[str, Tensor]], layouts: Mapping[str, _Layout], files: Mapping[str, Any]
) -> int:
    """Written, not mapped: on a full disk a write raises, and a mapping kills the process."""
    once: dict[str, Tensor] = {}
    rows = 0
    for batch in batches:
        for name, layout in layouts.items():
            _require_same_kind(name, layout, batch[name], once)
            if not layout.shared or name not in once:
                content = raw_bytes(layout.to_rows(batch[name]))
                with _writing():
                    files[name].write(content)
            if layout.shared:
                once[name] = batch[name]
        rows += max((len(batch[name]) for name, layout in layouts.items() if not layout.shared), default=0)
    return rows


def _require_same_kind(name: str, layout: _Layout, tensor: Tensor, once: Mapping[str, Tensor]) -> None:
    if not layout.fits(tensor) or (name in once and not torch.equal(once[name], tensor)):
        raise NotYetSupported(
            "features that differ from batch to batch in more than their number cannot be cached",
            got=f"{name}: {tensor.dtype} {list(tensor.shape)}",
            allowed=f"{layout.dtype} {list(layout.shape)}" + (", always the same" if layout.shared else ""),
            remedy="train all modules together",
        )


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "choose another folder for them"
        raise BadRun("the cached features cannot be written", got=error, remedy=remedy) from error


def _publish(folder: Path, record: Mapping[str, Any]) -> None:
    partial = folder / f".{_MANIFEST}.partial"
    with partial.open("w") as file:
        json.dump(record, file, indent=1)
        _sync(file)
    os.replace(partial, folder / _MANIFEST)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
