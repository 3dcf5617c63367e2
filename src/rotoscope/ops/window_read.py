"""A memory read that skips the background: each cell asks the cells near it in the memory frames, and copies what the similar ones hold.

Work is done in square tiles, and only where it can matter: tiles whose whole surroundings hold nothing but background are background.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_TILE = 8
"""Side of a tile in cells: a larger one wastes products outside the windows, a smaller one makes the products inefficient."""
_TILES_AT_ONCE = 8
"""Bounds the scratch memory: 64 queries x 576 positions x 4 bytes for each tile and memory frame, with a radius of 8."""
_BLOCKED = -1e6
"""The logit of positions that may not be read; finite, for a tile's cells beyond the frame may read none."""


@dataclass(frozen=True, slots=True)
class WindowRead:
    """How to read.

    Attributes:
        radius: the window holds (2 * radius + 1)^2 cells of each memory frame.
        temperature: of the softmax over all of these cells together.
        negligible: object probability up to which a cell counts as background when tiles are chosen.
    """

    radius: int = 8
    temperature: float = 0.04
    negligible: float = 0.02

    def __call__(
        self, query: Float[Tensor, "c h w"], keys: Sequence[Float[Tensor, "c h w"]], values: Sequence[Float[Tensor, "n h w"]]
    ) -> Float[Tensor, "n h w"]:
        """The values read for each query cell; they sum to 1 over the channels if those in the memory do.

        Similarity is the dot product. Positions outside the frame are never read.

        Args:
            query: features of the cells that ask.
            keys: features of each memory frame; at least one frame.
            values: a distribution over channels for each cell of each memory frame, channel 0 being the background.
        """
        height, width = query.shape[1:]
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        chosen = self._tiles_with_objects(values, rows, columns).nonzero()
        result = query.new_zeros((rows, columns, len(values[0]), _TILE * _TILE))
        result[:, :, 0] = 1
        queries = _tiles(query / self.temperature, 0, rows, columns)
        surroundings = [
            (_tiles(key, self.radius, rows, columns), _tiles(value, self.radius, rows, columns)) for key, value in zip(keys, values, strict=True)
        ]
        inside = _tiles(torch.ones_like(query[:1]), self.radius, rows, columns)
        window = self._window(query.device)
        for some in torch.split(chosen, _TILES_AT_ONCE):
            at = (some[:, 0], some[:, 1])
            readable = window & (inside[at].flatten(1)[:, None] > 0)
            result[at] = self._read(queries[at], [(key[at], value[at]) for key, value in surroundings], readable)
        grid = result.view(rows, columns, -1, _TILE, _TILE).permute(2, 0, 3, 1, 4).reshape(-1, rows * _TILE, columns * _TILE)
        return grid[:, :height, :width]

    def _read(
        self, query: Float[Tensor, "b t t c"], surroundings: Sequence[tuple[Tensor, Tensor]], readable: Bool[Tensor, "b q p"]
    ) -> Float[Tensor, "b n q"]:
        """What the queries of some tiles read from the surroundings (keys [b,s,s,c] and values [b,s,s,n]) of each frame."""
        asked, keys = query.flatten(1, 2), [key.flatten(1, 2).transpose(1, 2) for key, _ in surroundings]
        blocked = (readable.logical_not() * _BLOCKED).to(query)
        similarity = torch.cat([torch.baddbmm(blocked, asked, key) for key in keys], dim=2)
        held = torch.cat([value.flatten(1, 2) for _, value in surroundings], dim=1)
        affinity = similarity.softmax(dim=2)
        return torch.bmm(affinity, held).transpose(1, 2)

    def _tiles_with_objects(self, values: Sequence[Float[Tensor, "n h w"]], rows: int, columns: int) -> Bool[Tensor, "rows columns"]:
        """Which tiles have a cell of an object in the window of one of their cells."""
        height, width = values[0].shape[1:]
        objects = torch.stack([1 - value[0] for value in values]).amax(0)
        padded = F.pad(objects, (0, columns * _TILE - width, 0, rows * _TILE - height))[None]
        near = F.max_pool2d(F.pad(padded, (self.radius,) * 4), _TILE + 2 * self.radius, stride=_TILE)
        return near[0] > self.negligible

    def _window(self, device: torch.device) -> Bool[Tensor, "q p"]:
        """For each cell of a tile, which cells of the tile's surroundings are in its window."""
        cells = torch.arange(_TILE, device=device)
        near = (torch.arange(_TILE + 2 * self.radius, device=device)[None] - self.radius - cells[:, None]).abs() <= self.radius
        return (near[:, None, :, None] & near[None, :, None, :]).reshape(_TILE * _TILE, -1)


def _tiles(maps: Float[Tensor, "c h w"], margin: int, rows: int, columns: int) -> Float[Tensor, "rows columns s s c"]:
    """Each tile with its margin, as a view of the map padded with zeros; channels last, so that a tile is copied in long runs."""
    height, width = maps.shape[1:]
    padded = F.pad(maps, (margin, margin + columns * _TILE - width, margin, margin + rows * _TILE - height)).permute(1, 2, 0).contiguous()
    side = _TILE + 2 * margin
    return padded.unfold(0, side, _TILE).unfold(1, side, _TILE).permute(0, 1, 3, 4, 2)
