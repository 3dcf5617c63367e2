"""Edge-aware filtering: maps that follow the edges of a picture (He, Sun and Tang, "Guided image filtering", TPAMI 2013, section 3.3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.ops.sizing import resize_smooth

_OBJECTS_AT_ONCE = 8
"""Bounds the scratch memory of `follow_edges`: 10 MB for each object at 480p."""


def box_mean(maps: Float[Tensor, "n h w"], radius: int) -> Float[Tensor, "n h w"]:
    """The mean over the square of 2 * radius + 1 cells around each cell; at the border, over the cells of it that exist."""
    size = 2 * radius + 1
    present = torch.ones(1, *maps.shape[1:], dtype=maps.dtype, device=maps.device)
    sums, counts = (_run_sums(_run_sums(some, size, dim=1), size, dim=2) for some in (maps, present))
    return sums / counts


def _run_sums(maps: Float[Tensor, "n h w"], size: int, *, dim: int) -> Float[Tensor, "n h w"]:
    """Sums over an odd number of cells around each cell, nothing beyond the border. Runs of 1, 2, 4, ... cells are added up: few additions do."""
    length, radius = maps.shape[dim], size // 2
    padding = (0, 0, radius, radius) if dim == 1 else (radius, radius)
    runs, run_length = F.pad(maps, padding), 1
    total, covered = None, 0
    while True:
        if size & run_length:
            part = runs.narrow(dim, covered, length)
            total = part if total is None else total + part
            covered += run_length
        if covered == size:
            assert total is not None, "a window holds a cell"
            return total
        kept = runs.shape[dim] - run_length
        runs = runs.narrow(dim, 0, kept) + runs.narrow(dim, run_length, kept)
        run_length *= 2


def follow_edges(probs: Float[Tensor, "n h w"], guide: Float[Tensor, "3 h2 w2"], *, radius: int, smoothness: float) -> Float[Tensor, "n h2 w2"]:
    """A distribution over the background (channel 0) and objects, at the size of the guide, its outlines on the guide's edges.

    The filter works at half the guide's size; the sum over the channels may exceed 1 where objects meet.

    Args:
        probs: at any size.
        guide: the picture, in any colour space.
        radius: see `guided_coefficients`, in pixels of half the guide's size.
        smoothness: see there.
    """
    hw, half = guide.shape[1:], (guide.shape[1] // 2, guide.shape[2] // 2)
    small, objects = resize_smooth(guide, half), []
    for some in torch.split(probs[1:], _OBJECTS_AT_ONCE):
        slopes, offsets = guided_coefficients(small, resize_smooth(some, half), radius=radius, smoothness=smoothness)
        large = resize_smooth(slopes.flatten(0, 1), hw).view(-1, *guide.shape)
        objects.append(((large * guide).sum(1) + resize_smooth(offsets, hw)).clamp(0, 1))
    claimed = torch.cat(objects)
    return torch.cat([(1 - claimed.sum(0, keepdim=True)).clamp(min=0), claimed])


def guided_coefficients(
    guide: Float[Tensor, "3 h w"], maps: Float[Tensor, "n h w"], *, radius: int, smoothness: float
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n h w"]]:
    """Slopes and offsets of the locally linear function of the guide's colours that comes closest to each map.

    The filtered map is `(slopes * guide).sum(1) + offsets`. Slopes and offsets are smooth, so they may be enlarged and applied to a larger
    guide. A constant map comes back unchanged.

    Args:
        guide: the picture, in any colour space.
        maps: what to filter, each map by itself.
        radius: half the side of the window over which the function is one.
        smoothness: variance of the guide (in its units, squared) below which there is no edge; above 0.
    """
    height, width = guide.shape[1:]
    mean_guide, mean_maps = box_mean(guide, radius), box_mean(maps, radius)
    products = box_mean((guide[None] * maps[:, None]).reshape(-1, height, width), radius).reshape(-1, 3, height, width)
    covariance = products - mean_guide[None] * mean_maps[:, None]
    inverse = _inverse_covariance(guide, mean_guide, radius, smoothness)
    slopes = torch.einsum("ijhw,njhw->nihw", inverse, covariance)
    offsets = mean_maps - (slopes * mean_guide[None]).sum(1)
    return box_mean(slopes.reshape(-1, height, width), radius).reshape(-1, 3, height, width), box_mean(offsets, radius)


def _inverse_covariance(guide: Float[Tensor, "3 h w"], mean: Float[Tensor, "3 h w"], radius: int, smoothness: float) -> Float[Tensor, "3 3 h w"]:
    """The inverse of each window's colour covariance plus the smoothness, by the adjugate."""
    first, second = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 1, 2, 2])
    xx, xy, xz, yy, yz, zz = box_mean(guide[first] * guide[second], radius) - mean[first] * mean[second]
    xx, yy, zz = xx.clamp(min=0) + smoothness, yy.clamp(min=0) + smoothness, zz.clamp(min=0) + smoothness
    adjugate = (
        yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy,
        xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy,
    )  # fmt: skip
    determinant = xx * adjugate[0] + xy * adjugate[1] + xz * adjugate[2]
    distinct = torch.stack(adjugate) / determinant.clamp(min=1e-3 * smoothness**3)  # rounding may not turn the sign
    symmetric: Tensor = distinct[torch.tensor([[0, 1, 2], [1, 3, 4], [2, 4, 5]])]
    return symmetric
