"""What a page's "test error" is: of classes, or of masks."""

from __future__ import annotations

from collections.abc import Sequence

from infopro.report._types import MethodResult

__all__ = ["error_title", "of_masks"]


def of_masks(methods: Sequence[MethodResult]) -> bool:
    """Whether every pixel has a class: the error is then 100 minus the mean intersection over union."""
    return any("mean_iou" in method.records[-1].extra for method in methods if method.records)


def error_title(methods: Sequence[MethodResult]) -> str:
    """The name of an axis of errors, with its unit."""
    return "test error: 100 − mIoU (%)" if of_masks(methods) else "test error (%)"
