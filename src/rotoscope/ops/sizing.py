"""At which size a network sees a frame, and how frames and labels get there."""

import torch.nn.functional as F
from jaxtyping import Float, Int64
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


def padding_to_multiple(hw: tuple[int, int], multiple: int, *, always: bool = False) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows (top, bottom) and columns (left, right) that make both sides multiples; an odd one more goes to the bottom and the right.

    Args:
        hw: height and width of the frame.
        multiple: that both sides shall be.
        always: add a whole multiple to a side that is one already, as RGMP's official code does.
    """
    height, width = (_raised(side, multiple, always=always) - side for side in hw)
    return (height // 2, height - height // 2), (width // 2, width - width // 2)


def scaled_size(hw: tuple[int, int], scale: float, *, multiple: int, always: bool = False) -> tuple[int, int]:
    """The size scaled, cut to whole pixels, and each side raised to a multiple; the shape of the frame is not kept (RGMP, official code).

    Args:
        hw: height and width.
        scale: the factor; at exactly 1 a size of multiples stays as it is.
        multiple: that both sides shall be.
        always: see `padding_to_multiple`.
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
