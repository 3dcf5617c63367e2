"""What a person's strokes do to the masks of one frame: checked, made into masks by a model, or painted and erased by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rotoscope.errors import InputError, MaskError
from rotoscope.tracking.propagate import merge_given
from rotoscope.types import Box, Clicks, Frame, Interaction, MaskMaker, Masks, Painted, Scribble

Stroke = Clicks | Scribble | Box
"""What needs a model to become a mask."""

Region = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels: columns x0 up to but without x1."""

Points = Sequence[Sequence[int | float]] | Tensor
"""Places (x, y) in pixels of the original frame."""

RIM_PIXELS = 3
"""How much of a region's edge is left as it was (MiVOS's rule): models err at the edges of what they see."""

_SMALLEST_REGION = 16  # pixels; the stride of the encoders


@dataclass(frozen=True, slots=True)
class Strokes:
    """All that was drawn on a frame since its base, with what belongs to it.

    Attributes:
        interactions: oldest first.
        region: what part of the frame they are about; None for all of it.
    """

    interactions: tuple[Stroke, ...]
    region: Region | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects spoken of, each once."""
        return tuple(dict.fromkeys(stroke.object_id for stroke in self.interactions))


def places_of(points: Points) -> Float[Tensor, "n 2"]:
    """The points as a tensor.

    Raises:
        InputError: these are not pairs of numbers.
    """
    try:
        places = torch.as_tensor(points, dtype=torch.float32)
        return places.reshape(-1, 2) if places.ndim == 1 else places.reshape(len(places), 2)
    except (ValueError, TypeError, RuntimeError) as error:
        message = f"points are pairs of numbers (x, y); got {points!r}"
        raise InputError(message) from error


def signs_of(labels: Sequence[int] | Tensor, count: int) -> Bool[Tensor, "n"]:
    """Whether each of so many clicks is on the object, from labels that are 1 for that and 0 otherwise.

    Raises:
        InputError: their number differs from that of the clicks, or one is neither 0 nor 1.
    """
    values = torch.as_tensor(labels).reshape(-1)
    if len(values) != count or not bool(((values == 0) | (values == 1)).all()):
        message = f"labels {values.tolist()} for {count} points; give one for each: 1 on the object, 0 off it"
        raise InputError(message)
    return values.bool()


def check_strokes(strokes: Strokes, base: Masks, hw: tuple[int, int]) -> None:
    """Refuse what no model could make sense of.

    Raises:
        InputError: what `check_places` says, or only negative strokes for an object that has no pixels.
    """
    check_places(strokes, hw)
    labels = base.labels()
    for object_id in strokes.object_ids:
        own = [stroke for stroke in strokes.interactions if stroke.object_id == object_id]
        if not any(_is_positive(stroke) for stroke in own) and not bool((labels == object_id).any()):
            message = (
                f"only negative strokes for object {object_id} on frame {own[0].frame_index}, where it has no pixels; "
                "say first where it is, with a positive click, a line or a box"
            )
            raise InputError(message)


def check_places(strokes: Strokes, hw: tuple[int, int]) -> None:
    """Refuse strokes that make no sense whatever the masks are.

    Raises:
        InputError: a point outside the frame or the region, a box or line wholly outside, or clicks that contradict each other.
    """
    limits = strokes.region or (0, 0, hw[1], hw[0])
    for stroke in strokes.interactions:
        _check_place(stroke, limits)
    _check_contradictions([stroke for stroke in strokes.interactions if isinstance(stroke, Clicks)])


def make_masks(maker: MaskMaker, frame: Frame, strokes: Strokes, base: Masks) -> Masks:
    """The masks that a model makes of strokes, for the objects of the base and those drawn; outside the region they are those of the base.

    Raises:
        MaskError: the model gave masks of another size, or numbers that are not finite.
    """
    ids = tuple(dict.fromkeys((*base.object_ids, *strokes.object_ids)))
    base = base.select(ids)
    if strokes.region is None:
        return _checked(maker.make(frame, strokes.interactions, base), frame).select(ids)
    x0, y0, x1, y1 = strokes.region
    part = Frame(frame.index, frame.image[:, y0:y1, x0:x1].contiguous(), frame.time_seconds, frame.name)
    shifted = [_shifted(stroke, (x0, y0)) for stroke in strokes.interactions]
    made = _checked(maker.make(part, shifted, Masks(base.probs[:, y0:y1, x0:x1].contiguous(), ids)), part).select(ids)
    probs = base.probs.clone()
    left, top, right, bottom = _within_rim(strokes.region, frame.hw)
    probs[:, top:bottom, left:right] = made.probs.to(probs)[:, top - y0 : bottom - y0, left - x0 : right - x0]
    return Masks(probs, ids)


def checked_region(region: Sequence[int | float], hw: tuple[int, int]) -> Region:
    """A region in whole pixels, cut to the frame.

    Raises:
        InputError: it is not four finite numbers, or less than 16 pixels wide or high inside the frame.
    """
    numbers = torch.tensor([float(number) for number in region])
    if len(numbers) != 4 or not bool(torch.isfinite(numbers).all()):
        message = f"region {list(region)} is not four finite numbers x0, y0, x1, y1"
        raise InputError(message)
    x0, y0, x1, y1 = (int(number) for number in numbers.round().tolist())
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, hw[1]), min(y1, hw[0])
    if x1 - x0 < min(_SMALLEST_REGION, hw[1]) or y1 - y0 < min(_SMALLEST_REGION, hw[0]):
        message = f"region {list(region)} has less than {_SMALLEST_REGION} pixels across inside the {hw[1]}x{hw[0]} frame; make it larger"
        raise InputError(message)
    return x0, y0, x1, y1


def paint(current: Masks, painted: Painted) -> Masks:
    """The masks with one object painted anew: it has exactly these pixels.

    Raises:
        MaskError: the mask has another size.
    """
    if tuple(painted.mask.shape) != current.hw:
        (height, width), (rows, columns) = painted.mask.shape, current.hw
        message = f"the mask for frame {painted.frame_index} is {width}x{height} but the frame is {columns}x{rows}; resize the mask first"
        raise MaskError(message)
    given = Masks.from_labels(painted.mask.to(torch.int32) * painted.object_id, (painted.object_id,))
    return merge_given(current, given)


def add_pixels(current: Masks, object_id: int, where: Bool[Tensor, "h w"]) -> Masks:
    """The masks with pixels added to one object; all others are as they were, bit for bit."""
    ids = (*current.object_ids, *(() if object_id in current.object_ids else (object_id,)))
    probs = current.select(ids).probs.clone()
    probs[:, where] = 0
    probs[1 + ids.index(object_id), where] = 1
    return Masks(probs, ids)


def erase_pixels(current: Masks, object_ids: Sequence[int], where: Bool[Tensor, "h w"]) -> Masks:
    """The masks with pixels taken from some objects: they go to the next best, or to the background; all others stay as they were, bit for bit."""
    probs = current.probs.clone()
    channels = [1 + current.object_ids.index(object_id) for object_id in object_ids if object_id in current.object_ids]
    inside = probs[:, where]
    inside[channels] = 0
    inside[0] = inside[0].clamp(min=1e-6)  # so that a pixel that only they claimed becomes background
    probs[:, where] = inside / inside.sum(dim=0)
    return Masks(probs, current.object_ids)


def brush_pixels(path: Float[Tensor, "n 2"], radius_pixels: float, hw: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The pixels whose centre is within a radius of a line through the points (x, y); a single point gives a disc.

    Pixel (x, y) has its centre at x + 0.5, y + 0.5.

    Raises:
        InputError: no point, a number that is not finite, a radius that is not positive, or a line that meets no pixel.
    """
    if not len(path) or not bool(torch.isfinite(path).all()) or not 0 < radius_pixels < float("inf"):
        message = f"a brush needs finite points and a positive radius; got {len(path)} points and radius {radius_pixels:g}"
        raise InputError(message)
    pixels = torch.zeros(hw, dtype=torch.bool)
    limit = torch.tensor([hw[1], hw[0]], dtype=torch.float64)
    points = torch.minimum(torch.maximum(path.detach().cpu().double(), -limit), 2 * limit)
    for start, end in pairwise(points if len(points) > 1 else points.repeat(2, 1)):
        _dab(pixels, start, end, radius_pixels)
    if not bool(pixels.any()):
        message = f"the brush line from {path[0].tolist()} to {path[-1].tolist()} meets no pixel of the {hw[1]}x{hw[0]} frame"
        raise InputError(message)
    return pixels


def to_json(stroke: Stroke) -> dict[str, Any]:
    """A stroke as JSON values."""
    common = {"kind": type(stroke).__name__.lower(), "frame": stroke.frame_index, "object_id": stroke.object_id}
    if isinstance(stroke, Clicks):
        return common | {"points": stroke.points.tolist(), "positive": stroke.positive.tolist()}
    if isinstance(stroke, Scribble):
        return common | {"path": stroke.path.tolist(), "positive": stroke.positive, "width_pixels": stroke.width_pixels}
    return common | {"xyxy": stroke.xyxy.tolist()}


def from_json(values: Mapping[str, Any]) -> Stroke:
    """The stroke that `to_json` gave."""
    frame, object_id = values["frame"], values["object_id"]
    if values["kind"] == "clicks":
        return Clicks(frame, object_id, torch.tensor(values["points"], dtype=torch.float32), torch.tensor(values["positive"]))
    if values["kind"] == "scribble":
        path = torch.tensor(values["path"], dtype=torch.float32)
        return Scribble(frame, object_id, path, values["positive"], values["width_pixels"])
    return Box(frame, object_id, torch.tensor(values["xyxy"], dtype=torch.float32))


def is_stroke(interaction: Interaction) -> bool:
    """Whether a model is needed to make a mask of it."""
    return not isinstance(interaction, Painted)


def _is_positive(stroke: Stroke) -> bool:
    if isinstance(stroke, Clicks):
        return bool(stroke.positive.any())
    return stroke.positive if isinstance(stroke, Scribble) else True


def _check_place(stroke: Stroke, limits: Region) -> None:
    x0, y0, x1, y1 = limits
    low, high = torch.tensor([x0, y0]), torch.tensor([x1, y1])
    if isinstance(stroke, Box):
        inside = bool((torch.minimum(stroke.xyxy[2:], high) > torch.maximum(stroke.xyxy[:2], low)).all())
    else:
        points = stroke.points if isinstance(stroke, Clicks) else stroke.path
        hits = ((points >= low) & (points < high)).all(dim=1)
        inside = bool(hits.all()) if isinstance(stroke, Clicks) else bool(hits.any())
    if not inside:
        what = {Clicks: "a click", Scribble: "all of a scribble", Box: "all of a box"}[type(stroke)]
        message = (
            f"{what} on frame {stroke.frame_index} for object {stroke.object_id} lies outside {x0},{y0},{x1},{y1}; "
            "give pixels (x, y) of the original frame, counted from 0"
        )
        raise InputError(message)


def _check_contradictions(clicks: Sequence[Clicks]) -> None:
    """Two clicks on one pixel that say different things of one object, or claim it for two."""
    said: dict[tuple[int, int, int], bool] = {}
    claimed: dict[tuple[int, int], int] = {}
    for click in clicks:
        for (x, y), positive in zip(click.points.floor().int().tolist(), click.positive.tolist(), strict=True):
            claimant = claimed.setdefault((x, y), click.object_id) if positive else click.object_id
            if said.setdefault((x, y, click.object_id), positive) != positive or claimant != click.object_id:
                both = f"on and off object {click.object_id}" if claimant == click.object_id else f"on objects {claimant} and {click.object_id}"
                message = f"clicks on frame {click.frame_index} contradict each other: {x},{y} is said to be {both}; undo one of them"
                raise InputError(message)


def _checked(made: Masks, frame: Frame) -> Masks:
    if made.hw != frame.hw:
        message = f"the mask maker gave masks of {made.hw} pixels for frame {frame.index} of {frame.hw}; it must keep the size"
        raise MaskError(message)
    if not bool(torch.isfinite(made.probs).all()):
        message = f"the mask maker gave numbers that are not finite on frame {frame.index}; check its weights"
        raise MaskError(message)
    return made


def _shifted(stroke: Stroke, corner: tuple[int, int]) -> Stroke:
    """The stroke in pixels of a part of the frame."""
    offset = torch.tensor(corner, dtype=torch.float32)
    if isinstance(stroke, Clicks):
        return Clicks(stroke.frame_index, stroke.object_id, stroke.points - offset, stroke.positive)
    if isinstance(stroke, Scribble):
        return Scribble(stroke.frame_index, stroke.object_id, stroke.path - offset, stroke.positive, stroke.width_pixels)
    return Box(stroke.frame_index, stroke.object_id, stroke.xyxy - offset.repeat(2))


def _within_rim(region: Region, hw: tuple[int, int]) -> Region:
    """The part of a region that is taken over: without its rim, but for sides that are those of the frame."""
    x0, y0, x1, y1 = region
    left, top = (edge + RIM_PIXELS if edge > 0 else 0 for edge in (x0, y0))
    right, bottom = (edge - RIM_PIXELS if edge < size else size for edge, size in ((x1, hw[1]), (y1, hw[0])))
    return left, top, right, bottom


def _dab(pixels: Bool[Tensor, "h w"], start: Float[Tensor, "2"], end: Float[Tensor, "2"], radius: float) -> None:
    """Set the pixels near one piece of a line, in place."""
    low, high = torch.minimum(start, end) - radius, torch.maximum(start, end) + radius
    (x0, y0), (x1, y1) = ((corner.floor().int().clamp(min=0)).tolist() for corner in (low, high + 1))
    window = pixels[y0:y1, x0:x1]
    rows, columns = (torch.arange(size, dtype=torch.float64) + first + 0.5 for size, first in zip(window.shape, (y0, x0), strict=True))
    dx, dy = columns[None, :] - start[0], rows[:, None] - start[1]
    along = end - start
    share = ((dx * along[0] + dy * along[1]) / along.square().sum().clamp(min=1e-12)).clamp(0, 1)
    window |= (dx - share * along[0]) ** 2 + (dy - share * along[1]) ** 2 <= radius**2
