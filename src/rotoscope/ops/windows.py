"""Attention in a square window around each cell, without a dense map over all pairs of cells.

The grid is cut into tiles. All queries of a tile are multiplied with all keys that any of them can see, as one matrix product; the windows are then
strided views into that product, so nothing is gathered or scattered. On grids so small that the windows of a tile reach nearly everywhere (training
crops), a dense map is less work than the overlap of the tiles.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_TILE_HW = (8, 9)
"""Queries per tile: larger ones waste products outside the windows, smaller ones copy the keys more often; measured on 31 x 54 cells."""


class OffsetTerms(NamedTuple):
    """What attention in a window learns for each offset; the window is square, and its cells are counted row by row.

    Attributes:
        key: its product with the query (not scaled) is added to the score.
        bias: added to the score.
        value: added to the value; None for nothing.
    """

    key: Float[Tensor, "heads window c"]
    bias: Float[Tensor, "heads window"]
    value: Float[Tensor, "heads window d"] | None = None


def windowed_attention(
    query: Float[Tensor, "n heads h w c"],
    key: Float[Tensor, "n heads h w c"],
    value: Float[Tensor, "n heads h w d"],
    offset_terms: OffsetTerms,
    *,
    return_weights: bool = False,
) -> tuple[Float[Tensor, "n heads h w d"], Float[Tensor, "n heads h w window"] | None]:
    """What each cell reads from the cells around it, and with which weights.

    The score of cell p for the cell at offset o is `query[p] / sqrt(c) . key[p + o]` and the offset's terms; cells outside the grid have weight 0.
    The result is the sum over o of weight times `value[p + o]`, and the offset's term (AOT, supplementary material, and the official code).

    Returns:
        What was read, and the weights if asked for (they sum to 1), otherwise None.
    """
    height, width, channels = query.shape[2:]
    side = round(offset_terms.key.shape[1] ** 0.5)
    radius = side // 2
    tile_hw = _balanced(height, _TILE_HW[0]), _balanced(width, _TILE_HW[1])
    if not return_weights and offset_terms.value is None and height * width <= (tile_hw[0] + side - 1) * (tile_hw[1] + side - 1):
        return _attend_densely(query, key, value, offset_terms), None
    query_tiles = _tiles(query, tile_hw, 0)
    scores = query_tiles @ _tiles(key * channels**-0.5, tile_hw, radius).transpose(-1, -2)
    relative = query_tiles @ offset_terms.key.transpose(-1, -2)[:, None] + offset_terms.bias[:, None, None]
    inside = _tiles(_inside(height, width, radius, query.device).flatten(2)[None, None].to(query.dtype), tile_hw, 0) > 0
    in_window = _windows(scores, tile_hw, side).flatten(-2).reshape(relative.shape) + relative
    weights = in_window.masked_fill_(~inside, torch.finfo(query.dtype).min).softmax(dim=-1)
    spread = torch.zeros_like(scores)
    windows = _windows(spread, tile_hw, side)
    windows.copy_(weights.reshape(windows.shape))
    read = spread @ _tiles(value, tile_hw, radius)
    if offset_terms.value is not None:
        read = read + weights @ offset_terms.value[:, None]
    return _untile(read, tile_hw, (height, width)), _untile(weights, tile_hw, (height, width)) if return_weights else None


def _attend_densely(
    query: Float[Tensor, "n heads h w c"], key: Float[Tensor, "n heads h w c"], value: Float[Tensor, "n heads h w d"], terms: OffsetTerms
) -> Float[Tensor, "n heads h w d"]:
    """The same over all pairs of cells, those out of each other's window having no weight."""
    height, width = query.shape[2:4]
    side = round(terms.key.shape[1] ** 0.5)
    offsets, is_near = _offsets((height, width), side // 2, query.device)
    queries, keys, values = (maps.flatten(2, 3) for maps in (query, key, value))
    relative = queries @ terms.key.transpose(-1, -2) + terms.bias[:, None]
    scores = queries @ (keys * keys.shape[-1] ** -0.5).transpose(-1, -2) + relative.gather(-1, offsets.expand(*relative.shape[:2], -1, -1))
    weights = scores.masked_fill(~is_near, torch.finfo(scores.dtype).min).softmax(dim=-1)
    read: Tensor = weights @ values
    return read.reshape(*read.shape[:2], height, width, -1)


def _offsets(hw: tuple[int, int], radius: int, device: torch.device) -> tuple[Int64[Tensor, "l l"], Bool[Tensor, "l l"]]:
    """For each pair of cells, which place of the first one's window the second is at, and whether it is in it."""
    cells = torch.cartesian_prod(*(torch.arange(length, device=device) for length in hw))
    apart = cells[None] - cells[:, None]
    is_near = (apart.abs() <= radius).all(dim=-1)
    row, column = (apart.clamp(-radius, radius) + radius).unbind(dim=-1)
    return row * (2 * radius + 1) + column, is_near


def _balanced(length: int, most: int) -> int:
    """The tile length of at most `most` that leaves the least of the last tile empty."""
    num_tiles = -(-length // most)
    return -(-length // num_tiles)


def _tiles(maps: Float[Tensor, "n heads h w c"], tile_hw: tuple[int, int], margin: int) -> Float[Tensor, "n heads tiles cells c"]:
    """The map cut into tiles that overlap by twice the margin, zero outside; copied once."""
    (height, width), (tile_height, tile_width) = maps.shape[2:4], tile_hw
    below, right = -height % tile_height + margin, -width % tile_width + margin
    if margin or below or right:
        maps = F.pad(maps, (0, 0, margin, right, margin, below))
    cut = maps.unfold(2, tile_height + 2 * margin, tile_height).unfold(3, tile_width + 2 * margin, tile_width)
    return cut.movedim(4, -1).flatten(4, 5).flatten(2, 3)


def _windows(
    dense: Float[Tensor, "n heads tiles queries keys"], tile_hw: tuple[int, int], side: int
) -> Float[Tensor, "n heads tiles th tw side side"]:
    """A view of the products of each query with the keys in its own window."""
    n, heads, tiles, _, num_keys = dense.shape
    tile_height, tile_width = tile_hw
    key_width = tile_width + side - 1
    outer = dense.stride()[:3]
    strides = (*outer, tile_width * num_keys + key_width, num_keys + 1, key_width, 1)
    return dense.as_strided((n, heads, tiles, tile_height, tile_width, side, side), strides)


def _inside(height: int, width: int, radius: int, device: torch.device) -> Bool[Tensor, "h w side side"]:
    """Whether the cell at an offset from each cell is on the grid."""
    offsets = torch.arange(-radius, radius + 1, device=device)
    rows = torch.arange(height, device=device)[:, None] + offsets
    columns = torch.arange(width, device=device)[:, None] + offsets
    rows_inside = (rows >= 0) & (rows < height)
    columns_inside = (columns >= 0) & (columns < width)
    return rows_inside[:, None, :, None] & columns_inside[None, :, None, :]


def _untile(tiles: Float[Tensor, "n heads tiles cells c"], tile_hw: tuple[int, int], hw: tuple[int, int]) -> Float[Tensor, "n heads h w c"]:
    """The map that non-overlapping tiles make, cut to its size."""
    n, heads, _, _, channels = tiles.shape
    rows, columns = -(-hw[0] // tile_hw[0]), -(-hw[1] // tile_hw[1])
    grid = tiles.reshape(n, heads, rows, columns, *tile_hw, channels).transpose(3, 4)
    return grid.reshape(n, heads, rows * tile_hw[0], columns * tile_hw[1], channels)[:, :, : hw[0], : hw[1]]
