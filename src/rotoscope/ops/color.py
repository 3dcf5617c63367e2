"""RGB to CIE Lab under D65, by the formula and as OpenCV tabulates it, and quantisation."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear sRGB to CIE XYZ (ITU-R BT.709 primaries, as in OpenCV's documentation of colour conversions)."""
_WHITE = (0.950456, 1.0, 1.088754)
_DARK = 216 / 24389
"""Below this share of the white's X, Y or Z the cube root is replaced by a line (CIE 15)."""

_NODES = 33
_UNIT = 1 << 14
"""OpenCV holds Lab at 33 x 33 x 33 nodes in steps of 1/16384 of the range, and interpolates in sixteenths of a cell."""


def rgb_to_lab(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Lab by the formula: L in 0..100, a and b about -127..127, from sRGB in 0..1. Differentiable."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(_TO_XYZ, dtype=image.dtype, device=image.device) / torch.tensor(_WHITE, dtype=image.dtype, device=image.device)[:, None]
    xyz = torch.einsum("ij,jhw->ihw", to_xyz, linear)
    x, y, z = torch.where(xyz > _DARK, xyz.clamp(min=_DARK) ** (1 / 3), xyz * (841 / 108) + 16 / 116)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def rgb_to_lab_tabulated(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Lab as OpenCV 4 and 5 give it for floating-point sRGB: interpolated in a table of 33 nodes a side, up to 0.46 off the formula.

    What was trained on OpenCV's Lab (MAST) wants this one. Nodes where the exact value lies between two steps may be rounded the other way: one
    in a thousand pixels differs by 1/64.
    """
    table = _table().to(image.device)
    scaled = (image.to(torch.float32) / 255 * _UNIT).round().to(torch.int64)
    cell, part = scaled >> 9, (scaled >> 5) & 15
    total = torch.zeros((3, *image.shape[1:]), dtype=torch.int64, device=image.device)
    for corner in range(8):
        steps = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=image.device)[:, None, None]
        weight = torch.where(steps == 1, part, 16 - part).prod(dim=0)
        r, g, b = (cell + steps).clamp(max=_NODES - 1)
        total += weight * table[:, (r * _NODES + g) * _NODES + b]
    steps_of_lab = (total + (1 << 11)) >> 12
    scale = torch.tensor([100, 256, 256], dtype=torch.float32, device=image.device)[:, None, None] / _UNIT
    shift = torch.tensor([0, 128, 128], dtype=torch.float32, device=image.device)[:, None, None]
    return steps_of_lab.to(torch.float32) * scale - shift


def quantise(channel: Float[Tensor, "*shape"], levels: int, low: float, high: float) -> Int64[Tensor, "*shape"]:
    """Which of `levels` equal steps from low to high a value falls in; values outside go to the first or the last."""
    return ((channel - low) / (high - low) * levels).floor().long().clamp(0, levels - 1)


@lru_cache(maxsize=1)
def _table() -> Int64[Tensor, "3 n"]:
    """Lab at the nodes, red slowest, in steps of 1/16384 of 0..100 (L) or -128..128 (a, b)."""
    axis = torch.linspace(0, 1, _NODES, dtype=torch.float64)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, 1, -1)
    lightness, a, b = rgb_to_lab(nodes)[:, 0]
    return (torch.stack([lightness / 100, (a + 128) / 256, (b + 128) / 256]) * _UNIT).round().to(torch.int64)
