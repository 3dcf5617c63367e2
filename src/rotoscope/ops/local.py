"""Attention and correlation inside windows, in plain torch, without ever building the h*w by h*w matrix.

Queries are taken in square tiles. The keys that the windows of a tile cover are one square too, so that a tile is one dense matrix product, of
which the entries outside each query's own window are masked. Several memory frames share one softmax by running maxima and sums (`SoftmaxPart`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

TILE = 8
"""Side of a tile in cells. With a radius of 12 the 64 queries of a tile share 32 x 32 keys, 61 % of which each query needs."""
_TILES_AT_ONCE = 32
"""Bounds the scratch memory: 8 MB of similarities per step at radius 12."""


@dataclass(frozen=True, slots=True)
class SoftmaxPart:
    """What some of a softmax's entries contribute for each of q queries: their largest logit, their sum, and their weighted values.

    `total` and `weighted` are relative to exp(peak), so that parts of any size can be joined without overflow.
    """

    peak: Float[Tensor, "q"]
    total: Float[Tensor, "q"]
    weighted: Float[Tensor, "v q"]


def join_parts(parts: Iterable[SoftmaxPart]) -> Float[Tensor, "v q"]:
    """The softmax-weighted values over the entries of all the parts together."""
    first, *rest = parts
    peak, total, weighted = first.peak, first.total, first.weighted
    for part in rest:
        higher = torch.maximum(peak, part.peak)
        before, now = (peak - higher).exp(), (part.peak - higher).exp()
        peak, total, weighted = higher, total * before + part.total * now, weighted * before + part.weighted * now
    return weighted / total


def windowed_correlation(query: Float[Tensor, "c h w"], key: Float[Tensor, "c h w"], *, radius: int, dilation: int = 1) -> Float[Tensor, "p p h w"]:
    """Dot products of each query cell with the key cells of its window, `p = 2 * radius + 1` a side, `dilation` cells apart.

    The first axis is the vertical displacement, from -radius * dilation up. Products with cells outside the frame are 0.
    """
    side, reach = 2 * radius + 1, radius * dilation
    height, width = query.shape[1:]
    padded = F.pad(key, (reach,) * 4)
    rows = [
        torch.stack([(query * padded[:, y : y + height, x : x + width]).sum(dim=0) for x in range(0, side * dilation, dilation)])
        for y in range(0, side * dilation, dilation)
    ]
    return torch.stack(rows)


def windowed_attention(
    query: Float[Tensor, "c h w"],
    keys: Sequence[Float[Tensor, "c h w"]],
    values: Sequence[Float[Tensor, "v h w"]],
    *,
    radius: int,
    temperature: float = 1.0,
    masked_outside: bool = True,
) -> Float[Tensor, "v h w"]:
    """The values of the memory frames around each query cell, weighted by one softmax over the windows in all of them. Differentiable.

    Args:
        query: features of the cells that ask.
        keys: features of each memory frame; at least one frame.
        values: what the cells of each memory frame hold.
        radius: half the side of the window.
        temperature: the dot products are divided by it.
        masked_outside: leave cells outside the frame out of the softmax; otherwise they take part with logit 0 and value 0, and the weights of
            cells inside sum to less than 1 near the edges.
    """
    asked = query / temperature
    parts = (window_part(asked, key, value, radius=radius, masked_outside=masked_outside) for key, value in zip(keys, values, strict=True))
    return join_parts(parts).view(-1, *query.shape[1:])


def window_part(
    query: Float[Tensor, "c h w"], key: Float[Tensor, "c h w"], value: Float[Tensor, "v h2 w2"], *, radius: int, masked_outside: bool = False
) -> SoftmaxPart:
    """What one memory frame contributes to the softmax over the windows around each query cell.

    Logits are dot products. Key cells outside the frame have logit 0 and take part (MAST, sheet 2.2); `masked_outside` leaves them out.

    Args:
        query: features of the cells that ask.
        key: features of the memory frame.
        value: what its cells hold. Of the same size as the key, it is 0 outside the frame; with a margin of `radius` it brings its own outside.
        radius: half the side of the window.
        masked_outside: leave cells outside the frame out of the softmax.
    """
    height, width = query.shape[1:]
    rows, columns = -(-height // TILE), -(-width // TILE)
    bottom, right = rows * TILE - height, columns * TILE - width
    queries = F.pad(query, (0, right, 0, bottom)).unfold(1, TILE, TILE).unfold(2, TILE, TILE)
    margin = radius - (value.shape[1] - height) // 2
    keys = _surroundings(F.pad(key, (radius, radius + right, radius, radius + bottom)), radius)
    values = _surroundings(F.pad(value, (margin, margin + right, margin, margin + bottom)), radius)
    blocked = ~_in_window(radius, query.device)
    inside = F.pad(torch.ones_like(query[:1]), (radius, radius + right, radius, radius + bottom)) if masked_outside else None
    outside = None if inside is None else _surroundings(inside, radius) == 0
    parts = []
    for chosen in torch.split(torch.arange(rows * columns, device=query.device), _TILES_AT_ONCE):
        at = (slice(None), chosen // columns, chosen % columns)
        logits = torch.bmm(_flat(queries[at]).transpose(1, 2), _flat(keys[at]))
        hidden = blocked if outside is None else blocked | _flat(outside[at])
        parts.append(_tile_part(logits.masked_fill(hidden, -torch.inf), _flat(values[at])))
    peak, total, weighted = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    maps = [_untile(piece, rows, columns)[:, :height, :width].flatten(1) for piece in (peak[:, None], total[:, None], weighted)]
    return SoftmaxPart(maps[0][0], maps[1][0], maps[2])


def dilated_window_offsets(query: Float[Tensor, "c h w"], key: Float[Tensor, "c h w"], *, radius: int, dilation: int) -> Float[Tensor, "2 h w"]:
    """Where each query cell finds itself in a dilated window: the softmax-weighted mean displacement (x, y), in cells.

    This is the first of MAST's two localisation steps. Cells outside the frame have logit 0 and take part. The grid is split into dilation^2
    interleaved ones, on each of which the window is an ordinary one.
    """
    height, width = query.shape[1:]
    offsets = query.new_empty((2, height, width))
    for top in range(dilation):
        for left in range(dilation):
            part = (slice(None), slice(top, None, dilation), slice(left, None, dilation))
            if offsets[part].numel():
                offsets[part] = dilation * _mean_displacement(query[part], key[part], radius)
    return offsets


def shifted_window_part(
    query: Float[Tensor, "c h w"],
    key: Float[Tensor, "c h w"],
    value: Float[Tensor, "v h w"],
    offsets: Float[Tensor, "2 h w"],
    *,
    radius: int,
    value_offsets: Float[Tensor, "2 h w"] | None = None,
) -> SoftmaxPart:
    """What one memory frame contributes when each query's window is moved by an offset (x, y) of its own, in cells.

    Keys and values between cells are interpolated linearly, 0 outside the frame. Interpolation and dot product can change places: the products at the
    whole cells of a window one larger are made first, then blended with the fractions, which are the same all over a window.

    Args:
        query: features of the cells that ask.
        key: features of the memory frame.
        value: what its cells hold.
        offsets: displacement of the centre of each query's window.
        radius: half the side of the window.
        value_offsets: displacements for the values, if they are read elsewhere than the keys.
    """
    value_offsets = offsets if value_offsets is None else value_offsets
    keys, values = _Shifted(key, offsets, radius), _Shifted(value, value_offsets, radius)
    side = 2 * radius + 1
    peak, total = query.new_empty(query.shape[1:]), query.new_empty(query.shape[1:])
    weighted = query.new_empty((value.shape[0], *query.shape[1:]))
    for tile in _tiles_of(*query.shape[1:]):
        asked = query[:, *tile].flatten(1)
        crop, places = keys.crop(tile)
        logits = _blend((asked.T @ crop).gather(1, places).view(-1, side + 1, side + 1), keys.fractions(tile))
        highest = logits.detach().amax(dim=(1, 2))
        weights = (logits - highest[:, None, None]).exp()
        held, places = values.crop(tile)
        spread = _spread(weights, values.fractions(tile)).flatten(1)
        read = (held[:, places] * spread).sum(dim=2)
        shape = peak[tile].shape
        peak[tile], total[tile] = highest.view(shape), weights.sum(dim=(1, 2)).view(shape)
        weighted[:, *tile] = read.view(-1, *shape)
    return SoftmaxPart(peak.flatten(), total.flatten(), weighted.flatten(1))


class _Shifted:
    """A map, padded with zeros so far that every moved window lies inside, and the window's place in it for each query."""

    def __init__(self, maps: Float[Tensor, "c h w"], offsets: Float[Tensor, "2 h w"], radius: int) -> None:
        height, width = maps.shape[1:]
        cells = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")).to(offsets)
        position = cells + offsets
        whole = position.floor()
        self._fractions = position - whole
        margin = 2 * radius + 2
        farthest = torch.tensor([width + radius, height + radius], device=maps.device)[:, None, None]
        nearest = -radius - 2  # at either end the whole window lies outside the frame, where all is 0: farther makes no difference
        self._left, self._top = whole.long().clamp(min=nearest).minimum(farthest) - radius + margin
        self._maps = F.pad(maps, (margin,) * 4)
        self._side = 2 * radius + 2

    def fractions(self, tile: tuple[slice, slice]) -> Float[Tensor, "2 q"]:
        """The parts of a cell by which the windows of a tile lie right of and below whole cells."""
        return self._fractions[:, *tile].flatten(1)

    def crop(self, tile: tuple[slice, slice]) -> tuple[Float[Tensor, "c n"], Int64[Tensor, "q s"]]:
        """The smallest part of the map that holds the windows of a tile, flat, and the places of each window in it."""
        left, top = self._left[tile].flatten(), self._top[tile].flatten()
        (x0, x1), (y0, y1) = ((int(corner.min()), int(corner.max()) + self._side) for corner in (left, top))
        steps = torch.arange(self._side, device=left.device)
        rows, columns = (top - y0)[:, None] + steps, (left - x0)[:, None] + steps
        places = rows[:, :, None] * (x1 - x0) + columns[:, None, :]
        return self._maps[:, y0:y1, x0:x1].flatten(1), places.flatten(1)


def _tiles_of(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width))


def _blend(products: Float[Tensor, "q s s"], fractions: Float[Tensor, "2 q"]) -> Float[Tensor, "q p p"]:
    """Values between cells from those at the four cells around; p = s - 1."""
    x, y = fractions[:, :, None, None]
    across = products[:, :, :-1] * (1 - x) + products[:, :, 1:] * x
    blended: Tensor = across[:, :-1] * (1 - y) + across[:, 1:] * y
    return blended


def _spread(weights: Float[Tensor, "q p p"], fractions: Float[Tensor, "2 q"]) -> Float[Tensor, "q s s"]:
    """The transpose of `_blend`: the share of each of the four cells around in a value between them."""
    x, y = fractions[:, :, None, None]
    down = F.pad(weights * (1 - y), (0, 0, 0, 1)) + F.pad(weights * y, (0, 0, 1, 0))
    return F.pad(down * (1 - x), (0, 1)) + F.pad(down * x, (1, 0))


def _mean_displacement(query: Float[Tensor, "c h w"], key: Float[Tensor, "c h w"], radius: int) -> Float[Tensor, "2 h w"]:
    height, width = query.shape[1:]
    places = torch.stack(torch.meshgrid(torch.arange(-radius, width + radius), torch.arange(-radius, height + radius), indexing="xy"))
    places = places.to(query)
    found = join_parts([window_part(query, key, places, radius=radius)]).view(2, height, width)
    return found - places[:, radius : radius + height, radius : radius + width]


def _surroundings(padded: Float[Tensor, "c h w"], radius: int) -> Float[Tensor, "c rows columns s s"]:
    """Each tile with its margin, as a view of a map padded by the radius."""
    side = TILE + 2 * radius
    return padded.unfold(1, side, TILE).unfold(2, side, TILE)


def _in_window(radius: int, device: torch.device) -> Bool[Tensor, "q s"]:
    """For each cell of a tile, which cells of the tile's surroundings are in its window."""
    cells = torch.arange(TILE, device=device)
    near = (torch.arange(TILE + 2 * radius, device=device)[None] - radius - cells[:, None]).abs() <= radius
    return (near[:, None, :, None] & near[None, :, None, :]).reshape(TILE * TILE, -1)


def _flat(tiles: Tensor) -> Tensor:
    """[c, b, s, s] as [b, c, s * s]."""
    return tiles.flatten(2).transpose(0, 1)


def _tile_part(
    logits: Float[Tensor, "b q s"], values: Float[Tensor, "b v s"]
) -> tuple[Float[Tensor, "b q"], Float[Tensor, "b q"], Float[Tensor, "b v q"]]:
    lowest = torch.finfo(logits.dtype).min  # for cells that only pad a tile: nothing may be in their window
    peak = logits.detach().amax(dim=2).clamp(min=lowest)  # any reference point gives the same softmax, so no gradient flows through it
    weights = (logits - peak[:, :, None]).exp()
    return peak, weights.sum(dim=2), torch.bmm(values, weights.transpose(1, 2))


def _untile(tiles: Float[Tensor, "b v q"], rows: int, columns: int) -> Float[Tensor, "v h w"]:
    grid = tiles.view(rows, columns, -1, TILE, TILE).permute(2, 0, 3, 1, 4)
    return grid.reshape(-1, rows * TILE, columns * TILE)
