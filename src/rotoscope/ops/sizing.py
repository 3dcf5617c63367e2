"""At which size a network sees a frame, and how frames and labels get there."""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor


def working_size(
    hw: tuple[int, int],
    *,
    stride: int,
    corners: bool,
    short_edge: int | None = None,
    long_edge: int | None = None,
    scale: float = 1.0,
) -> tuple[int, int]:
    """The size nearest to a frame's that a network takes: a multiple of the stride, plus one pixel with `corners`.

    First both limits shrink the frame (never enlarge it), then it is scaled and cut to whole pixels, then each side is rounded to the nearest size
    that fits, halves to the even multiple (AOT's rule). At least one multiple (with `corners`: one pixel more) remains.

    Args:
        hw: height and width of the frame.
        stride: of the network.
        corners: whether corner cells lie on corner pixels: sizes are then multiples plus one.
        short_edge: the most pixels of the shorter side.
        long_edge: the most pixels of the longer side.
        scale: a factor after the limits.
    """
    factor = 1.0
    if short_edge is not None and min(hw) > short_edge:
        factor = short_edge / min(hw)
    if long_edge is not None and max(hw) * factor > long_edge:
        factor = long_edge / max(hw)
    extra = 1 if corners else 0
    height, width = (int(side * factor * scale) for side in hw)
    return _fitted(height, stride, extra), _fitted(width, stride, extra)


def _fitted(length: int, stride: int, extra: int) -> int:
    return max(round((length - extra) / stride), 1) * stride + extra


def resize_cubic(image: Float[Tensor, "*b c h w"], hw: tuple[int, int]) -> Float[Tensor, "*b c h2 w2"]:
    """The image at another size by cubic interpolation (a = -0.75, no smoothing when shrinking: OpenCV's INTER_CUBIC); it may overshoot its range."""
    if image.shape[-2:] == hw:
        return image
    batched = image.reshape(-1, *image.shape[-3:])
    return F.interpolate(batched, size=hw, mode="bicubic", align_corners=False).reshape(*image.shape[:-2], *hw)


def resize_labels(labels: Int64[Tensor, "h w"], hw: tuple[int, int]) -> Int64[Tensor, "h2 w2"]:
    """The labels at another size: each pixel takes that of the pixel its top left corner falls on (to rounding in float32). Labels are below 2^24."""
    if tuple(labels.shape) == hw:
        return labels
    return F.interpolate(labels[None, None].float(), size=hw, mode="nearest")[0, 0].long()


class Border(NamedTuple):
    """Pixels around a frame, on each side."""

    left: int
    right: int
    top: int
    bottom: int

    def add(self, maps: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h2 w2"]:
        """The maps inside a border of zeros."""
        return F.pad(maps, tuple(self)) if any(self) else maps

    def cut(self, maps: Shaped[Tensor, "*b h2 w2"]) -> Shaped[Tensor, "*b h w"]:
        """The maps without the border: a view."""
        height, width = maps.shape[-2:]
        return maps[..., self.top : height - self.bottom, self.left : width - self.right]


def border_between(inner: tuple[int, int], outer: tuple[int, int]) -> Border:
    """The border that centres a frame on a canvas; an odd pixel goes to the right or the bottom."""
    rows, columns = outer[0] - inner[0], outer[1] - inner[1]
    return Border(columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)


def border_to_multiple(hw: tuple[int, int], stride: int, *, always: bool = False) -> Border:
    """The border that makes both sides multiples of the stride: none if they are, unless it is `always` wanted (RGMP, official code)."""
    height, width = (_raised(side, stride, always=always) for side in hw)
    return border_between(hw, (height, width))


def scaled_size(hw: tuple[int, int], scale: float, *, multiple: int, always: bool = False) -> tuple[int, int]:
    """The size scaled, cut to whole pixels, and each side raised to a multiple; the shape of the frame is not kept (RGMP, official code).

    Args:
        hw: height and width.
        scale: the factor; at exactly 1 a size of multiples stays as it is.
        multiple: that both sides shall be.
        always: add a whole multiple to a side that is one already, as RGMP's official code does.
    """
    if scale == 1:
        always = False
    height, width = (_raised(max(int(side * scale), 1), multiple, always=always) for side in hw)
    return height, width


def _raised(length: int, multiple: int, *, always: bool) -> int:
    return (length // multiple + 1) * multiple if always else -(-length // multiple) * multiple


def resize_linear(maps: Float[Tensor, "*b c h w"], hw: tuple[int, int]) -> Float[Tensor, "*b c h2 w2"]:
    """The maps at another size by linear interpolation between pixel centres, no smoothing when shrinking (OpenCV's INTER_LINEAR)."""
    if tuple(maps.shape[-2:]) == hw:
        return maps
    batched = maps.reshape(-1, *maps.shape[-3:])
    return F.interpolate(batched, size=hw, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *hw)


def resize_smooth(maps: Float[Tensor, "n h w"], hw: Sequence[int]) -> Float[Tensor, "n h2 w2"]:
    """Linear interpolation, with averaging where maps get smaller."""
    if tuple(maps.shape[1:]) == tuple(hw):
        return maps
    smaller = hw[0] < maps.shape[1] or hw[1] < maps.shape[2]
    if smaller and maps.shape[1] % hw[0] == 0 and maps.shape[2] % hw[1] == 0:
        return F.avg_pool2d(maps, (maps.shape[1] // hw[0], maps.shape[2] // hw[1]))
    return F.interpolate(maps[None], tuple(hw), mode="bilinear", align_corners=False, antialias=smaller)[0]
