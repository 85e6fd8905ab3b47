"""Tensors as plain buffers and back: what a message between two processes consists of.

A buffer is the stretch of memory that one storage's tensors span. Tensors that share memory share it again on
the other side, with their strides and alignment, so that every kernel there does what it would do here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Layout", "TensorLayout", "fitted", "layout_of", "pack", "storages_of", "unpack"]

_ALIGNMENT = 64  # bytes, of torch's CPU allocator


@dataclass(frozen=True)
class TensorLayout:
    """Where one tensor lies."""

    buffer: int
    offset: int  # in elements of its dtype, from the start of the buffer
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Layout:
    """All tensors of a message, and how many bytes each buffer has."""

    tensors: tuple[TensorLayout, ...]
    num_bytes: tuple[int, ...]


def layout_of(tensors: Sequence[Tensor]) -> tuple[Layout, list[Tensor]]:
    """Describe tensors, and give the buffers that hold them: views of their memory, nothing is copied.

    Example:
        >>> rows = torch.arange(6.0).view(2, 3)
        >>> layout, buffers = layout_of([rows, rows[1]])
        >>> layout.num_bytes, [t.offset for t in layout.tensors]
        ((24,), [0, 3])
        >>> again = unpack(layout, [buffer.clone() for buffer in buffers])
        >>> again[1][0] = 9.0
        >>> again[0][1, 0].item()
        9.0
    """
    spans: dict[int, list[int]] = {}
    for tensor in tensors:
        begin, end = _span(tensor)
        known = spans.setdefault(_key(tensor), [begin, end])
        spans[_key(tensor)] = [min(known[0], begin), max(known[1], end)]
    for known in spans.values():
        known[0] -= known[0] % _ALIGNMENT
    order = {key: index for index, key in enumerate(spans)}
    entries = tuple(_entry(t, order[_key(t)], spans[_key(t)][0]) for t in tensors)
    by_key = {_key(t): t for t in tensors}
    buffers = [_bytes(by_key[key], begin, end) for key, (begin, end) in spans.items()]
    return Layout(entries, tuple(len(buffer) for buffer in buffers)), buffers


def pack(tensors: Sequence[Tensor], *, copied: Iterable[int] = ()) -> tuple[Layout, list[Tensor]]:
    """Layout and buffers to send; storages in `copied` are about to be overwritten, and copied.

    Tensors that leave more than half of their span empty are made dense, dimensions in the same order: a
    slice of a large map need not drag the map along, unless the map travels anyway.
    """
    sparse = [_is_sparse(t) for t in tensors]
    travelling = {_key(t) for t, alone in zip(tensors, sparse, strict=True) if not alone}
    dense = [
        t.detach().clone() if alone and _key(t) not in travelling else t.detach()
        for t, alone in zip(tensors, sparse, strict=True)
    ]
    layout, buffers = layout_of(dense)
    overwritten = set(copied)
    return layout, [
        buffer.clone() if buffer.untyped_storage().data_ptr() in overwritten else buffer for buffer in buffers
    ]


def unpack(layout: Layout, buffers: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that lie in buffers of bytes."""
    return [
        torch.as_strided(_elements(buffers[t.buffer], t.dtype), t.shape, t.stride, t.offset)
        for t in layout.tensors
    ]


def fitted(layout: Layout, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Buffers of a given layout that hold the values of tensors that lie otherwise."""
    device = tensors[0].device
    buffers = [torch.empty(n, dtype=torch.uint8, device=device) for n in layout.num_bytes]
    for place, tensor in zip(unpack(layout, buffers), tensors, strict=True):
        place.copy_(tensor.detach())
    return buffers


def storages_of(tensors: Iterable[Tensor]) -> set[int]:
    """The memory that tensors lie in, by address."""
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte and end of what a tensor touches in its storage."""
    size = tensor.element_size()
    begin = int(tensor.storage_offset()) * size
    if not tensor.numel():
        return begin, begin
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (reach + 1) * size


def _is_sparse(tensor: Tensor) -> bool:
    begin, end = _span(tensor)
    return end - begin > 2 * tensor.numel() * tensor.element_size()


def _entry(tensor: Tensor, buffer: int, begin: int) -> TensorLayout:
    offset = int(tensor.storage_offset()) - begin // tensor.element_size()
    return TensorLayout(buffer, offset, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _elements(buffer: Tensor, dtype: torch.dtype) -> Tensor:
    """As many as fit: a tensor of smaller elements may reach further than this one."""
    return buffer[: len(buffer) - len(buffer) % dtype.itemsize].view(dtype)


def _bytes(tensor: Tensor, begin: int, end: int) -> Tensor:
    """A view of a stretch of memory."""
    whole = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return whole.set_(tensor.untyped_storage())[begin:end]
