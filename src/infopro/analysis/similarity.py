"""How alike two blocks' features are: linear CKA, streamed over minibatches.

Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited" (ICML 2019);
Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same Things?" (ICLR 2021, arXiv 2010.15327),
equations 2 and 3. Legend: n images of a batch, p and q numbers per image, B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from infopro.analysis._types import Similarity
from infopro.analysis.pooling import PooledMap
from infopro.analysis.reconstructions import frozen_features
from infopro.errors import BadInput

__all__ = ["LARGEST_FEATURES", "compare_blocks", "linear_cka"]

LARGEST_FEATURES = 16384  # numbers per image that are compared; 16 x 32 x 32, so CIFAR networks whole
_FEWEST = 4  # images: the unbiased estimator divides by n (n - 3)


def linear_cka(left: Tensor, right: Tensor) -> float:
    """Linear CKA of two sets of features of the same images, with unbiased HSIC (Nguyen et al., equation 3).

    It is 1 for features that differ by rotation, shift and scale only, about 0 (by chance also below) for
    independent ones, and nan where one of them is the same for every image.

    Shapes:
        left [n, p], right [n, q]; each image's numbers are flattened.

    Raises:
        BadInput: fewer than 4 images, or different numbers of them.

    Example:
        >>> import torch
        >>> features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
        >>> round(linear_cka(features, 3 * features + 1), 6)
        1.0
    """
    if len(left) != len(right) or len(left) < _FEWEST:
        raise BadInput(
            "CKA compares features of the same images",
            got=f"{len(left)} and {len(right)} images",
            allowed=f"equal numbers, {_FEWEST} or more",
        )
    sums = _Sums()
    sums.add(_centred_kernels([left]), _centred_kernels([right]))
    return sums.values()[0][0]


def compare_blocks(
    row_model: nn.Module,
    column_model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_run: str = "",
    column_run: str = "",
    on_batch: Callable[[int], object] | None = None,
) -> Similarity:
    """Minibatch linear CKA of every block of one network with every block of another, in one pass.

    Both networks see the same images, in eval mode; pass one network twice to compare its own blocks. Only
    an n x n matrix per block is held, so features of any size are streamed. A feature map, or a grid of
    tokens, of more than `LARGEST_FEATURES` numbers is average-pooled first, to as many as that. Batches count
    by their images; of equal size they give Nguyen et al.'s equation 2. One of fewer than 4 images is left
    out.

    Args:
        batches: images, normalised, [n, C, H, W], and labels, which are not read.
        rows: blocks of `row_model`; columns: of `column_model`.
        row_run: what the networks are called in the result, as `column_run`.
        on_batch: called with the number of batches done.

    Raises:
        UnknownName: a block that a network does not have.
        BadInput: no batch of 4 images or more.
    """
    sums = _Sums()
    same = row_model is column_model and list(rows) == list(columns)
    with ExitStack() as stack:
        row_features = stack.enter_context(frozen_features(row_model, rows))
        column_features = row_features
        if not same:
            column_features = stack.enter_context(frozen_features(column_model, columns))
        for number, (images, _) in enumerate(batches, start=1):
            if len(images) >= _FEWEST:
                left = _kernels_of(row_features(images), rows, images)
                right = left if same else _kernels_of(column_features(images), columns, images)
                sums.add(left, right)
            if on_batch is not None:
                on_batch(number)
    return Similarity(
        row_run=row_run,
        column_run=column_run,
        rows=tuple(rows),
        columns=tuple(columns),
        values=tuple(map(tuple, sums.values())),
    )


class _Sums:
    """What of HSIC is added up over batches: between rows and columns, and of each with itself."""

    def __init__(self) -> None:
        self._between: Tensor | None = None  # [B rows, B columns]
        self._rows: Tensor | float = 0.0
        self._columns: Tensor | float = 0.0

    def add(self, rows_Bnn: Tensor, columns_Bnn: Tensor) -> None:
        n = rows_Bnn.shape[1]
        left, right = rows_Bnn.flatten(1), columns_Bnn.flatten(1)
        weight = 1 / (n - 3)  # n images of an estimate that is 1 / (n (n - 3)) of the product
        between = weight * (left @ right.T)
        self._between = between if self._between is None else self._between + between
        self._rows = self._rows + weight * left.square().sum(1)
        self._columns = self._columns + weight * right.square().sum(1)

    def values(self) -> list[list[float]]:
        """CKA, [rows][columns]; nan where features are constant."""
        if self._between is None:
            raise BadInput("no batch is large enough for CKA", allowed=f"{_FEWEST} images or more in a batch")
        assert isinstance(self._rows, Tensor) and isinstance(self._columns, Tensor)
        scale = self._rows.sqrt()[:, None] * self._columns.sqrt()
        found: list[list[float]] = (self._between / scale).tolist()
        return found


def _kernels_of(features: Mapping[str, Tensor], blocks: Sequence[str], images: Tensor) -> Tensor:
    return _centred_kernels([_compact(features[name], images.shape[1:]) for name in blocks])


def _centred_kernels(features: Sequence[Tensor]) -> Tensor:
    """U-centred Gram matrices [B, n, n], float64: their inner products are n (n - 3) times unbiased HSIC.

    Székely and Rizzo, "Partial Distance Correlation" (2014), definition 2; the same number as Nguyen et al.'s
    equation 3, as one product of two matrices for all pairs of blocks.
    """
    return torch.stack([_centred_kernel(each) for each in features])


def _centred_kernel(features: Tensor) -> Tensor:
    flat = features.flatten(1).double()
    flat = (
        flat - flat[:1]
    )  # a shift changes nothing but rounding, and leaves exact zeros of constant features
    gram, n = (flat @ flat.T).fill_diagonal_(0), len(flat)
    sums = gram.sum(1)
    gram -= (sums[:, None] + sums) / (n - 2)
    gram += sums.sum() / ((n - 1) * (n - 2))
    return gram.fill_diagonal_(0)


def _compact(features: Tensor, image_shape: Sequence[int]) -> Tensor:
    """Features of at most `LARGEST_FEATURES` numbers, where pooling a map or a grid of tokens can do that."""
    if features[0].numel() <= LARGEST_FEATURES or features.dim() not in (3, 4):
        return features
    pool = PooledMap(features.shape[1:], image_shape, limit=LARGEST_FEATURES)
    pooled: Tensor = pool(features.float())
    return pooled
