"""Which part of a frame the network looks at, and how what was said looks there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rotoscope.ops.scribbles import draw_strokes
from rotoscope.types import Box, Clicks, Interaction, Painted, Scribble

_LEAST_VIEW = 64.0
"""Pixels: a closer look shows nothing more."""


class View(NamedTuple):
    """A part of a frame, in whole pixels: columns x0 to x1 and rows y0 to y1, the last not included."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    def overlap(self, other: "View") -> float:
        """Shared area over the area of both, in 0..1."""
        width, height = min(self.x1, other.x1) - max(self.x0, other.x0), min(self.y1, other.y1) - max(self.y0, other.y0)
        shared = max(0, width) * max(0, height)
        return shared / (self.hw[0] * self.hw[1] + other.hw[0] * other.hw[1] - shared)

    @staticmethod
    def around(extent: tuple[float, float, float, float], hw: tuple[int, int], margin: float) -> "View":
        """The view around a box (x0, y0, x1, y1) with a margin, not too small, inside the frame.

        A box that is long and thin gets a view that is at most twice as long as wide, where the frame allows it.
        """
        x0, y0, x1, y1 = extent
        width, height = margin * (x1 - x0), margin * (y1 - y0)
        width, height = max(width, height / 2, _LEAST_VIEW), max(height, width / 2, _LEAST_VIEW)
        left, right = _inside((x0 + x1) / 2, width, hw[1])
        top, bottom = _inside((y0 + y1) / 2, height, hw[0])
        return View(left, top, right, bottom)


def _inside(centre: float, length: float, limit: int) -> tuple[int, int]:
    start, stop = max(0, int(centre - length / 2)), min(limit, int(-(-(centre + length / 2) // 1)))
    return min(start, limit - 1), max(stop, min(start, limit - 1) + 1)


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of an object: what was done to it since its last mask, what was done to others, and that mask."""

    own: Sequence[Interaction]
    others: Sequence[Interaction]
    previous: Bool[Tensor, "h w"]


def points_of(one: Clicks | Scribble | Box) -> Float[Tensor, "n 2"]:
    """The points (x, y) of an interaction; of a box two corners."""
    if isinstance(one, Clicks):
        return one.points.cpu()
    return one.path.cpu() if isinstance(one, Scribble) else one.xyxy.cpu().view(2, 2)


def _marks(own: Iterable[Interaction]) -> list[Tensor]:
    """The places that are said to be on the object, and the corners of its boxes."""
    marks = []
    for one in own:
        if isinstance(one, Clicks):
            marks.append(one.points.cpu()[one.positive.cpu()])
        elif isinstance(one, Box) or (isinstance(one, Scribble) and one.positive):
            marks.append(points_of(one))
    return [mark for mark in marks if len(mark)]


def extent_of(own: Iterable[Interaction], mask: Bool[Tensor, "h w"]) -> tuple[float, float, float, float] | None:
    """The box around a mask and what is said to be on the object; None where there is neither."""
    marks = _marks(own)
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if len(rows):
        marks.append(torch.tensor(((columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)), dtype=torch.float32))
    if not marks:
        return None
    points = torch.cat(marks)
    (x0, y0), (x1, y1) = points.min(dim=0).values.tolist(), points.max(dim=0).values.tolist()
    return x0, y0, x1, y1


def closer_view(found: Bool[Tensor, "h w"], said: Said, hw: tuple[int, int], margin: float) -> View:
    """The view that a result asks for: around it or, if nothing was found, half of the frame around what was marked."""
    clicks = [one for one in said.own if not isinstance(one, Box)] if bool(found.any()) else said.own
    extent = extent_of(clicks, found)
    if extent is None:
        return View(0, 0, hw[1], hw[0])
    if not bool(found.any()):
        x0, y0, x1, y1 = extent
        grown = (max(0.0, hw[1] / 2 - (x1 - x0)) / 2 / margin, max(0.0, hw[0] / 2 - (y1 - y0)) / 2 / margin)
        extent = (x0 - grown[0], y0 - grown[1], x1 + grown[0], y1 + grown[1])
    return View.around(extent, hw, margin)


def cut_out(maps: UInt8[Tensor, "*c h w"] | Bool[Tensor, "*c h w"], view: View) -> Tensor:
    """The part of some maps that a view shows."""
    return maps[..., view.y0 : view.y1, view.x0 : view.x1]


def resized(maps: Float[Tensor, "n c h w"], hw: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
    """Maps at another size, smoothed where they shrink."""
    return F.interpolate(maps, size=hw, mode="bilinear", align_corners=False, antialias=True)


def drawn(said: Said, view: View, hw: tuple[int, int], pen: float) -> tuple[Float[Tensor, "2 h w"], Float[Tensor, "1 h w"]]:
    """What was said, as it looks in a view: what is on the object and what is off it; and its last box."""
    scale = torch.tensor((hw[1] / view.hw[1], hw[0] / view.hw[0]))
    origin = torch.tensor((view.x0, view.y0), dtype=torch.float32)
    moved = [place for one in (*said.others, *said.own) for place in _moved(one, origin, scale, hw, pen)]
    box = torch.zeros(1, *hw)
    for one in said.own:
        if isinstance(one, Box):
            corners = ((points_of(one) - origin) * scale).round().long().clamp(min=0)
            box.zero_()[:, corners[0, 1] : corners[1, 1], corners[0, 0] : corners[1, 0]] = 1
    if not moved:
        return torch.zeros(2, *hw), box
    ids = tuple(dict.fromkeys((said.own[0].object_id, *(one.object_id for one in moved))))
    return draw_strokes(moved, ids, hw)[0], box


def _moved(one: Interaction, origin: Tensor, scale: Tensor, hw: tuple[int, int], pen: float) -> list[Interaction]:
    """Clicks and lines in pixels of a view; what lies outside of it is left out."""
    if isinstance(one, Box | Painted):
        return []
    points = (points_of(one).floor() + 0.5 - origin) * scale
    inside = ((points >= 0) & (points < torch.tensor((hw[1], hw[0])))).all(dim=1)
    if not bool(inside.any()):
        return []
    if isinstance(one, Clicks):
        return [Clicks(one.frame_index, one.object_id, points[inside], one.positive.cpu()[inside])]
    return [Scribble(one.frame_index, one.object_id, points, one.positive, pen)]
