"""Convolutions that look where they are told to: modulated deformable convolution, in plain torch.

Zhu, Hu, Lin and Dai, "Deformable ConvNets v2", CVPR 2019, section 3.2: each tap of the window is read at an offset of its own, between the cells
(bilinearly, zero outside the map), and weighted. Offsets are ordered as in the common operators: (dy, dx) of each tap, taps row by row.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rotoscope.errors import InputError

_CHUNK = 1 << 20
"""Numbers that are read at a time, 4 MB: each is read once and used once, so more only takes memory, and fewer are slower to start."""


class Window(NamedTuple):
    """How the window of a convolution is laid over a map, rows first."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def output_hw(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the output, for those of the input."""
        rows, columns = (
            (length + 2 * padding - dilation * (size - 1) - 1) // stride + 1
            for length, size, stride, padding, dilation in zip(hw, self.size, self.stride, self.padding, self.dilation, strict=True)
        )
        return rows, columns


def deform_conv2d(  # noqa: PLR0913 - like torch.nn.functional.conv2d, with what a deformable one reads more
    x: Float[Tensor, "n c h w"],
    offsets: Float[Tensor, "n yx_of_taps h2 w2"],
    modulation: Float[Tensor, "n taps h2 w2"],
    weight: Float[Tensor, "d c kh kw"],
    bias: Float[Tensor, "d"] | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Float[Tensor, "n d h2 w2"]:
    """A convolution whose k = kh * kw taps are moved by offsets and weighted by the modulation, at each place of the output by other ones.

    All inputs may have gradients. What is read is never held as a whole: it is made in parts, and made again on the way back.
    The result has its channels last in memory.

    Args:
        x: the map.
        offsets: (dy, dx) of each tap, in cells of the map.
        modulation: factor of each tap; in 0..1 in the paper.
        weight: the window.
        bias: added to each channel.
        stride: step of the window, rows and columns.
        padding: zeros around the map.
        dilation: distance of the taps where the offsets are zero.

    Raises:
        InputError: offsets or modulation are not those of this window and map.
    """
    window = Window((weight.shape[2], weight.shape[3]), stride, padding, dilation)
    height, width = _checked_hw(window, x, offsets, modulation)
    flat = weight.permute(2, 3, 1, 0).flatten(0, 2)
    step = max(1, _CHUNK // flat.shape[0])
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, offsets, modulation, weight))
    results = []
    for image, moved, factors in zip(x, offsets, modulation, strict=True):
        cells = image.permute(1, 2, 0).flatten(0, 1).contiguous()
        places = _places(moved, window)
        heights = factors.flatten(1).t()
        for first in range(0, height * width, step):
            part = slice(first, first + step)
            arguments = (cells, places[part], heights[part], flat, (image.shape[1], image.shape[2]))
            results.append(checkpoint(_filtered, *arguments, use_reentrant=False, preserve_rng_state=False) if learns else _filtered(*arguments))
    joined = torch.cat(results).view(x.shape[0], height, width, -1)
    return (joined if bias is None else joined + bias).permute(0, 3, 1, 2)


def _checked_hw(window: Window, x: Tensor, offsets: Tensor, modulation: Tensor) -> tuple[int, int]:
    """Rows and columns of the output."""
    hw, taps = window.output_hw((x.shape[2], x.shape[3])), window.size[0] * window.size[1]
    if offsets.shape[1:] != (2 * taps, *hw) or modulation.shape[1:] != (taps, *hw):
        got = f"offsets {list(offsets.shape[1:])} and modulation {list(modulation.shape[1:])}"
        message = f"{got} do not fit a window of {taps} taps with {hw[0]}x{hw[1]} outputs; give {[2 * taps, *hw]} and {[taps, *hw]}"
        raise InputError(message)
    return hw


def _places(offsets: Float[Tensor, "yx_of_taps h w"], window: Window) -> Float[Tensor, "h*w k 2"]:
    """Where each tap of each output cell looks: (y, x) in cells of the map."""
    _, height, width = offsets.shape
    taps, corners = (
        torch.stack(torch.meshgrid(*(torch.arange(length, device=offsets.device) for length in lengths), indexing="ij"), dim=-1)
        for lengths in (window.size, (height, width))
    )
    scale = [offsets.new_tensor(values) for values in (window.stride, window.padding, window.dilation)]
    start = (corners * scale[0] - scale[1]).view(-1, 1, 2) + (taps * scale[2]).view(1, -1, 2)
    return start + offsets.view(-1, 2, height * width).permute(2, 0, 1)


def _filtered(
    cells: Float[Tensor, "s c"],
    places: Float[Tensor, "q k 2"],
    factors: Float[Tensor, "q k"],
    flat: Float[Tensor, "k*c d"],
    hw: tuple[int, int],
) -> Float[Tensor, "q d"]:
    """Read the cells at the places, and multiply with the window."""
    indices, shares = _corners(places, hw)
    weighted = (shares * factors[..., None]).flatten(0, 1)
    read = F.embedding_bag(indices.flatten(0, 1), cells, per_sample_weights=weighted, mode="sum")
    return read.view(places.shape[0], -1) @ flat


def _corners(places: Float[Tensor, "q k 2"], hw: tuple[int, int]) -> tuple[Int64[Tensor, "q k 4"], Float[Tensor, "q k 4"]]:
    """The four cells around each place, counted row by row, and their shares; cells outside the map have none."""
    floor = places.detach().floor()
    beyond = places - floor
    near, far = 1 - beyond, beyond
    y, x = floor.long().unbind(-1)
    rows, columns = torch.stack((y, y, y + 1, y + 1), dim=-1), torch.stack((x, x + 1, x, x + 1), dim=-1)
    by_row = torch.stack((near[..., 0], near[..., 0], far[..., 0], far[..., 0]), dim=-1)
    by_column = torch.stack((near[..., 1], far[..., 1], near[..., 1], far[..., 1]), dim=-1)
    inside = (rows >= 0) & (rows < hw[0]) & (columns >= 0) & (columns < hw[1])
    indices = rows.clamp(0, hw[0] - 1) * hw[1] + columns.clamp(0, hw[1] - 1)
    return indices, by_row * by_column * inside
