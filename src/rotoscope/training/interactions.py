"""What a person would have clicked, boxed or drawn, simulated from the true masks and the present ones.

Masks and maps are tensors on any device; distances and lines are computed on the CPU, object by object, so that the same generator gives the same
interactions everywhere. Lines follow the kinds of MiVOS's sheet, section 4 (S2M): skeletons, outlines of the shrunk region, random curves.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.ops.scribbles import CLICK_PIXELS

LINE_PIXELS = 5
"""The pen of simulated lines."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
_SQUARE = np.ones((3, 3), dtype=np.uint8)
_CURVE_POINTS = 40

Region = NDArray[np.uint8]
"""`[h, w]`, 0 or 1."""


class Click(NamedTuple):
    """A pixel, on the object or off it."""

    x: int
    y: int
    positive: bool


class Errors(NamedTuple):
    """Where present masks are wrong: pixels of the object that they lack, and pixels that they have too many."""

    missed: Bool[Tensor, "*n h w"]
    excess: Bool[Tensor, "*n h w"]


def errors_of(truth: Bool[Tensor, "*n h w"], current: Bool[Tensor, "*n h w"], *, counts: Bool[Tensor, "*n h w"] | None = None) -> Errors:
    """Where the present masks are wrong, void pixels (where `counts` is False) apart."""
    missed, excess = truth & ~current, current & ~truth
    return Errors(missed, excess) if counts is None else Errors(missed & counts, excess & counts)


def standard_click(errors: Errors) -> Click | None:
    """The click of the standard rule: the pixel deepest inside a region of error, of either sign; None where nothing is wrong.

    Depth is the Euclidean distance to the next pixel that is not wrong in the same way, or lies outside the frame. Ties go to what is missed, then
    to the first pixel, row by row (Xu et al., Deep interactive object selection, CVPR 2016; the rule by which the field counts clicks).
    """
    missed, excess = (_depth(_array(region)) for region in errors)
    positive = bool(missed.max() >= excess.max())
    depth = missed if positive else excess
    if depth.max() <= 0:
        return None
    y, x = divmod(int(depth.argmax()), depth.shape[1])
    return Click(x, y, positive)


def random_click(errors: Errors, random: np.random.Generator) -> Click | None:
    """A pixel drawn from all that are wrong; None where nothing is."""
    missed, excess = (np.flatnonzero(_array(region)) for region in errors)
    count = len(missed) + len(excess)
    if not count:
        return None
    drawn = int(random.integers(count))
    positive = drawn < len(missed)
    y, x = divmod(int(missed[drawn] if positive else excess[drawn - len(missed)]), errors.missed.shape[1])
    return Click(x, y, positive)


def inner_click(region: Bool[Tensor, "h w"], random: np.random.Generator, *, positive: bool) -> Click | None:
    """A pixel well inside a region: one of those at least half as deep as the deepest; None where the region is empty."""
    depth = _depth(_array(region))
    places = np.flatnonzero(depth >= max(0.5 * depth.max(), 1e-3))
    if not len(places):
        return None
    y, x = divmod(int(random.choice(places)), depth.shape[1])
    return Click(x, y, positive)


def box_around(mask: Bool[Tensor, "h w"], random: np.random.Generator, *, jitter: float = 0.1) -> tuple[int, int, int, int] | None:
    """The box (x0, y0, x1, y1) around a mask, each side moved in or out by up to a share of the box's; None where the mask is empty.

    The last row and column are not inside; at least one pixel is, and all are within the frame.
    """
    rows, columns = (np.flatnonzero(_array(mask).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    height, width = mask.shape
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    sides = np.tile(box[2:] - box[:2], 2)
    x0, y0, x1, y1 = (int(value) for value in np.rint(box + jitter * sides * random.uniform(-1, 1, 4)))
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)


def box_map(box: tuple[int, int, int, int] | None, hw: tuple[int, int]) -> Float[Tensor, "h w"]:
    """1 inside a box; nothing without one."""
    drawn = torch.zeros(hw)
    if box is not None:
        x0, y0, x1, y1 = box
        drawn[y0:y1, x0:x1] = 1
    return drawn


class Hints(NamedTuple):
    """What was said of n objects, as maps of 0 and 1 on the CPU: on it, off it, and the box around it."""

    positive: Float[Tensor, "n h w"]
    negative: Float[Tensor, "n h w"]
    box: Float[Tensor, "n h w"]

    @staticmethod
    def none(count: int, hw: tuple[int, int]) -> "Hints":
        """Nothing was said yet."""
        return Hints(*torch.zeros(3, count, *hw).unbind())

    def with_clicks(self, clicks: Sequence[Click | None]) -> "Hints":
        """With a click more for each object, or none, as `ops.scribbles.draw_strokes` draws it; the later one counts where two lie on one pixel."""
        dots = torch.zeros(2, *self.positive.shape)
        for index, click in enumerate(clicks):
            if click is not None:
                dots[0 if click.positive else 1, index, click.y, click.x] = 1
        return self._with(dilated(dots[0], CLICK_PIXELS), dilated(dots[1], CLICK_PIXELS))

    def with_lines(self, on: Float[Tensor, "n h w"], off: Float[Tensor, "n h w"], *, pen: int = LINE_PIXELS) -> "Hints":
        """With lines that are one pixel thick, drawn with a pen."""
        return self._with(dilated(on, pen), dilated(off, pen))

    def with_boxes(self, boxes: Sequence[tuple[int, int, int, int] | None]) -> "Hints":
        """With the boxes in place of those before, for objects that have one now."""
        hw = (self.box.shape[1], self.box.shape[2])
        drawn = [before if box is None else box_map(box, hw) for before, box in zip(self.box, boxes, strict=True)]
        return self._replace(box=torch.stack(drawn))

    def _with(self, on: Tensor, off: Tensor) -> "Hints":
        return self._replace(positive=torch.maximum(self.positive * (1 - off), on), negative=torch.maximum(self.negative * (1 - on), off))


def dilated(maps: Float[Tensor, "n h w"], pen: int) -> Float[Tensor, "n h w"]:
    """Maps of 0 and 1 grown to a square pen of an odd number of pixels."""
    return F.max_pool2d(maps, pen, stride=1, padding=pen // 2)


def scribbles(errors: Errors, random: np.random.Generator) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Lines one pixel thick through what is missed, and through what is too much; empty where nothing is wrong.

    Small specks of error (openings by 3 x 3 leave nothing of them) are passed over unless they are all there is.
    """
    regions = [_array(region) for region in errors]
    opened = [np.asarray(cv2.morphologyEx(region, cv2.MORPH_OPEN, _SQUARE), dtype=np.uint8) for region in regions]
    worth = opened if any(region.any() for region in opened) else regions
    missed, excess = (torch.from_numpy(_line(region, random).astype(np.float32)) for region in worth)
    return missed, excess


def skeleton(region: Region) -> Region:
    """The middle lines of a region, without the twigs that run to its edge: lines along which most people draw.

    (Lantuejoul's formula: what an opening takes away after k erosions; here only where the region is at least 0.4 times as deep as anywhere.)
    """
    remaining, lines, depth = region.copy(), np.zeros_like(region), _depth(region)
    while remaining.any():
        opened = np.asarray(cv2.morphologyEx(remaining, cv2.MORPH_OPEN, _CROSS), dtype=np.uint8)
        lines |= remaining & (1 - opened)
        remaining = np.asarray(cv2.erode(remaining, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0), dtype=np.uint8)
    joined = np.asarray(cv2.morphologyEx(lines, cv2.MORPH_CLOSE, _SQUARE), dtype=np.uint8)
    middle: Region = joined & (depth >= 0.4 * depth.max()).astype(np.uint8)
    return middle


def outline(region: Region, depth_share: float) -> Region:
    """The edge of what is left of a region when all that is less deep than a share of the deepest is taken away."""
    depth = _depth(region)
    shrunk = ((depth >= depth_share * depth.max()) & (region > 0)).astype(np.uint8)
    return _edge(shrunk)


def curve(region: Region, random: np.random.Generator) -> Region:
    """A smooth curve between two pixels of a region, bent towards a third; only what lies inside the region."""
    places = np.flatnonzero(region)
    chosen = random.choice(places, 3)
    start, bend, end = np.stack((chosen % region.shape[1], chosen // region.shape[1]), axis=1).astype(np.float64)
    t = np.linspace(0, 1, _CURVE_POINTS)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    drawn = np.zeros_like(region)
    cv2.polylines(drawn, [np.rint(points).astype(np.int32)], isClosed=False, color=1)
    return drawn & region


def spoiled_masks(masks: Bool[Tensor, "n h w"], overlaps: Iterable[float], random: np.random.Generator) -> Bool[Tensor, "n h w"]:
    """Masks as an earlier interaction might have left them: grown and shrunk at random places until their overlap with the truth is below a bound.

    (The sheet's "random local dilations and erosions until IoU falls below U(0.4, 0.95)".) An empty mask stays empty; so does a mask that
    80 changes do not spoil enough stay as it then is.
    """
    spoiled = [_spoiled(_array(mask), overlap, random) for mask, overlap in zip(masks, overlaps, strict=True)]
    return torch.from_numpy(np.stack(spoiled)).bool().to(masks.device)


def _spoiled(truth: Region, overlap: float, random: np.random.Generator) -> Region:
    mask = truth.copy()
    for _ in range(80):
        union = int((mask | truth).sum())
        if not union or not truth.any() or int((mask & truth).sum()) < overlap * union:
            break
        edge = np.flatnonzero(_edge(mask)) if mask.any() else np.flatnonzero(truth)
        y, x = divmod(int(random.choice(edge)), mask.shape[1])
        reach = max(3, int(random.uniform(0.05, 0.3) * np.sqrt(truth.sum())))
        window = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        brush = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(random.integers(1, 6)) + 1,) * 2), dtype=np.uint8)
        change = cv2.dilate if random.random() < 0.5 else cv2.erode
        mask[window] = np.asarray(change(np.ascontiguousarray(mask[window]), brush, iterations=2), dtype=np.uint8)
    return mask


def _edge(region: Region) -> Region:
    """The outermost pixels of a region."""
    inner = np.asarray(cv2.erode(region, _SQUARE, borderType=cv2.BORDER_CONSTANT, borderValue=0), dtype=np.uint8)
    edge: Region = region - inner
    return edge


def _line(region: Region, random: np.random.Generator) -> Region:
    """A line of a random kind; if there is nothing of it in the region, the deepest pixel."""
    if not region.any():
        return region
    kind = random.integers(3)
    if kind == 0:
        drawn = skeleton(region)
    elif kind == 1:
        drawn = _part(outline(region, random.uniform(0.2, 0.7)), random)
    else:
        drawn = curve(region, random)
    if not drawn.any():
        depth = _depth(region)
        drawn = (depth == depth.max()).astype(np.uint8)
    return drawn


def _part(drawn: Region, random: np.random.Generator) -> Region:
    """What lies on one side of a random line through a random pixel of what was drawn: nobody draws around all of an object."""
    places = np.flatnonzero(drawn)
    y, x = divmod(int(random.choice(places)), drawn.shape[1])
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: drawn.shape[0], : drawn.shape[1]]
    side = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle) >= 0
    part: Region = drawn & side.astype(np.uint8)
    return part


def _depth(region: Region) -> NDArray[np.float32]:
    """The distance of each pixel to the next one outside the region; the frame's surroundings are outside."""
    framed = np.pad(region, 1)
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), dtype=np.float32)[1:-1, 1:-1]


def _array(mask: Bool[Tensor, "h w"]) -> Region:
    return np.ascontiguousarray(mask.cpu().numpy().astype(np.uint8))
