"""From what a person drew to maps of pixels: lines, dilated to the width of the pen."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.types import Clicks, Interaction, Scribble

CLICK_PIXELS = 9
"""The side of the square that stands for a click; ours, for want of a rule: the published networks were trained on lines."""


def draw_strokes(interactions: Iterable[Interaction], object_ids: Sequence[int], hw: tuple[int, int]) -> Float[Tensor, "n 2 h w"]:
    """For each object two maps of 0 and 1: what was said to be on it, and what was said to be off it.

    A line through one object is off all others; a negative line speaks of its own object alone. Where lines cross, the later one counts. Then every
    line is dilated to a square pen of its width (rounded down to an odd number of pixels), so that thick lines of opposite sign may overlap: DAVIS's
    rule for width 3. Points are cut to whole pixels, joined by Bresenham's lines; what runs out of the frame is left out.

    Raises:
        InputError: an interaction that is not a line or click, of an object that is not listed, or wholly outside the frame.
    """
    layers: dict[int, Tensor] = {}
    for interaction in interactions:
        for path, is_on, width in _lines(interaction):
            pixels = line_pixels(_limited(path, hw))
            inside = pixels[((pixels >= 0) & (pixels < torch.tensor((hw[1], hw[0])))).all(dim=1)]
            if not len(inside):
                message = f"what was drawn on frame {interaction.frame_index} lies outside its {hw[1]}x{hw[0]} pixels"
                raise InputError(message)
            layer = layers.setdefault(width, torch.zeros((len(object_ids), 2, *hw)))
            _draw(layer, list(layers.values()), inside, _signs(interaction, object_ids, is_on=is_on))
    dilated = [F.max_pool2d(layer, width, 1, width // 2) if width > 1 else layer for width, layer in layers.items()]
    return torch.stack(dilated).amax(dim=0) if dilated else torch.zeros((len(object_ids), 2, *hw))


def line_pixels(points: Int64[Tensor, "n 2"]) -> Int64[Tensor, "m 2"]:
    """The pixels (x, y) of Bresenham's lines through the points, in their order; one point gives one pixel, and joints come once."""
    parts = [points[:1]]
    for start, end in pairwise(points):
        delta = end - start
        length = int(delta.abs().max())
        if length:
            steps = torch.arange(1, length + 1)[:, None]
            # the minor axis moves on where the exact line is half a pixel further, or more
            offsets = (2 * delta.abs() * steps + length).div(2 * length, rounding_mode="floor")
            parts.append(start + offsets * delta.sign())
    return torch.cat(parts)


def _lines(interaction: Interaction) -> list[tuple[Tensor, bool, int]]:
    """Paths with their sign and the width of the pen."""
    if isinstance(interaction, Scribble):
        return [(interaction.path, interaction.positive, _odd(interaction.width_pixels))]
    if isinstance(interaction, Clicks):
        return [(point[None], bool(sign), CLICK_PIXELS) for point, sign in zip(interaction.points, interaction.positive, strict=True)]
    message = f"a {type(interaction).__name__.lower()} on frame {interaction.frame_index} is neither a line nor a click; this model reads only those"
    raise InputError(message)


def _odd(width: float) -> int:
    return max(int((width - 1) // 2), 0) * 2 + 1


def _limited(path: Float[Tensor, "n 2"], hw: tuple[int, int]) -> Int64[Tensor, "n 2"]:
    """Whole pixels, at most one frame beyond each edge, so that no line is endless."""
    limit = torch.tensor((hw[1], hw[0]), dtype=torch.float64)
    return torch.minimum(torch.maximum(path.cpu().double().floor(), -limit), 2 * limit).long()


def _signs(interaction: Interaction, object_ids: Sequence[int], *, is_on: bool) -> list[tuple[int, int]]:
    """Which map of which object a line is drawn into: 0 on, 1 off."""
    if interaction.object_id not in object_ids:
        message = f"frame {interaction.frame_index}: there is no object {interaction.object_id}; there are {list(object_ids)}"
        raise InputError(message)
    own = object_ids.index(interaction.object_id)
    return [(i, 0 if i == own else 1) for i in range(len(object_ids))] if is_on else [(own, 1)]


def _draw(layer: Tensor, layers: Sequence[Tensor], pixels: Int64[Tensor, "m 2"], signs: Iterable[tuple[int, int]]) -> None:
    """Draw pixels into one layer, and wipe what was there before in all layers."""
    x, y = pixels.T
    for position, sign in signs:
        for other in layers:
            other[position, :, y, x] = 0
        layer[position, sign, y, x] = 1
