"""A convolution of an enlarged map, computed on the small one wherever that takes fewer multiplications.

Legend: N batch, C in and O out channels, h w the small map, H W the enlarged one, 3 taps along an axis.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["ResizedConv2d"]

Size = tuple[int, int]


class ResizedConv2d(nn.Conv2d):
    """A 3x3 convolution, zero padded, of a map that is resized first: bilinear, corners aligned.

    Both are linear and resizing treats every channel alike, so their order may be changed: channels are mixed
    on the small map, once per tap, and one matrix per axis then resizes and sums the taps. From 64 channels
    at 8x8 to 12 at 32x32 that takes a seventh of the multiplications. Where it would take more, the map is
    resized first, and again in the backward pass. Either way autograd keeps the small map in place of the
    enlarged one. Values and gradients are equal up to rounding; parameters and their draw are those of
    `nn.Conv2d`.

    Args:
        size: of the map that comes in.
        to: of the map that is convolved.

    Shapes:
        [N, C, h, w] -> [N, O, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int, *, size: Size, to: Size, bias: bool = True):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.size, self.to_size = size, to
        # a rule, not a clock: the same network computes the same numbers on every machine
        self.on_small_map = self._small_operations() < self._direct_operations()
        self.row_taps: Tensor
        self.column_taps: Tensor
        self._make_taps(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        if self.on_small_map:
            return self._on_small_map(features)
        if not torch.is_grad_enabled():
            return self._resized_first(features)
        # the second run ends where the convolution begins: it makes the enlarged map, and nothing else
        result: Tensor = checkpoint(
            self._resized_first, features, use_reentrant=False, preserve_rng_state=False
        )
        return result

    def _resized_first(self, features: Tensor) -> Tensor:
        resized = F.interpolate(features, size=self.to_size, mode="bilinear", align_corners=True)
        return super().forward(resized)

    def extra_repr(self) -> str:
        options: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{options}, size={self.size}, to={self.to_size}, on_small_map={self.on_small_map}"

    def _on_small_map(self, features_NChw: Tensor) -> Tensor:
        num_images, channels, height, width = features_NChw.shape
        outputs, (to_height, to_width) = self.out_channels, self.to_size
        # columns of the matrix: horizontal tap, vertical tap, output
        weight = self.weight.permute(1, 3, 2, 0).reshape(channels, -1)
        mixed = features_NChw.permute(0, 2, 3, 1).reshape(-1, channels) @ weight
        mixed = mixed.view(num_images * height, 3 * width, 3 * outputs)
        wide = (self.column_taps @ mixed).view(num_images, height, to_width, 3, outputs)
        wide = wide.transpose(2, 3).reshape(num_images, 3 * height, to_width * outputs)
        full_NHWO = (self.row_taps @ wide).view(num_images, to_height, to_width, outputs)
        if self.bias is not None:
            full_NHWO = full_NHWO + self.bias.to(full_NHWO.dtype)
        return full_NHWO.permute(0, 3, 1, 2)

    def _small_operations(self) -> int:
        """Multiplications per image on the small map."""
        (height, width), (to_height, to_width) = self.size, self.to_size
        mix = height * width * self.in_channels * 9
        return self.out_channels * (mix + height * to_width * 9 * width + to_height * to_width * 3 * height)

    def _direct_operations(self) -> int:
        return self.out_channels * self.to_size[0] * self.to_size[1] * 9 * self.in_channels

    def _make_taps(self, like: Tensor) -> None:
        if not self.on_small_map:
            return
        for name, axis in (("row_taps", 0), ("column_taps", 1)):
            taps = _taps(self.size[axis], self.to_size[axis], like)
            self.register_buffer(name, taps, persistent=False)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> ResizedConv2d:
        """Move or cast; the interpolation's weights are made anew, since a cast to more digits adds none."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self._make_taps(self.weight)
        return self


def _taps(size: int, to: int, like: Tensor) -> Tensor:
    """[to, size * 3]: what each of the 3 taps, at each place of the resized axis, reads of the small one."""
    places = torch.arange(to, dtype=torch.float64, device=like.device)
    if to > 1:
        places = places * ((size - 1) / (to - 1))
    corners = torch.arange(size, dtype=torch.float64, device=like.device)
    bilinear = (1 - (places[:, None] - corners).abs()).clamp(min=0)  # [to, size]
    padded = F.pad(bilinear, (0, 0, 1, 1))  # zeros where a tap lies outside
    return torch.stack([padded[t : t + to] for t in range(3)], dim=2).reshape(to, -1).to(like.dtype)
