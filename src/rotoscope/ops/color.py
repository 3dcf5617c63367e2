"""Colours for networks: ImageNet's normalisation, RGB to CIE Lab by formula (D65) and as OpenCV tabulates it, Lab to RGB, quantisation."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear sRGB to CIE XYZ (ITU-R BT.709 primaries, as in OpenCV's documentation of colour conversions)."""
_WHITE = (0.950456, 1.0, 1.088754)
_DARK = 216 / 24389
"""Below this share of the white's X, Y or Z the cube root is replaced by a line (CIE 15)."""

_NODES = 33
_UNIT = 1 << 14
"""OpenCV holds Lab at 33 x 33 x 33 nodes in steps of 1/16384 of the range, and interpolates in sixteenths of a cell."""
_ROOT_ABOVE = (
    45.2548339756803022511987494,
    192.2798368355061050458134625,
    119.1654824285581628956914143,
    13.43250139086239872172837314,
    0.1636161226585754240958355063,
)
_ROOT_BELOW = (14.80884093219134573786480845, 151.9714051044435648658557668, 168.5254414101568283957668343, 33.9905941350215598754191872, 1.0)
"""The polynomials of OpenCV's cube root, highest power first."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in 0..1 over ImageNet, as all weights that began there expect."""


def imagenet_normalised(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """A picture as networks take it that began with ImageNet weights: in 0..1, less the mean, over the deviation."""
    return imagenet_scaled(image.float() / 255)


def imagenet_scaled(images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """The same of pictures that are in 0..1 already."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def rgb_to_lab(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Lab by the formula: L in 0..100, a and b about -127..127, from sRGB in 0..1. Differentiable."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(_TO_XYZ, dtype=image.dtype, device=image.device) / torch.tensor(_WHITE, dtype=image.dtype, device=image.device)[:, None]
    xyz = torch.einsum("ij,jhw->ihw", to_xyz, linear)
    x, y, z = torch.where(xyz > _DARK, xyz.clamp(min=_DARK) ** (1 / 3), xyz * (841 / 108) + 16 / 116)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def lab_to_rgb(lab: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """RGB (sRGB in 0..1) by the formula, the inverse of `rgb_to_lab`; colours that sRGB cannot show are clipped."""
    y = (lab[0] + 16) / 116
    roots = torch.stack([y + lab[1] / 500, y, y - lab[2] / 200])
    white = torch.tensor(_WHITE, dtype=lab.dtype, device=lab.device)[:, None, None]
    xyz = torch.where(roots > _DARK ** (1 / 3), roots**3, (roots - 16 / 116) * (108 / 841)) * white
    to_rgb = torch.linalg.inv(torch.tensor(_TO_XYZ, dtype=torch.float64)).to(lab)
    linear = torch.einsum("ij,jhw->ihw", to_rgb, xyz).clamp(0, 1)
    return torch.where(linear <= 0.04045 / 12.92, linear * 12.92, 1.055 * linear.clamp(min=1e-4) ** (1 / 2.4) - 0.055)


def rgb_to_lab_tabulated(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Lab as OpenCV 4 and 5 give it for floating-point sRGB: interpolated in a table of 33 nodes a side, up to 0.46 off the formula.

    What was trained on OpenCV's Lab (MAST) wants this one.
    """
    table = _table().to(image.device)
    scaled = (image.flatten(1).to(torch.float32) / 255 * _UNIT).round().to(torch.int32)
    cell, part = scaled >> 9, (scaled >> 5) & 15
    total = torch.zeros((image[0].numel(), 3), dtype=torch.int32, device=image.device)
    for corner in range(8):
        steps = (corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        r, g, b = ((one + step).clamp(max=_NODES - 1) for one, step in zip(cell, steps, strict=True))
        red, green, blue = (one if step else 16 - one for one, step in zip(part, steps, strict=True))
        total += (red * green * blue)[:, None] * table.index_select(0, (r * _NODES + g) * _NODES + b)
    steps_of_lab = ((total + (1 << 11)) >> 12).T.reshape(image.shape)
    scale = torch.tensor([100, 256, 256], dtype=torch.float32, device=image.device)[:, None, None] / _UNIT
    shift = torch.tensor([0, 128, 128], dtype=torch.float32, device=image.device)[:, None, None]
    return steps_of_lab.to(torch.float32) * scale - shift


def quantise(channel: Float[Tensor, "*shape"], levels: int, low: float, high: float) -> Int64[Tensor, "*shape"]:
    """Which of `levels` equal steps from low to high a value falls in; values outside go to the first or the last."""
    return ((channel - low) / (high - low) * levels).floor().long().clamp(0, levels - 1)


@lru_cache(maxsize=1)
def _table() -> Int32[Tensor, "n 3"]:
    """Lab at the nodes, red slowest, in steps of 1/16384 of 0..100 (L) or -128..128 (a, b).

    A few nodes lie so near the middle of two steps that float32 rounding decides, so it is done in OpenCV's order.
    """
    axis = torch.linspace(0, 1, _NODES, dtype=torch.float64)
    linear = torch.where(axis <= 0.04045, axis / 12.92, ((axis + 0.055) / 1.055) ** 2.4).float()
    red, green, blue = (grid.flatten() for grid in torch.meshgrid(linear, linear, linear, indexing="ij"))
    to_xyz = (torch.tensor(_TO_XYZ, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)[:, None]).float()
    xyz = torch.stack([(blue * row[2] + green * row[1]) + red * row[0] for row in to_xyz])
    x, y, z = torch.where(xyz > _DARK, _cube_root(xyz), (xyz.double() * (841 / 108) + 16 / 116).float())
    lightness = torch.where(xyz[1] > _DARK, 116 * y - 16, xyz[1] * (24389 / 27))
    steps = torch.stack([_UNIT * lightness / 100, _UNIT * (500 * (x - y) + 128) / 256, _UNIT * (200 * (y - z) + 128) / 256])
    return steps.round().to(torch.int32).T.contiguous()


def _cube_root(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The cube root of positive numbers as OpenCV has it: a ratio of polynomials on 1/8..1, cut (not rounded) to 24 bits."""
    mantissa, exponent = torch.frexp(x.double())
    thirds = torch.div(exponent + 2, 3, rounding_mode="floor")
    reduced = torch.ldexp(mantissa, exponent - 3 * thirds)
    above, below = (_polynomial(reduced, factors) for factors in (_ROOT_ABOVE, _ROOT_BELOW))
    mantissa, exponent = torch.frexp(above / below)
    return torch.ldexp((mantissa * 2**24).floor(), exponent - 24 + thirds).float()


def _polynomial(x: Float[Tensor, "*shape"], factors: Sequence[float]) -> Float[Tensor, "*shape"]:
    """The sum of factors[i] * x^(n - i), by Horner's scheme."""
    total = torch.full_like(x, factors[0])
    for factor in factors[1:]:
        total = total * x + factor
    return total
